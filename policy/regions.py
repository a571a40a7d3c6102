"""The address space cut into regions within which every rule sees the same.

Owns the cut and the search for an address in it. Never knows what the sets mean. Invariant: the
regions of a family cover it wholly, and all addresses of one class are in the same sets.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from policy.addresses import AddressSet
from policy.intervals import Intervals

Members = frozenset[int]


class Region(NamedTuple):
    """Packed first and last address of one region, and its class."""

    first: bytes
    last: bytes
    number: int


@lru_cache(maxsize=256)
def regions_of(sets: tuple[AddressSet, ...]) -> Regions:
    """Return the regions of these sets: most profiles, of one generation and the next, have the same."""
    return Regions(sets)


class _Family:
    __slots__ = ("numbers", "starts")

    def __init__(self, starts: list[bytes], numbers: list[int]) -> None:
        self.starts = starts
        self.numbers = numbers


class Regions:
    """The regions of some address sets. ``classes[n]`` holds the indexes of the sets class n is in."""

    __slots__ = ("_v4", "_v6", "classes")

    def __init__(self, sets: Sequence[AddressSet]) -> None:
        numbers: dict[Members, int] = {}
        self._v4 = _cut([addresses.v4 for addresses in sets], 4, numbers)
        self._v6 = _cut([addresses.v6 for addresses in sets], 16, numbers)
        self.classes: tuple[Members, ...] = tuple(numbers)

    def number(self, packed: bytes) -> int:
        """Return the class of an address of 4 or 16 octets."""
        family = self._v4 if len(packed) == 4 else self._v6
        return family.numbers[bisect_right(family.starts, packed) - 1]

    def __iter__(self) -> Iterator[Region]:
        for family in (self._v4, self._v6):
            width = len(family.starts[0])
            ends = [(int.from_bytes(start, "big") - 1).to_bytes(width, "big") for start in family.starts[1:]]
            ends.append(b"\xff" * width)
            yield from map(Region, family.starts, ends, family.numbers)


def _cut(sets: Sequence[Intervals], width: int, numbers: dict[Members, int]) -> _Family:
    changes: dict[int, list[tuple[bool, int]]] = {0: []}
    for index, intervals in enumerate(sets):
        for first, last in intervals:
            changes.setdefault(first, []).append((True, index))
            changes.setdefault(last + 1, []).append((False, index))
    end = 2 ** (width * 8)
    inside: set[int] = set()
    starts: list[bytes] = []
    found: list[int] = []
    for start in sorted(changes):
        if start >= end:
            break
        inside.difference_update(index for enters, index in changes[start] if not enters)
        inside.update(index for enters, index in changes[start] if enters)
        number = numbers.setdefault(frozenset(inside), len(numbers))
        if not found or found[-1] != number:
            starts.append(start.to_bytes(width, "big"))
            found.append(number)
    return _Family(starts, found)
