"""What the two processes say to each other over the authority socket, as values.

The resolver is the untrusted side: each of its messages is bounded and checked, and nothing in
them is believed beyond "this pod's lookup gave these addresses". Encoded as MessagePack arrays,
one tagged message a frame (``policy.runtime.framing``).
"""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

import msgspec

from policy.pods import Pod, Service
from policy.rules import Policy
from policy.world import World

T = TypeVar("T")

MAX_ADDRESSES = 4096
"""Addresses in one grant request: more than any 65,535-byte DNS message can carry (4,094 A)."""

PROTOCOL = 2
"""Grows with every change of these messages that the other side's release could not understand."""

Outcome = Literal["realized", "denied", "limit", "failed"]


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """First message of both sides. ``sockets`` names the descriptors that come with it, in order.

    Socket names: ``udp4 udp6 tcp4 tcp6`` (captured traffic, transparent) and
    ``listen:udp:ADDRESS:PORT`` / ``listen:tcp:ADDRESS:PORT`` for ``dns.listen``. ``number`` is which of
    several resolvers says this (``dns.processes``): each has a set of sockets of its own.
    """

    version: str
    sockets: tuple[str, ...] = ()
    protocol: int = PROTOCOL
    number: int = 0


class SnapshotPublished(msgspec.Struct, frozen=True, array_like=True, tag="snapshot"):
    """Enforcer → resolver: the world of this generation is in force from now on."""

    world: World


class Splice(msgspec.Struct, Generic[T], frozen=True, array_like=True):
    """At this place of the tuple before, so many are gone, and these came."""

    at: int
    gone: int
    came: tuple[T, ...]


class WorldChanged(msgspec.Struct, frozen=True, array_like=True, tag="changed"):
    """Enforcer → resolver: as ``SnapshotPublished``, said as a change of the one before on this connection.

    ``world`` is whole but for the three tuples, which are those of generation ``base`` with the splices
    (ascending, apart). Whoever does not hold ``base`` gives the connection up: the next brings the whole.
    """

    base: int
    world: World
    policies: tuple[Splice[Policy], ...]
    pods: tuple[Splice[Pod], ...]
    services: tuple[Splice[Service], ...]


class GrantRequested(msgspec.Struct, frozen=True, array_like=True, tag="grant"):
    """Resolver → enforcer: open these addresses for this pod because of this name.

    ``addresses`` are packed (4 or 16 octets). ``source`` is the asking pod's packed address.
    ``ttl_s`` is what the client's answer will carry (1 to maxTTL).
    """

    id: int
    generation: int
    pod_uid: str
    source: bytes
    name: str
    addresses: tuple[bytes, ...]
    ttl_s: int


class GrantAnswered(msgspec.Struct, frozen=True, array_like=True, tag="granted"):
    """Enforcer → resolver: one outcome per address, in the request's order.

    Sent only after the kernel acknowledged every ``realized`` one. ``remaining_s`` is how long
    from now the shortest of them lasts; ``generation`` the snapshot that decided. Not ``lasting``:
    another node decided, which may revoke unheard, so it is to be asked again the next time.
    """

    id: int
    generation: int
    outcomes: tuple[Outcome, ...]
    remaining_s: float
    reason: str = ""
    lasting: bool = True


class LookupRecord(msgspec.Struct, frozen=True, array_like=True):
    """One recorded lookup (blocked, watched, or a search-list expansion), possibly many times.

    ``age_s`` is how long before the message was sent it was last seen.
    """

    verdict: Literal["blocked", "watched", "search", "limit"]
    namespace: str
    pod: str
    pod_ip: str
    name: str
    qtype: str
    policy: str
    rule: str
    reason: str
    count: int
    age_s: float


class LookupsRecorded(msgspec.Struct, frozen=True, array_like=True, tag="lookups"):
    """Resolver → enforcer: a bounded batch of records."""

    records: tuple[LookupRecord, ...]


class UpstreamState(msgspec.Struct, frozen=True, array_like=True):
    """Health of one upstream: exponentially weighted latency in milliseconds."""

    address: str
    healthy: bool
    latency_ms: float


class CountersReported(msgspec.Struct, frozen=True, array_like=True, tag="counters"):
    """Resolver → enforcer, once a second: growth since the last report, and upstream health.

    ``counters`` maps ``metric{label="value",…}`` to growth; ``histograms`` maps the same kind of
    key to growth per bucket (bounds in ``policy.runtime.metrics``), the sum last. ``number`` is as in
    ``Hello``.
    """

    counters: dict[str, float]
    histograms: dict[str, tuple[float, ...]]
    gauges: dict[str, float]
    upstreams: tuple[UpstreamState, ...]
    number: int = 0


class PodsEnforced(msgspec.Struct, frozen=True, array_like=True, tag="enforced"):
    """Enforcer → resolver: all pods of this node of which it is known that policy is enforced on them.

    Proved by their own packets, not only admitted; what is said to a pod that asks (``nameward gate``).
    """

    uids: tuple[str, ...] = ()


ToResolver = Hello | SnapshotPublished | WorldChanged | GrantAnswered | PodsEnforced
ToEnforcer = Hello | GrantRequested | LookupsRecorded | CountersReported
