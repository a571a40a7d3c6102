"""Twice what it can serve: how much is served then, of whom, and what becomes of a pod that asks little.

Owns the loads. In each round the peak is found by a load that waits for its answers, then twice as much is
offered by the same pods, which wait for nothing, while quiet pods ask ten times a second each. The node has
the first core, who asks and upstream the last. What a question costs there is mostly the node's own kernel,
its hooks and its socket, in the pod's processor time as on a real node; it is more than half of what an
answer to a known name costs the node, so that one core cannot ask twice what another serves. For known
names the node therefore shares its core with a process that never sleeps, as among busy pods: in the peak
as in the flood.
Invariant: what was not offered so much has no verdict.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from benchmarks.loads.asking import Asked, asked, asking
from benchmarks.loads.crowds import UNBOUNDED, crowd
from benchmarks.loads.losses import none_of
from benchmarks.loads.site import ZONE, Node
from benchmarks.rows import OWN, ROUNDS, Bench, Limit, Plan, Row, judged
from benchmarks.topology import LOAD_CORE, SERVER_CORE, pin

FLOODERS, QUIET = range(200), range(200, 210)
QUIET_RATE, KNOWN = 100, range(50)
WINDOW, TIMES, SECONDS = 2_000, 2.0, 2.0
ENOUGH = 1.9
"""A generator that could not offer so many times the peak has not saturated as it should: no verdict."""
LEAST_SHARE = 0.8
"""A pod of many that ask the same is served so much of what the middle one is, at least."""


class Round(NamedTuple):
    """One round's figures."""

    peak: float
    load: Asked
    quiet: Asked
    fair: float


def _round(number: int, *, fresh: bool) -> Round:
    def names(part: int) -> range:
        first = (2 * (number + 1) + part) * 1_000_000 if fresh else 0
        return range(first, first + 1_000_000) if fresh else KNOWN

    name = f"m%u.{ZONE}" if fresh else f"h%u.{ZONE}"
    load_of: dict[str, Any] = {"pods": FLOODERS, "name": name, "core": LOAD_CORE}
    peak = asked(seconds=SECONDS, window=WINDOW, names=names(0), **load_of).served
    if not peak:
        raise RuntimeError("the load that waits for answers was served nothing")
    flood = asking(seconds=SECONDS + 1, rate=TIMES * peak, names=names(1), **load_of)
    quiet = asking(seconds=SECONDS, rate=QUIET_RATE, pods=QUIET, names=KNOWN, nice=-10, core=LOAD_CORE).done()
    load = flood.done()
    served = load.answered_by_pod
    return Round(peak, load, quiet, min(served) / max(statistics.median(served), 1))


def saturated(what: str, *, fresh: bool) -> Iterator[Row]:
    """Measure the rounds; known names at default limits, fresh ones with limits that let them through."""
    rounds = _rounds(fresh=fresh)
    limits = "limits raised" if fresh else "default limits, half of a core"
    offered = statistics.median(each.load.sent / each.load.seconds / each.peak for each in rounds)
    for row in _rows(rounds, what, offered, limits):
        if offered >= ENOUGH:
            yield row
        else:
            yield replace(row, met=None, note=f"only {offered:.1f} of the peak could be offered; {row.note}")


@contextmanager
def on_one_core(node: Node, *, is_shared: bool) -> Iterator[None]:
    """Give the node one core, or half of it: beside a process that never sleeps."""
    for name in ("resolver", "enforcer"):
        pin(node.worker(name), SERVER_CORE)
    with ExitStack() as stack:
        if is_shared:
            argv = ["taskset", "-c", str(SERVER_CORE), sys.executable, "-c", "while True: pass"]
            process = stack.enter_context(subprocess.Popen(argv))
            stack.callback(process.kill)
        yield


def _rounds(*, fresh: bool) -> list[Round]:
    with (
        crowd(QUIET.stop, limits=UNBOUNDED if fresh else None, upstream_core=LOAD_CORE) as (_here, node),
        on_one_core(node, is_shared=not fresh),
    ):
        return [_round(number, fresh=fresh) for number in range(-1, ROUNDS)][1:]


def _rows(rounds: list[Round], what: str, offered: float, limits: str) -> Iterator[Row]:
    asked_s = f"offered {offered:.1f} of the peak by {len(FLOODERS)} pods"
    served = [each.load.served for each in rounds]
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


def known(_plan: Plan) -> Iterator[Row]:
    """Names that are in memory."""
    yield from saturated("known names", fresh=False)


def missed(_plan: Plan) -> Iterator[Row]:
    """Names that nobody has asked: an upstream question and a grant each."""
    yield from saturated("fresh names", fresh=True)


ROWS: tuple[Bench, ...] = (
    Bench("saturation", "twice its peak, known names", quick=False, run=known),
    Bench("saturation-fresh", "twice its peak, a grant each", quick=False, run=missed),
)
