"""The inventory of a cluster: what a node's own word, or its silence, makes of its pods."""

from __future__ import annotations

from typing import Any

import pytest

from enforcer.inventory import Inventory
from enforcer.survey import NodeKnown, node_of, survey
from policy.pods import Pod
from policy.snapshot import compile_snapshot
from policy.world import World

FINE = NodeKnown(reported=True, enforcing=True)


def rows(pod: Pod, node: NodeKnown | None, *, is_reported: bool = True) -> list[dict[str, Any]]:
    """The inventory of one pod and its node."""
    world = World(generation=1, pods=(pod,))
    nodes = {} if node is None else {"n1": node}
    return list(survey(Inventory(compile_snapshot(world)), nodes, is_reported=is_reported))


def pod(**more: Any) -> Pod:
    """A pod on node n1."""
    return Pod(
        **{"namespace": "mcp", "name": "a", "uid": "u", "addresses": ("100.64.0.2",), "node": "n1"} | more
    )


def test_a_pod_on_a_node_that_enforces_is_as_policies_say() -> None:
    """Here: no policy selects it."""
    [row] = rows(pod(), FINE)
    assert (row["state"], row["node"]) == ("default-denied", "n1")


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (FINE._replace(labels={"type": "virtual-kubelet"}), "node n1 is virtual (type)"),
        (
            FINE._replace(labels={"kubernetes.azure.com/role": "virtual-node"}),
            "is virtual (kub",
        ),
        (
            FINE._replace(labels={"eks.amazonaws.com/compute-type": "fargate"}),
            "is virtual (eks",
        ),
        (
            FINE._replace(labels={"virtual-kubelet.io/provider": "x"}),
            "is virtual (virt",
        ),
        (FINE._replace(labels={"kubernetes.io/os": "windows"}), "node n1 runs windows"),
        (None, "node n1 is gone"),
        (FINE._replace(reported=False), "Nameward on node n1 has never reported"),
        (FINE._replace(enforcing=False, problem="no nf_tables"), "node n1 does not enforce: no nf_tables"),
        (FINE._replace(enforcing=False), "node n1 does not enforce: see its NodeStatus"),
        (FINE._replace(enforcing=False, removed=True), "Nameward was removed from node n1"),
    ],
)
def test_a_node_that_cannot_contain_is_said(node: NodeKnown | None, words: str) -> None:
    """Its pods are uncontained, whatever their policies say."""
    [row] = rows(pod(), node)
    assert row["state"] == "uncontained"
    assert words in row["reason"]


def test_a_fargate_pod_is_known_by_its_label() -> None:
    """Its node may not be readable, or be gone already."""
    [row] = rows(pod(labels={"eks.amazonaws.com/fargate-profile": "p"}), FINE)
    assert row["state"] == "uncontained"
    assert "Fargate" in row["reason"]


def test_without_reports_nobody_is_accused() -> None:
    """What could not be read is no silence."""
    [row] = rows(pod(), NodeKnown(), is_reported=False)
    assert row["state"] == "default-denied"


def test_a_pod_without_a_node_waits() -> None:
    """It does not run yet."""
    [row] = rows(pod(node=""), None)
    assert row["state"] == "default-denied"


def test_a_pods_own_powers_are_said_first() -> None:
    """They are its author's to take away."""
    [row] = rows(pod(powers=("privileged",)), FINE._replace(labels={"type": "virtual-kubelet"}))
    assert "privileged" in row["reason"]


@pytest.mark.parametrize(
    "said", [None, 5, "x", [], {"problems": "x"}, {"problems": [7]}, {"enforcing": "true"}]
)
def test_objects_of_any_shape_are_read(said: object) -> None:
    """What is not exactly true is not."""
    found = node_of({"metadata": said}, {"status": said})
    assert (found.enforcing, found.removed, found.problem, found.labels) == (False, False, "", {})
    assert (node_of(None, None).is_there, node_of({}, None).reported) == (False, False)


def test_a_report_is_read() -> None:
    """As the agents write it; what a node says is escaped."""
    status = {"status": {"enforcing": False, "problems": ["\x1b[31mbad"], "removed": True}}
    found = node_of({"metadata": {"labels": {"a": "b"}}}, status)
    assert found == NodeKnown({"a": "b"}, True, True, False, "\\u001b[31mbad", True)  # noqa: FBT003
