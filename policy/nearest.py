"""The nearest miss: which permitted pattern a refused name is closest to.

Owns the measure of closeness. Never decides; asked only for a name that was refused. Invariant:
its cost is bounded, whatever the policy and the name.
"""

from __future__ import annotations

from collections.abc import Sequence

from policy.names import registrable_domain
from policy.patterns import Pattern

MAX_PATTERNS = 512
"""Patterns that are looked at, in the order of the rules."""
_MAX_TYPOS = 2


def nearest_pattern(name: str, patterns: Sequence[Pattern]) -> str | None:
    """Return the text of the closest pattern, or None if none is close.

    Close are, nearest first: a small typo (two edits at most); the apex of a wildcard or names
    under it at another depth; another name of the same registrable domain.
    """
    best: tuple[int, int, str] | None = None
    for order, pattern in enumerate(patterns[:MAX_PATTERNS]):
        if pattern.text == "*":
            continue
        distance = _distance(name, pattern)
        if distance is not None and (best is None or (distance, order) < best[:2]):
            best = (distance, order, pattern.text)
    return best[2] if best else None


def _distance(name: str, pattern: Pattern) -> int | None:
    base = pattern.text.removeprefix("*.")
    if name == base:
        return 0  # the apex of a wildcard
    shared = _shared_labels(name, base)
    if not shared:
        return None
    compared = name
    if base != pattern.text:
        # Under a wildcard only the literal part can be mistyped.
        compared = ".".join(name.split(".")[-(base.count(".") + 1) :])
    typos = _edits(compared, base)
    if typos:
        return typos
    if registrable_domain(name) == registrable_domain(base.replace("*", "x")):
        return 10 + max(name.count("."), base.count(".")) + 1 - shared
    return None


def _shared_labels(left: str, right: str) -> int:
    count = 0
    for one, other in zip(reversed(left.split(".")), reversed(right.split(".")), strict=False):
        if one != other:
            break
        count += 1
    return count


def _edits(left: str, right: str) -> int | None:
    """Return the edit distance if it is at most two (a swap of neighbours counts one), else None."""
    if abs(len(left) - len(right)) > _MAX_TYPOS:
        return None
    start = 0
    while start < min(len(left), len(right)) and left[start] == right[start]:
        start += 1
    left, right = left[start:], right[start:]
    while left and right and left[-1] == right[-1]:
        left, right = left[:-1], right[:-1]
    return _edits_within(left, right, _MAX_TYPOS)


def _edits_within(left: str, right: str, budget: int) -> int | None:
    """Try each edit at the first difference: at most 4 to the power of the budget ways."""
    while left and right and left[0] == right[0]:
        left, right = left[1:], right[1:]
    if not left or not right:
        rest = len(left) + len(right)
        return rest if rest <= budget else None
    if budget == 0:
        return None
    tries = [
        _edits_within(left[1:], right[1:], budget - 1),
        _edits_within(left[1:], right, budget - 1),
        _edits_within(left, right[1:], budget - 1),
    ]
    if left[:2] == right[1::-1]:
        tries.append(_edits_within(left[2:], right[2:], budget - 1))
    found = [tried + 1 for tried in tries if tried is not None]
    return min(found) if found else None
