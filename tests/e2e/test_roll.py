"""A new version of the DaemonSet on a node, under load."""

from __future__ import annotations

import pytest

from enforcer.demo.kube import scenes
from enforcer.demo.kube.scenes import ClusterStage
from enforcer.demo.scenes import play

pytestmark = pytest.mark.e2e


def test_no_lookup_fails_while_a_pod_takes_over(stage: ClusterStage) -> None:
    """200 lookups a second, five seconds' patience, a transfer that goes on."""
    stage.lab.world.forget()  # what an opened namespace sent before
    step = play(scenes.LAST[0], stage)
    assert step.ok, f"{step.seen}\n{stage.cluster_lab.ward.tail()}"
