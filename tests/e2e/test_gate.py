"""The gate in a real pod: put in by the API server, opened by the node, before the pod's own program."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from enforcer.demo import lab as labs
from enforcer.demo import places
from enforcer.demo.kube.client import Json, RefusedError
from enforcer.demo.kube.lab import ClusterLab
from enforcer.demo.processes import wait_until
from tests.e2e.test_pods import WITHIN_S, client, delete, outcome

pytestmark = pytest.mark.e2e
NAME = "gated"


@pytest.fixture(scope="module")
def gated(lab: ClusterLab) -> Iterator[ClusterLab]:
    """The release with the gate; afterwards without."""
    lab.ward.install("--set", "gate.enabled=true")
    yield lab
    lab.ward.install()


def gate_of(lab: ClusterLab) -> Json | None:
    """What became of the pod's gate; None if it has none."""
    pod = lab.cluster.get("pod", NAME, "-n", places.NAMESPACE)
    statuses = pod["status"].get("initContainerStatuses", [])
    return next((each for each in statuses if each["name"] == "nameward-gate"), None)


def test_a_program_begins_behind_the_gate(gated: ClusterLab) -> None:
    """Restricted, without a token; once it ends, the very first connection succeeds."""

    def is_injected() -> bool:
        delete(gated, NAME)
        try:
            gated.cluster.apply(client(NAME, labs.CRM_SERVER, places.CRM))
        except RefusedError:  # the policy that checks was heard of before the one that adds
            return False
        spec = gated.cluster.get("pod", NAME, "-n", places.NAMESPACE)["spec"]
        return [each["name"] for each in spec.get("initContainers", [])] == ["nameward-gate"]

    assert wait_until(is_injected, WITHIN_S, 1.0)
    said = outcome(gated, NAME)
    gate = gate_of(gated)
    logs = gated.cluster.kubectl("logs", NAME, "-n", places.NAMESPACE, "-c", "nameward-gate")
    delete(gated, NAME)
    assert gate is not None
    assert gate["state"]["terminated"]["exitCode"] == 0, logs
    assert f"policy is enforced on {places.NAMESPACE}/{NAME}" in logs
    assert "connected" in said, said
