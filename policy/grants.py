"""Grants and all their reasons, as values.

Owns the algebra: an opened element lasts until the latest of its reasons, joining reasons is
commutative and idempotent, and taking one away closes nothing that another opens. Never reads
a clock; ``now`` and ``until`` are seconds of the same monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple


class Reason(NamedTuple):
    """Why something is open: the name that was asked, and the rule that permits it."""

    name: str
    policy: str
    rule: str


Reasons = Mapping[Reason, float]
"""Each reason with the instant until which it holds."""


def joined(left: Reasons, right: Reasons) -> dict[Reason, float]:
    """Return the reasons of both, each until the later of its two instants."""
    both = dict(left)
    for reason, until in right.items():
        if until > both.get(reason, float("-inf")):
            both[reason] = until
    return both


def lasts_until(reasons: Reasons) -> float:
    """Return the instant of the latest reason; ``-inf`` where there is none."""
    return max(reasons.values(), default=float("-inf"))


def holding(reasons: Reasons, now: float) -> dict[Reason, float]:
    """Return the reasons that still hold at ``now``."""
    return {reason: until for reason, until in reasons.items() if until > now}


def without(reasons: Reasons, taken: Callable[[Reason], bool]) -> dict[Reason, float]:
    """Return the reasons that ``taken`` does not pick; each keeps its own instant."""
    return {reason: until for reason, until in reasons.items() if not taken(reason)}
