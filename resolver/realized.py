"""Grants that the authority says are in the kernel, so that a renewed question need not wait.

Owns what was realized for which pod, name and address, and until when. Never asks, never replies.
Invariant: an instant in it is never later than the kernel's; a new snapshot empties it.
"""

from __future__ import annotations

from typing import Final

MAX_PER_POD: Final = 65536
"""Addresses remembered per pod; more empties that pod's table, and its next answers are held."""
NEVER: Final = float("-inf")

Pod = tuple[str, ...]
"""A pod by its addresses: a uid could be written twice, an address belongs to one pod only."""


class Realized:
    """Until when each address is open, by the pod's addresses and name."""

    def __init__(self) -> None:
        self._pods: dict[Pod, dict[bytes, float]] = {}
        """By name, NUL (no name has one) and address in one: there is an entry for every grant."""
        self._renewing: set[tuple[Pod, str, int]] = set()

    def until(self, pod: Pod, name: str, addresses: tuple[bytes, ...]) -> float:
        """The instant until which all the addresses are open; ``-inf`` if one never was."""
        known = self._pods.get(pod)
        if known is None:
            return NEVER
        least = float("inf")
        start = name.encode() + b"\0"
        for address in addresses:
            until = known.get(start + address, NEVER)
            if until < least:
                if until == NEVER:
                    return NEVER
                least = until
        return least

    def add(self, pod: Pod, name: str, addresses: tuple[bytes, ...], until: float) -> None:
        """Remember realized addresses, the later instant of two counting."""
        known = self._pods.get(pod)
        if known is None:
            known = self._pods[pod] = {}
        elif len(known) >= MAX_PER_POD:
            known.clear()
        start = name.encode() + b"\0"
        for address in addresses:
            key = start + address
            if until > known.get(key, 0.0):
                known[key] = until

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
