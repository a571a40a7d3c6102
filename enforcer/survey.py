"""The inventory of a whole cluster, as its API server knows it: pods against policies and against nodes.

Pure. Owns which nodes cannot contain, and why. Never asks anybody. Invariant: a pod is called contained only
where the node it runs on has said that it enforces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from enforcer.inventory import Inventory, Row
from policy.manifest_findings import printable

_VIRTUAL = (
    ("type", "virtual-kubelet"),
    ("kubernetes.azure.com/role", "virtual-node"),
    ("eks.amazonaws.com/compute-type", "fargate"),
    ("virtual-kubelet.io/provider", ""),
)
"""Labels of nodes that are no machines; "" is any value."""
_FARGATE_POD = "eks.amazonaws.com/fargate-profile"
_MAX_PROBLEM_CHARS = 200

Json = dict[str, Any]


class NodeKnown(NamedTuple):
    """One Node, and what Nameward on it has said of itself."""

    labels: Mapping[str, str] = {}
    is_there: bool = True
    reported: bool = False
    enforcing: bool = False
    problem: str = ""
    removed: bool = False


def node_of(node: Json | None, status: Json | None) -> NodeKnown:
    """Read a Node and its NodeStatus; None: there is none. Total."""
    metadata = node.get("metadata") if node is not None else None
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    said = status.get("status") if status is not None else None
    said = said if isinstance(said, dict) else {}
    problems = said.get("problems")
    first = problems[0] if isinstance(problems, list) and problems and isinstance(problems[0], str) else ""
    return NodeKnown(
        labels=labels if isinstance(labels, dict) else {},
        is_there=node is not None,
        reported=status is not None,
        enforcing=said.get("enforcing") is True,
        problem=printable(first)[:_MAX_PROBLEM_CHARS],
        removed=said.get("removed") is True,
    )


def survey(inventory: Inventory, nodes: Mapping[str, NodeKnown], *, is_reported: bool) -> Iterator[Row]:
    """Yield the inventory's rows, each pod against its node. ``is_reported``: NodeStatuses could be read."""
    pods = {pod.key: pod for pod in inventory.snapshot.world.pods}
    for row in inventory.rows("", ()):
        if row["kind"] == "pod" and row["state"] != "uncontained" and row["node"]:
            pod = pods[f"{row['namespace']}/{row['pod']}"]
            why = (
                f"it runs on Fargate ({_FARGATE_POD}), where no node is ours"
                if _FARGATE_POD in pod.labels
                else why_not(row["node"], nodes.get(row["node"], NodeKnown(is_there=False)), is_reported)
            )
            if why:
                row |= {"state": "uncontained", "reason": why}
        yield row


def why_not(name: str, node: NodeKnown, is_reported: bool) -> str:
    """Say why a node contains no pod; "" if it does, as far as is known."""
    virtual = [key for key, value in _VIRTUAL if key in node.labels and value in {"", node.labels[key]}]
    system = node.labels.get("kubernetes.io/os", "linux")
    if virtual:
        return f"node {name} is virtual ({virtual[0]}): no program of ours can run there"
    if system != "linux":
        return f"node {name} runs {printable(system)}: there is no nftables there"
    if not node.is_there:
        return f"node {name} is gone; its pods will be removed"
    if not is_reported:
        return ""
    if not node.reported:
        return f"Nameward on node {name} has never reported: see its DaemonSet's pods"
    if node.removed:
        return f"Nameward was removed from node {name}"
    if not node.enforcing:
        return f"node {name} does not enforce: {node.problem or 'see its NodeStatus'}"
    return ""
