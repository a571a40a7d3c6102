"""What Redis holds of a node, compared with what the node says itself.

Owns reading the shared state as an operator does: with redis-cli and nothing else. Judges nothing but
equality. Never writes, but for the forger's hand that a scene lends it (``Cluster.redis``).
"""

from __future__ import annotations

from enforcer.demo.cluster import CLUSTER, Cluster
from enforcer.demo.nodes import LabNode
from enforcer.demo.processes import wait_until

AGREE_S = 40.0
"""How long after Redis is back its content may differ from the truth, where all is slow; promised are 5 s."""


def prefix(node: str) -> str:
    """Return what the keys of a node begin with."""
    return f"nameward:{CLUSTER}:{{{node}}}:"


def grant_key(node: str, pod_ip: str, address: str, protocol: str, port: object) -> str:
    """Return the key of a grant, as docs/redis.md has it."""
    return f"{prefix(node)}grant:{_shown(pod_ip)}:{_shown(address)}:{protocol}:{port}"


def _shown(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def keys(cluster: Cluster, node: LabNode, kind: str) -> set[str]:
    """Return the keys of one kind that Redis has of a node."""
    found = cluster.redis("--scan", "--pattern", f"{prefix(node.place.name)}{kind}*")
    return {line for line in found.splitlines() if line}


def truth(node: LabNode) -> set[str]:
    """Return the keys that the node's own grants have to have."""
    name = node.place.name
    return {
        grant_key(name, row["podIP"], row["address"], row["protocol"], row["port"])
        for row in node.ward.ask("grants", node=name)
    }


def _apart(cluster: Cluster, node: LabNode) -> tuple[set[str], set[str], int]:
    """Return the grants that only the node has, those that only Redis has, and how many the node has.

    Under load grants come and go while both are read, one after the other: what the node has not had all that
    time is not missing, and what it has had at some time of it is not too much.
    """
    before, shared = truth(node), keys(cluster, node, "grant:")
    after = truth(node)
    missing, surplus = (before & after) - shared, shared - (before | after)
    if missing or surplus:
        shared, own = keys(cluster, node, "grant:"), truth(node)
        missing, surplus = (missing & own) - shared, (surplus & shared) - own
    return missing, surplus, len(after)


def difference(cluster: Cluster, node: LabNode) -> str:
    """Say what Redis and the node disagree about; "" when nothing."""
    absent, surplus, count = _apart(cluster, node)
    pods = keys(cluster, node, "pod:")
    missing = [pod.name for pod in node.pods.values() if not _has_pod(node, pod.addresses, pods)]
    wrong = [
        f"{len(absent)} of {count} grants are not there" if absent else "",
        f"{len(surplus)} are there that are none" if surplus else "",
        f"no record of {', '.join(missing)}" if missing else "",
        "" if keys(cluster, node, "node") else "no record of the node",
    ]
    said = "; ".join(part for part in wrong if part)
    return f"{node.place.name}: {said}" if said else ""


def _has_pod(node: LabNode, addresses: tuple[str, str], pods: set[str]) -> bool:
    return all(f"{prefix(node.place.name)}pod:{_shown(address)}" in pods for address in addresses)


def differences(cluster: Cluster, within_s: float = AGREE_S) -> str:
    """Wait until Redis holds what each living node says, no more and no less; say what still differs."""
    found: list[str] = []

    def agreed() -> bool:
        found[:] = [said for node in cluster.nodes if node.lives and (said := difference(cluster, node))]
        return not found

    return "" if wait_until(agreed, within_s, 0.05) else "; ".join(found)
