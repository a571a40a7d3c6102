"""What the kernel's sets should hold beside grants, computed from the snapshot and the host.

Pure. Owns who is admitted where. Invariants: an address that no single governed pod claims has no
identity and so no grant; a pod is admitted only by the interface that leads to it, never an uplink.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from enforcer.elements import Element, Endpoint, KnownPod, node_elements
from enforcer.identity import Identity
from policy.addresses import to_packed
from policy.pods import Pod
from policy.snapshot import Snapshot
from policy.world import World


class Host(NamedTuple):
    """What the host says: interface by packed pod address, interfaces with a default route.

    ``bridges`` are the pods' bridges; ``ports`` says behind which port of theirs an address is.
    """

    interfaces: Mapping[bytes, str]
    uplinks: tuple[str, ...]
    bridges: tuple[str, ...] = ()
    ports: Mapping[bytes, str] = MappingProxyType({})

    def interface(self, source: bytes) -> str:
        """Return the interface by which an address is admitted; "" where it is not known for sure."""
        name = self.interfaces.get(source, "")
        is_unsure = name in self.uplinks or (name in self.bridges and source not in self.ports)
        return "" if is_unsure else name

    def place(self, source: bytes) -> str:
        """Return where an address is attached: its interface, or its bridge's port; "" if unknown."""
        return self.ports.get(source, "") or self.interface(source)


class Fixed(NamedTuple):
    """What the configuration says."""

    node: str
    boot_id: str
    upstreams: tuple[Endpoint, ...] = ()
    listen: tuple[Endpoint, ...] = ()
    peers: tuple[str, ...] = ()
    """Addresses and CIDRs of other nodes' resolvers (``dns.peers``)."""


class Claims(NamedTuple):
    """Every address that pods of this node claim: its pod, or None where several do, here or elsewhere."""

    pods: dict[bytes, Pod | None]
    governed: frozenset[bytes]


def local_pods(world: World, node: str) -> Iterable[Pod]:
    """Return the pods that run on this node and have addresses of their own."""
    return (pod for pod in world.pods if pod.node in {"", node} and not pod.host_network)


def unadmitted(world: World, node: str, admitted: Container[str]) -> list[Pod]:
    """Return this node's governed pods that have addresses and are not ``admitted`` (by key)."""
    return [
        pod for pod in local_pods(world, node) if pod.governed and pod.addresses and pod.key not in admitted
    ]


def claims(snapshot: Snapshot, node: str) -> Claims:
    """Collect the addresses of this node's pods; what a pod of another node claims too is nobody's."""
    pods: dict[bytes, Pod | None] = {}
    governed: set[bytes] = set()
    for pod in local_pods(snapshot.world, node):
        for text in pod.addresses:
            packed = to_packed(text)
            pods[packed] = pod if snapshot.pod_at(packed) is pod else None
            if pod.governed:
                governed.add(packed)
    return Claims(pods, frozenset(governed))


def identities(claimed: Claims, host: Host, boot_id: str) -> dict[bytes, Identity]:
    """Return the identity of every governed address whose pod and interface are known."""
    found: dict[bytes, Identity] = {}
    for source, pod in claimed.pods.items():
        place = host.place(source)
        if pod is not None and pod.governed and place:
            found[source] = Identity(source, place, pod.uid or pod.key, boot_id, pod.key)
    return found


def known_before(
    wanted: Mapping[bytes, Identity], admitted: Mapping[bytes, Identity], tags: Collection[str]
) -> dict[bytes, Identity]:
    """Return those that are admitted, or were by an earlier enforcer (``tags``), just as they are."""
    return {
        source: each for source, each in wanted.items() if admitted.get(source) == each or each.tag() in tags
    }


def desired_elements(
    snapshot: Snapshot,
    claimed: Claims,
    host: Host,
    *,
    fixed: Fixed,
    admitted: Mapping[bytes, Identity],
    coming: frozenset[bytes],
) -> dict[str, dict[bytes, Element]]:
    """Return the node's sets, those ``admitted`` with their static permits; ``coming`` are left out."""
    known = []
    for source, pod in claimed.pods.items():
        if source in coming:
            continue
        governed = source in claimed.governed
        is_attributed = source in admitted if governed else pod is not None
        known.append(KnownPod(source, host.interface(source) if is_attributed else "", governed))
    static = {}
    for source, identity in admitted.items():
        pod = snapshot.pod(identity.key)
        if pod is not None and source not in coming:
            static[source] = snapshot.static_boxes(pod)
    return node_elements(
        known,
        cluster_cidrs=snapshot.world.cluster_cidrs,
        peers=fixed.peers,
        never=[to_packed(text) for text in snapshot.world.dns_addresses],
        uplinks=host.uplinks,
        bridges=host.bridges,
        upstreams=fixed.upstreams,
        listen=fixed.listen,
        static=static,
    )
