"""Rows of what must not happen at all: every round counts, not the middle one.

Owns that verdict. Never measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.rows import OWN, Limit, Row, judged


def none_of(work: str, unit: str, rounds: Sequence[float], note: str = "") -> Row:
    """Return a row of the sum of all rounds, which is to be nothing; one loss misses it."""
    row = judged(work, unit, {OWN: rounds}, [Limit(0)], note=note, too_noisy=float("inf"))
    total = sum(rounds)
    return replace(row, value=total, spread=0.0, met=False if total else row.met)
