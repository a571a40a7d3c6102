"""A step that claims containment must fail where nothing contains, or it proves nothing."""

from __future__ import annotations

import pytest

from enforcer.demo import scenes_attacks, scenes_names
from enforcer.demo.scenes import Scene, Stage, play

pytestmark = pytest.mark.kernel

CLAIMS = [
    scene
    for scene in (*scenes_names.SCENES, *scenes_attacks.SCENES)
    if scene.name not in {"CNAME chain", "500 addresses", "1,000 first packets"}
]
WORKS_ANYWAY = [scene for scene in scenes_names.SCENES if scene not in CLAIMS]


@pytest.mark.parametrize("scene", CLAIMS, ids=lambda scene: scene.name)
def test_every_claim_fails_in_an_open_lab(open_stage: Stage, scene: Scene) -> None:
    """Played without Nameward, each step about containment is seen to fail."""
    open_stage.lab.world.forget()
    step = play(scene, open_stage)
    assert not step.ok
    assert "NOT AS EXPECTED" in step.seen


@pytest.mark.parametrize("scene", WORKS_ANYWAY, ids=lambda scene: scene.name)
def test_what_only_asks_for_reachability_holds_in_an_open_lab(open_stage: Stage, scene: Scene) -> None:
    """Played without Nameward, each step about reachability holds: the lab is not in its way."""
    step = play(scene, open_stage)
    assert step.ok, step.seen
