"""What was refused: blocked lookups and denied packets, grouped and bounded.

Owns the records that ``nameward blocked`` lists. Never logs and never decides. Invariants: at most
``capacity`` groups; when it is full, the pod with the most groups loses its oldest, so that a noisy
pod cannot push out the evidence of the others; one pod alone has a share of it at most, so that its flood
fills no memory either.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, NamedTuple

import msgspec


class Refused(NamedTuple):
    """One refusal, as it came; ``times`` that often, the last at ``at`` (monotonic seconds)."""

    kind: str
    namespace: str
    pod: str
    pod_ip: str
    name: str
    qtype: str
    address: str
    protocol: str
    port: int | None
    policy: str
    rule: str
    reason: str
    reason_class: str
    times: int
    at: float


class Group(msgspec.Struct, frozen=True):
    """Equal refusals (all but the reason's wording) as one; ``last`` is the latest of them."""

    last: Refused
    count: int
    first_at: float


class _Kept(msgspec.Struct, array_like=True):
    """What is kept of a group beside its pod and its key."""

    pod_ip: str
    policy: str
    rule: str
    reason: str
    times: int
    at: float
    first_at: float
    count: int = 0
    told: int = 0
    told_at: float = float("-inf")


GroupKey = tuple[str, str, str, str, str, int | None, str]
_Pod = tuple[str, str]
_encode = msgspec.msgpack.Encoder().encode
_read_key = msgspec.msgpack.Decoder(GroupKey).decode
_read_kept = msgspec.msgpack.Decoder(_Kept).decode
_read_refused = msgspec.msgpack.Decoder(Refused).decode
Listener = Callable[[Refused], None]
MAX_RAW = 10_000
"""Refusals kept one by one, beside the groups."""
RETELL_S = 10.0
"""A group that goes on is logged this often, with its count since."""
POD_SHARE: Final = 16
LEAST_SHARE: Final = 4096
"""One pod's groups are a sixteenth of all at most, but so many in any case."""
EVICTED_SHARE: Final = 64
"""Of who has the most one in so many goes at once: what is looked for then is found once for all of them."""


def group_key(refused: Refused) -> GroupKey:
    """Return what equal refusals of one pod have in common."""
    return (
        refused.kind,
        refused.name,
        refused.qtype,
        refused.address,
        refused.protocol,
        refused.port,
        refused.reason_class,
    )


class BlockedRecords:
    """The bounded, grouped records; ``listen`` follows them as they come.

    Nearly all are looked at once or never, so each is kept as octets: a third of what its values would take.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._most_of_pod = max(LEAST_SHARE, capacity // POD_SHARE)
        self._pods: dict[_Pod, dict[bytes, bytes]] = {}
        """All unknown sources share one, or forging them would evict. A pod's latest group stands last."""
        self._count = 0
        self._listeners: list[Listener] = []
        self._raw: deque[bytes] = deque(maxlen=min(capacity, MAX_RAW))

    def __len__(self) -> int:
        return self._count

    def add(self, refused: Refused) -> int:
        """Record it. Returns how many of its group the log should tell of now, 0 for none."""
        pod = refused.namespace, refused.pod
        groups = self._pods.setdefault(pod, {})
        key = _encode(group_key(refused))
        before = groups.pop(key, None)
        _, _, _, pod_ip, *_, policy, rule, reason, _, times, at = refused
        kept = _Kept(pod_ip, policy, rule, reason, times, at, first_at=at)
        if before is None:
            self._count += 1
        else:
            known = _read_kept(before)
            kept.first_at, kept.count, kept.told, kept.told_at = (
                known.first_at, known.count, known.told, known.told_at,
            )  # fmt: skip
        kept.count += times
        untold = 0
        if at - kept.told_at >= RETELL_S:
            untold, kept.told, kept.told_at = kept.count - kept.told, kept.count, at
        groups[key] = _encode(kept)
        if len(groups) > self._most_of_pod:
            self._evict(pod)
        elif self._count > self._capacity:
            self._evict(max(self._pods, key=lambda pod: len(self._pods[pod])))
        self._raw.append(_encode(refused))
        for listener in tuple(self._listeners):
            listener(refused)
        return untold

    def _evict(self, pod: _Pod) -> None:
        groups = self._pods[pod]
        for key in list(islice(groups, max(1, len(groups) // EVICTED_SHARE))):
            del groups[key]
            self._count -= 1
        if not groups:
            del self._pods[pod]

    @property
    def raw(self) -> list[Refused]:
        """The latest refusals one by one, oldest first."""
        return [_read_refused(each) for each in self._raw]

    def groups(self, namespace: str = "", pod: str = "") -> Iterator[Group]:
        """Iterate over all groups, or some pods', pod by pod, each one's oldest first, while more come."""
        for whose, groups in list(self._pods.items()):
            if namespace in {"", whose[0]} and pod in {"", whose[1]}:
                for key, kept in list(groups.items()):
                    yield _group(whose, key, kept)

    def latest(self, count: int) -> list[Group]:
        """Return so many groups at most, those that were added to last, the latest first."""
        pods = (_backwards(whose, groups) for whose, groups in self._pods.items())
        return list(islice(heapq.merge(*pods, key=lambda group: -group.last.at), count))

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with every refusal from now on; the returned function ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)


def _backwards(pod: _Pod, groups: dict[bytes, bytes]) -> Iterator[Group]:
    for key, kept in reversed(groups.items()):
        yield _group(pod, key, kept)


def _group(pod: _Pod, key: bytes, octets: bytes) -> Group:
    kind, name, qtype, address, protocol, port, reason_class = _read_key(key)
    kept = _read_kept(octets)
    last = Refused(
        kind, *pod, kept.pod_ip, name, qtype, address, protocol, port,
        kept.policy, kept.rule, kept.reason, reason_class, kept.times, kept.at,
    )  # fmt: skip
    return Group(last, kept.count, kept.first_at)
