"""Invariant 2: a grant opens one pod's address, not its group's and not its node's."""

from __future__ import annotations

import pytest

from enforcer.demo import lab as labs
from enforcer.demo import places, scenes_attacks
from enforcer.demo.processes import LONG_S, wait_until
from enforcer.demo.scenes import Scene, Stage, play

pytestmark = pytest.mark.kernel

SCENES = [scene for scene in scenes_attacks.SCENES if scene.invariant.startswith("2:")]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_scene(stage: Stage, scene: Scene) -> None:
    """The demo's scenes of this invariant hold, beside the rules of others too."""
    stage.lab.world.forget()
    step = play(scene, stage)
    assert step.ok, step.seen


def test_a_sibling_with_the_same_labels_has_to_ask_for_itself(stage: Stage) -> None:
    """Two pods of one SmartGroup share the policy, never a grant."""
    sibling = stage.lab.add_pod(labs.CRM_SERVER, 20)
    try:
        address = stage.crm.stub.ask(places.CRM).addresses[0]
        assert stage.crm.connect(address).ok
        assert not sibling.connect(address, wait_s=0.5).ok
        assert wait_until(lambda: bool(sibling.stub.ask(places.CRM).addresses), LONG_S)
        assert sibling.connect(address).ok
    finally:
        stage.lab.remove_pod(sibling)
