"""What was refused: blocked lookups and denied packets, grouped and bounded.

Owns the records that ``nameward blocked`` lists. Never logs and never decides. Invariants: at most
``capacity`` groups; when it is full, the pod with the most groups loses its oldest, so that a noisy
pod cannot push out the evidence of the others.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import NamedTuple


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


class Group:
    """Equal refusals (all but the reason's wording) as one; ``last`` is the latest of them."""

    __slots__ = ("count", "first_at", "last", "told", "told_at")

    def __init__(self, refused: Refused) -> None:
        self.first_at = refused.at
        self.last = refused
        self.count = 0
        self.told = 0
        self.told_at = float("-inf")


GroupKey = tuple[str, str, str, str, str, int | None, str]
Listener = Callable[[Refused], None]
MAX_RAW = 10_000
"""Refusals kept one by one, beside the groups."""
RETELL_S = 10.0
"""A group that goes on is logged this often, with its count since."""


class BlockedRecords:
    """The bounded, grouped records; ``listen`` follows them as they come."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._pods: dict[str, OrderedDict[GroupKey, Group]] = {}
        self._count = 0
        self._listeners: list[Listener] = []
        self.raw: deque[Refused] = deque(maxlen=min(capacity, MAX_RAW))

    def __len__(self) -> int:
        return self._count

    def add(self, refused: Refused) -> int:
        """Record it. Returns how many of its group the log should tell of now, 0 for none."""
        pod = (
            f"{refused.namespace}/{refused.pod}"  # all unknown sources share one, or forging them would evict
        )
        groups = self._pods.setdefault(pod, OrderedDict())
        key = (
            refused.kind,
            refused.name,
            refused.qtype,
            refused.address,
            refused.protocol,
            refused.port,
            refused.reason_class,
        )
        group = groups.get(key)
        if group is None:
            group = groups[key] = Group(refused)
            self._count += 1
            if self._count > self._capacity:
                self._evict()
        else:
            groups.move_to_end(key)
        group.count += refused.times
        group.last = refused
        self.raw.append(refused)
        for listener in tuple(self._listeners):
            listener(refused)
        if refused.at - group.told_at < RETELL_S:
            return 0
        untold, group.told, group.told_at = group.count - group.told, group.count, refused.at
        return untold

    def _evict(self) -> None:
        noisiest = max(self._pods, key=lambda pod: len(self._pods[pod]))
        self._pods[noisiest].popitem(last=False)
        self._count -= 1
        if not self._pods[noisiest]:
            del self._pods[noisiest]

    def groups(self) -> Iterator[Group]:
        """Iterate over all groups, pod by pod, each pod's oldest first."""
        for groups in self._pods.values():
            yield from groups.values()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with every refusal from now on; the returned function ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)
