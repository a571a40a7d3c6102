"""The demo's scenes in a real cluster: each invariant with real pods, CNI plugins and kube-proxy."""

from __future__ import annotations

import pytest

from enforcer.demo import scenes_attacks, scenes_crash, scenes_life, scenes_names
from enforcer.demo.kube import scenes as scenes_cluster
from enforcer.demo.kube.scenes import ClusterStage
from enforcer.demo.scenes import Scene, play

pytestmark = pytest.mark.e2e

SCENES = (
    *scenes_cluster.FIRST,
    *scenes_names.SCENES,
    *scenes_attacks.SCENES,
    *scenes_life.SCENES,
    *scenes_crash.SCENES,
)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name.replace(" ", "-"))
def test_a_scene_holds(stage: ClusterStage, scene: Scene[ClusterStage]) -> None:
    """Each as the demo shows it."""
    step = play(scene, stage)
    assert step.ok, f"{step.seen}\n{stage.cluster_lab.ward.tail()}"
