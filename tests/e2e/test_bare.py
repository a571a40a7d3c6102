"""The cluster before anybody has installed Nameward; by its name the first module of all here."""

from __future__ import annotations

import pytest

from enforcer.demo import scenes_attacks
from enforcer.demo.kube.scenes import ClusterStage
from enforcer.demo.scenes import play

pytestmark = pytest.mark.e2e


def test_it_is_possible_without_nameward(bare: ClusterStage, found: str) -> None:
    """The attacks work before; kube-proxy has rules of its own."""
    step = play(scenes_attacks.BEFORE[0], bare)
    assert step.ok, step.seen
    assert "table ip kube-proxy" in found
