"""Many pods, and pods that ask for everything: what a flood, a crowd and a stampede cost the others.

Owns the loads. All limits are the defaults, because they are what protects, except where a row says
otherwise. The quiet pods ask 20 times a second each, of names that are known, at all times; a flood comes
and goes beside them, in rounds. Their latency in the flood is judged by their own without it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.loads.asking import Asking, asked, asking
from benchmarks.loads.losses import none_of
from benchmarks.loads.site import ZONE, Node, Site, policy, site
from benchmarks.obot import Json
from benchmarks.rows import OWN, ROUNDS, Bench, Limit, Plan, Row, judged

QUIET_PODS, QUIET_RATE, QUIET_NAMES = range(20), 400, range(50)
FLOODER = range(20, 21)
FRESH_RATE, FRESH_S, FORBIDDEN_S = 100_000 / 60, 12, 4
"""A hundred thousand fresh names in a minute: five rounds of twelve seconds; of forbidden ones a third."""
CALM_S = 3.0
CROWD = range(200)
STAMPEDE = range(1000)
UNBOUNDED = {
    "queriesPerSecond": 1_000_000,
    "queriesInFlight": 4096,
    "distinctNames": "1000000/10m",
    "grantsPerPod": 1_000_000,
}
MIB = 1 << 20


@contextmanager
def crowd(
    pods: int, *, delay_ms: float = 0, limits: Json | None = None, upstream_core: int | None = None
) -> Iterator[tuple[Site, Node]]:
    """Run a node with so many pods, all of which may ask for ``*.bench.com``."""
    with site(pods) as here:
        here.write_pods("load")
        here.write("load", policy("load", "load", [f"*.{ZONE}"]))
        with here.upstream(delay_ms=delay_ms, core=upstream_core), here.nameward(limits=limits) as node:
            _served(here)
            yield here, node


def _served(here: Site) -> None:
    """Wait until the first and the last pod are served."""
    until = time.monotonic() + 30
    for number in (0, here.pods - 1):
        pods = range(number, number + 1)
        while asked(seconds=1, rate=20, pods=pods, names=QUIET_NAMES, most=2).answered < 2:
            if time.monotonic() > until:
                raise SystemExit("the pods are not served")


def _quiet(seconds: float) -> Asking:
    """Have the quiet pods ask; they answer for nobody's slowness but the node's."""
    return asking(seconds=seconds, rate=QUIET_RATE, pods=QUIET_PODS, names=QUIET_NAMES, warm_s=0.5, nice=-10)


def _memory(node: Node) -> float:
    return sum(node.memory_bytes().values()) / MIB


def _beside(work: str, seconds: int, name: str) -> Iterator[Row]:
    """Flood from one pod with fresh names like ``name``, and measure the others and the memory."""
    calm_ms, flooded_ms, grown, said = [], [], [], [0, 0, 0]
    with crowd(QUIET_PODS.stop + 1) as (_here, node):
        _quiet(2).done()
        for number in range(-1, ROUNDS):  # the first fills what is bounded, and is not counted
            calm = _quiet(CALM_S).done()
            before = _memory(node)
            names = range((number + 1) * 100_000, (number + 2) * 100_000)
            flood = asking(
                seconds=seconds if number >= 0 else 3, rate=FRESH_RATE, pods=FLOODER, name=name, names=names
            )
            flooded = _quiet(seconds if number >= 0 else 3).done()
            done = flood.done()
            if number < 0:
                continue
            calm_ms.append(calm.p99_ms)
            flooded_ms.append(flooded.p99_ms)
            grown.append(_memory(node) - before)
            for place, figure in enumerate((flooded.lost, done.sent, done.answered)):
                said[place] += figure
    note = (
        f"{said[1]:,} names asked, {said[2]:,} answered, default limits; the others: 20 pods, 400 lookups a"
        f" second of known names, {said[0]} lost"
    )
    limits = [Limit(2, "quiet")]
    runs = {OWN: flooded_ms, "quiet": calm_ms}
    yield judged(f"{work}: the others' P99", "ms", runs, limits, note=note, too_noisy=0.5)
    note = "both processes, growth in a round; limits.blockedRecords bounds what is kept of refused names"
    yield judged(
        f"{work}: memory",
        "MiB",
        {OWN: grown},
        [Limit(2)],
        goal="flat (≤ 2 a round)",
        note=note,
        too_noisy=9,
        of_goal=True,
    )


def fresh(plan: Plan) -> Iterator[Row]:
    """Fresh names under a permitted wildcard."""
    yield from _beside(
        "100,000 fresh permitted names in a minute from one pod", plan.sized(FRESH_S, 4), f"f%u.fresh.{ZONE}"
    )


def forbidden(plan: Plan) -> Iterator[Row]:
    """Fresh names that nobody may ask."""
    yield from _beside(
        "random names that are not permitted, 1,667 a second from one pod",
        plan.sized(FORBIDDEN_S, 4),
        "f%u.elsewhere.org",
    )


def many(plan: Plan) -> Iterator[Row]:
    """200 pods at once, against 20 at the same rate."""
    few_ms, many_ms, lost, sent = [], [], 0, 0
    seconds = plan.sized(3, 2)
    with crowd(len(CROWD)) as (_here, _node):
        for number in range(-1, ROUNDS):
            few, whole = (
                asked(seconds=seconds, rate=2000, pods=pods, names=QUIET_NAMES, warm_s=0.5, nice=-10)
                for pods in (QUIET_PODS, CROWD)
            )
            if number < 0:
                continue
            few_ms.append(few.p99_ms)
            many_ms.append(whole.p99_ms)
            lost += whole.sent - whole.answered
            sent += whole.sent
    note = f"2,000 lookups a second of known names, by 200 pods and by 20; {lost} of {sent:,} not answered"
    runs = {OWN: many_ms, "20 pods": few_ms}
    yield judged("200 pods at once: P99", "ms", runs, [Limit(2, "20 pods")], note=note, too_noisy=0.5)


def stampede(_plan: Plan) -> Iterator[Row]:
    """1,000 pods for one name that nobody has asked."""
    upstream: list[float] = []
    took_ms: list[float] = []
    unanswered: list[float] = []
    with crowd(len(STAMPEDE), delay_ms=20) as (here, _node):
        for number in range(ROUNDS):
            before = here.asked()
            load = asked(seconds=10, rate=-1, pods=STAMPEDE, names=range(7000 + number, 7001 + number))
            time.sleep(0.2)
            upstream.append(here.asked() - before)
            took_ms.append(load.max_ms)
            unanswered.append(load.sent - load.answered)
    note = (
        f"{sum(unanswered):.0f} of {ROUNDS * len(STAMPEDE):,} not answered; the last answer after"
        f" {max(took_ms):.0f} ms, upstream's 20 included"
    )
    work = "stampede of 1,000 pods for one cold name"
    yield judged(f"{work}: upstream queries", "queries", {OWN: upstream}, [Limit(1)], note=note)
    yield none_of(f"{work}: not answered", "lookups", unanswered, f"of {ROUNDS * len(STAMPEDE):,}")


ROWS: tuple[Bench, ...] = (
    Bench("fresh-names", "a hundred thousand in a minute from one pod", quick=False, run=fresh),
    Bench("forbidden-names", "random names that are not permitted", quick=False, run=forbidden),
    Bench("many-pods", "200 pods at once", quick=False, run=many),
    Bench("stampede", "1,000 pods for one cold name", quick=True, run=stampede),
)
