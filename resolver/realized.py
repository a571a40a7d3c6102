"""Grants that the authority says are in the kernel, so that a renewed question need not wait.

Owns what was realized for which pod, name and address, and until when. Never asks, never replies.
Invariant: an instant in it is never later than the kernel's; a new snapshot empties it.
"""

from __future__ import annotations

from typing import Final

MAX_PER_POD: Final = 65536
"""Addresses remembered per pod; more empties that pod's table, and its next answers are held."""
MAX_SETS: Final = 8
"""Sets of addresses remembered of one name: a name that gives others each time is asked for again."""
NEVER: Final = float("-inf")

Pod = tuple[str, ...]
"""A pod by its addresses: a uid could be written twice, an address belongs to one pod only."""


class _Open:
    """One answer's addresses, as the answer has them, and until when all of them are open."""

    __slots__ = ("addresses", "until")

    def __init__(self, addresses: tuple[bytes, ...], until: float) -> None:
        self.addresses = addresses
        self.until = until


class _Known:
    """What is open for one pod, by name; the newest set of a name comes last."""

    __slots__ = ("names", "size")

    def __init__(self) -> None:
        self.names: dict[str, _Open | list[_Open]] = {}
        self.size = 0


class Realized:
    """Until when each address is open, by the pod's addresses and name."""

    def __init__(self) -> None:
        self._pods: dict[Pod, _Known] = {}
        self._renewing: set[tuple[Pod, str, int]] = set()

    def until(self, pod: Pod, name: str, addresses: tuple[bytes, ...]) -> float:
        """The instant until which all the addresses are open; ``-inf`` if one never was."""
        known = self._pods.get(pod)
        if known is None:
            return NEVER
        found = known.names.get(name)
        if found is None:
            return NEVER
        if isinstance(found, _Open):
            if found.addresses == addresses:
                return found.until
            found = [found]
        opened: dict[bytes, float] = {}
        for each in found:
            for address in each.addresses:
                opened[address] = max(each.until, opened.get(address, NEVER))
        least = float("inf")
        for address in addresses:
            least = min(least, opened.get(address, NEVER))
        return least

    def add(self, pod: Pod, name: str, addresses: tuple[bytes, ...], until: float) -> None:
        """Remember realized addresses, the later instant of two counting."""
        known = self._pods.get(pod)
        if known is None or known.size + len(addresses) > MAX_PER_POD:
            known = self._pods[pod] = _Known()
        found = known.names.get(name)
        if found is None:
            known.names[name] = _Open(addresses, until)
            known.size += len(addresses)
            return
        sets = [found] if isinstance(found, _Open) else found
        for each in sets:
            if each.addresses == addresses or _are_the_same(each.addresses, addresses):
                each.addresses = addresses  # in the order in which they are asked for now
                each.until = max(each.until, until)
                return
        sets.append(_Open(addresses, until))
        known.size += len(addresses)
        if len(sets) > MAX_SETS:
            known.size -= len(sets.pop(0).addresses)
        known.names[name] = sets

    def size(self, pod: Pod) -> int:
        """Addresses remembered for the pod."""
        known = self._pods.get(pod)
        return known.size if known is not None else 0

    def begin_renewal(self, pod: Pod, name: str, address: bytes) -> bool:
        """Say whether a renewal is to be asked for: none is under way for this pod, name and family."""
        key = (pod, name, len(address))
        if key in self._renewing:
            return False
        self._renewing.add(key)
        return True

    def end_renewal(self, pod: Pod, name: str, address: bytes) -> None:
        """Note that the renewal was answered."""
        self._renewing.discard((pod, name, len(address)))

    def end_renewals(self) -> None:
        """Note that no renewal will be answered."""
        self._renewing.clear()

    def clear(self) -> None:
        """Forget everything: another snapshot holds."""
        self._pods.clear()
        self._renewing.clear()


def _are_the_same(some: tuple[bytes, ...], others: tuple[bytes, ...]) -> bool:
    """Say whether they are the same addresses in another order, as servers rotate them."""
    return len(some) == len(others) and sorted(some) == sorted(others)
