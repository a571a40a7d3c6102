"""Twice what it can serve: how much is served then, of whom, and what becomes of a pod that asks little.

Owns the loads. In each round the peak is found by a load that waits for its answers, then twice as much is
offered by the same pods, which wait for nothing, while quiet pods ask ten times a second each. Invariant: a
round in which the generator could not offer that much says so.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from benchmarks.loads.asking import Asked, asked, asking
from benchmarks.loads.crowds import UNBOUNDED, crowd
from benchmarks.loads.losses import none_of
from benchmarks.loads.site import ZONE
from benchmarks.rows import OWN, ROUNDS, Bench, Limit, Plan, Row, judged

FLOODERS, QUIET = range(200), range(200, 210)
QUIET_RATE, KNOWN = 100, range(50)
WINDOW, TIMES = 256, 2.0
ENOUGH = 1.6
"""A generator that could not offer so many times the peak has not saturated anything: no verdict."""
LEAST_SHARE = 0.8
"""A pod of many that ask the same is served so much of what the middle one is, at least."""


class Round(NamedTuple):
    """One round's figures."""

    peak: float
    load: Asked
    quiet: Asked
    fair: float


def _round(number: int, seconds: int, *, fresh: bool) -> Round:
    def names(part: int) -> range:
        first = (2 * (number + 1) + part) * 1_000_000 if fresh else 0
        return range(first, first + 1_000_000) if fresh else KNOWN

    name = f"m%u.{ZONE}" if fresh else f"h%u.{ZONE}"
    peak = asked(seconds=seconds, window=WINDOW, pods=FLOODERS, name=name, names=names(0)).served
    flood = asking(seconds=seconds + 1, rate=TIMES * peak, pods=FLOODERS, name=name, names=names(1))
    quiet = asking(seconds=seconds, rate=QUIET_RATE, pods=QUIET, names=KNOWN, nice=-10).done()
    load = flood.done()
    served = load.answered_by_pod
    return Round(peak, load, quiet, min(served) / max(statistics.median(served), 1))


def saturated(plan: Plan, what: str, *, fresh: bool) -> Iterator[Row]:
    """Measure the rounds; known names at default limits, fresh ones with limits that let them through."""
    rounds = _rounds(plan, fresh=fresh)
    offered = statistics.median(each.load.sent / each.load.seconds / each.peak for each in rounds)
    for row in _rows(rounds, what, offered, "limits raised" if fresh else "default limits"):
        if offered >= ENOUGH:
            yield row
        else:
            yield replace(row, met=None, note=f"only {offered:.1f} of the peak could be offered; {row.note}")


def _rounds(plan: Plan, *, fresh: bool) -> list[Round]:
    seconds = plan.sized(3, 2)
    with crowd(QUIET.stop, limits=UNBOUNDED if fresh else None) as (_here, _node):
        return [_round(number, seconds, fresh=fresh) for number in range(-1, ROUNDS)][1:]


def _rows(rounds: list[Round], what: str, offered: float, limits: str) -> Iterator[Row]:
    asked_s = f"offered {offered:.1f} of the peak by {len(FLOODERS)} pods"
    served = [each.load.answered / each.load.seconds for each in rounds]
    late = statistics.median(each.load.p99_ms for each in rounds)
    yield judged(
        f"saturation, {what}: served of twice its peak",
        "answers/s",
        {OWN: served, "peak": [each.peak for each in rounds]},
        [Limit(0.9, "peak", at_least=True)],
        note=f"{asked_s}, {limits}; P99 of what is served {late:.0f} ms",
        too_noisy=0.3,
    )
    runs = {OWN: [each.fair for each in rounds]}
    limit = [Limit(LEAST_SHARE, at_least=True)]
    note = "the least served of pods that ask alike, by the middle one"
    yield judged(f"saturation, {what}: fairness", "share", runs, limit, note=note, too_noisy=0.3)
    lost = [float(each.quiet.sent - each.quiet.answered) for each in rounds]
    p99_ms = max(each.quiet.p99_ms for each in rounds)
    sent = sum(each.quiet.sent for each in rounds)
    note = f"of {sent:,}, 10 pods at 10 a second beside the flood; their P99 at most {p99_ms:.1f} ms"
    yield none_of(f"saturation, {what}: lost by quiet pods", "lookups", lost, note)


def known(plan: Plan) -> Iterator[Row]:
    """Names that are in memory."""
    yield from saturated(plan, "known names", fresh=False)


def missed(plan: Plan) -> Iterator[Row]:
    """Names that nobody has asked: an upstream question and a grant each."""
    yield from saturated(plan, "fresh names", fresh=True)


ROWS: tuple[Bench, ...] = (
    Bench("saturation", "twice its peak, known names", quick=False, run=known),
    Bench("saturation-fresh", "twice its peak, a grant each", quick=False, run=missed),
)
