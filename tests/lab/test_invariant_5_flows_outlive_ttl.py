"""Invariant 5: expiry stops new connections only."""

from __future__ import annotations

import pytest

from enforcer.demo import scenes_life
from enforcer.demo.scenes import Scene, Stage, play

pytestmark = pytest.mark.kernel

SCENES = [scene for scene in scenes_life.SCENES if scene.invariant.startswith("5:")]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_scene(stage: Stage, scene: Scene) -> None:
    """The demo's scenes of this invariant hold, beside the rules of others too."""
    step = play(scene, stage)
    assert step.ok, step.seen
