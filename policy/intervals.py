"""Sets of whole numbers as sorted, disjoint, non-adjacent closed intervals.

Owns the algebra that ports and addresses share. Never knows what the numbers mean. Invariant:
every value returned is in normal form, so equal sets are equal tuples.
"""

from __future__ import annotations

from collections.abc import Iterable

Interval = tuple[int, int]
Intervals = tuple[Interval, ...]


def normal(intervals: Iterable[Interval]) -> Intervals:
    """Return the normal form: sorted, merged where they overlap or touch. Ends are included."""
    merged: list[Interval] = []
    for first, last in sorted(intervals):
        if first > last:
            continue
        if merged and first <= merged[-1][1] + 1:
            if last > merged[-1][1]:
                merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return tuple(merged)


def union(left: Intervals, right: Intervals) -> Intervals:
    """Return what is in either of them."""
    if not left or not right:
        return left or right
    return left if left == right else normal(left + right)


def intersection(left: Intervals, right: Intervals) -> Intervals:
    """Return what is in both of them, in one pass over each."""
    if left == right:
        return left
    common: list[Interval] = []
    i = j = 0
    while i < len(left) and j < len(right):
        first = max(left[i][0], right[j][0])
        last = min(left[i][1], right[j][1])
        if first <= last:
            common.append((first, last))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return tuple(common)


def difference(left: Intervals, right: Intervals) -> Intervals:
    """Return what is in ``left`` and not in ``right``, in one pass over each."""
    if not left or not right:
        return left
    rest: list[Interval] = []
    j = 0
    for first, last in left:
        start = first
        while j < len(right) and right[j][1] < start:
            j += 1
        k = j
        while k < len(right) and right[k][0] <= last:
            if right[k][0] > start:
                rest.append((start, right[k][0] - 1))
            start = right[k][1] + 1
            k += 1
        if start <= last:
            rest.append((start, last))
    return tuple(rest)


def contains(intervals: Intervals, number: int) -> bool:
    """Say whether the number is in the set."""
    return any(first <= number <= last for first, last in intervals)


def covers(intervals: Intervals, inner: Interval) -> bool:
    """Say whether the whole interval lies inside one of the set's (so: inside the set)."""
    return any(first <= inner[0] and inner[1] <= last for first, last in intervals)
