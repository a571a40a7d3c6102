"""What is different between two long tuples that share nearly all of their objects.

Pure. Owns the comparison by identity, which costs a few nanoseconds an object. Never looks into an object:
two that are equal and not the same are two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from operator import is_
from typing import Any, TypeVar

T = TypeVar("T")

_CHUNK = 256


def is_same(old: Sequence[Any], new: Sequence[Any]) -> bool:
    """Say whether both hold the same objects in the same order."""
    return old is new or (len(old) == len(new) and all(map(is_, old, new)))


def ends(old: Sequence[Any], new: Sequence[Any]) -> tuple[int, int]:
    """Return how many objects at the beginning are the same, and how many of the rest at the end."""
    most = min(len(old), len(new))
    first = 0
    while first < most and all(map(is_, old[first : first + _CHUNK], new[first : first + _CHUNK])):
        first += _CHUNK
    first = min(first, most)
    while first < most and old[first] is new[first]:
        first += 1
    last, most = 0, most - first
    while last < most and all(
        map(is_, reversed(old[len(old) - last - min(_CHUNK, most - last) : len(old) - last]),
            reversed(new[len(new) - last - min(_CHUNK, most - last) : len(new) - last]))
    ):  # fmt: skip
        last += min(_CHUNK, most - last)
    while last < most and old[len(old) - last - 1] is new[len(new) - last - 1]:
        last += 1
    return first, last


def gone_and_come(old: Sequence[T], new: Sequence[T]) -> tuple[list[T], list[T]]:
    """Return what is in the old and not in the new, and the reverse; each as often as it is more."""
    first, last = ends(old, new)
    before, after = old[first : len(old) - last], new[first : len(new) - last]
    there = Counter(map(id, before))
    came = []
    for each in after:
        if there.get(id(each), 0):
            there[id(each)] -= 1
        else:
            came.append(each)
    gone = []
    for each in before:
        if there[id(each)]:
            there[id(each)] -= 1
            gone.append(each)
    return gone, came


def splices(old: Sequence[T], new: Sequence[T]) -> Iterator[tuple[int, int, tuple[T, ...]]]:
    """Yield (place in the old, how many are gone there, what came there): ascending, apart."""
    first, last = ends(old, new)
    end = len(old) - last
    places = {id(old[place]): place for place in range(end - 1, first - 1, -1)}
    at, came = first, []
    for each in new[first : len(new) - last]:
        place = places.get(id(each), -1)
        if place < at:
            came.append(each)
            continue
        if place > at or came:
            yield at, place - at, tuple(came)
            came = []
        at = place + 1
    if at < end or came:
        yield at, end - at, tuple(came)


def spliced(old: tuple[T, ...], changes: Iterable[tuple[int, int, Sequence[T]]]) -> tuple[T, ...]:
    """Return the old with the splices; ``ValueError`` if they are not of this one."""
    new: list[T] = []
    done = 0
    for at, gone, came in changes:
        if not 0 <= done <= at <= at + gone <= len(old):
            raise ValueError(f"a change of {gone} at {at} of {len(old)}")
        new += old[done:at]
        new += came
        done = at + gone
    return (*new, *old[done:])
