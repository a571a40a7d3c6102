"""Rows of the hold: what waiting for the kernel's ACK adds to the latency of a name never asked before.

Measured at the client, exactly: one pod asks names never asked before at an even pace, ten milliseconds long
for TXT records, whose answers need no grant, ten for addresses, and so on. Both are misses and take the same
way but for the grant, and what the machine does to the one it does to the other. What is said is the
difference of the quantiles. The resolver has a core, the enforcer the other, which with two cores it shares
with the load and the upstream: that is in the figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.loads.asking import Timed, asked
from benchmarks.loads.crowds import UNBOUNDED, crowd
from benchmarks.loads.site import Node
from benchmarks.rows import OWN, Bench, Limit, Plan, Row, judged, median
from benchmarks.topology import LOAD_CORE, OTHER_CORE, SERVER_CORE, pin

RATE = 2_000
RATES, CURVE_S = (500, 1_000, 2_000, 4_000), 3
TURNS_A_S = 100
"""So often a second the type changes: a turn is long beside a hold, short beside a stall of the machine."""
GOALS_MS = {"P50": 0.3, "P99": 3.0}
TOLERATED = 0.001
"""Of questions that are lost: more would be missing among the slowest."""
BUSY = 10
"""Where a miss without a grant takes so many times what a hold may add, the difference says nothing."""


class Measured(NamedTuple):
    """What one load says: quantiles without and with a grant, ms; the share of questions that were lost."""

    without: dict[str, float]
    whole: dict[str, float]
    lost: float


class Load:
    """Questions for fresh names, half of them held."""

    def __init__(self) -> None:
        self._first = 1_000

    def measure(self, rate: int, seconds: float) -> Measured:
        """Ask each name once."""
        names = range(self._first, self._first + int(rate * seconds))
        self._first = names.stop
        types = f"16,1/{rate // TURNS_A_S}"
        load = asked(
            seconds=seconds, rate=rate, names=names, types=types, warm_s=0.2, core=LOAD_CORE, nice=-10
        )
        texts, addresses = load.types
        return Measured(_quantiles(texts), _quantiles(addresses), load.lost / load.sent)


def _quantiles(timed: Timed) -> dict[str, float]:
    return {"P50": timed.p50_ms, "P99": timed.p99_ms}


def spread_out(node: Node) -> None:
    """Give the resolver a core, and the enforcer another as far as the machine has one."""
    pin(node.worker("resolver"), SERVER_CORE)
    pin(node.worker("enforcer"), OTHER_CORE)


def held(plan: Plan) -> Iterator[Row]:
    """Added latency at 2,000 misses a second; the whole run also draws it over the rate."""
    seconds = plan.sized(5, 3)
    with crowd(1, limits=UNBOUNDED) as (_here, node):
        spread_out(node)
        load = Load()
        load.measure(RATE, 2)
        rounds = [load.measure(RATE, seconds) for _ in range(plan.rounds)]
        for name, most_ms in GOALS_MS.items():
            yield _row(name, most_ms, rounds)
        for rate in () if plan.quick else RATES:
            point = load.measure(rate, CURVE_S)
            for name in GOALS_MS if point.lost <= TOLERATED else ():
                plan.point("added-latency", name, rate, point.whole[name] - point.without[name])


def _row(name: str, most_ms: float, rounds: list[Measured]) -> Row:
    """Judge one quantile."""
    plain, whole = [each.without[name] for each in rounds], [each.whole[name] for each in rounds]
    lost = max(each.lost for each in rounds)
    refused = ""
    if lost > TOLERATED:
        refused = f"{lost:.1%} of a round's questions were lost"
    elif median(plain) > BUSY * most_ms:
        refused = "the machine was too busy: a miss without a grant took too long as well"
    return judged(
        f"latency that the hold adds at {RATE:,} misses a second, {name}",
        "ms",
        {
            OWN: [with_grant - without for with_grant, without in zip(whole, plain, strict=True)],
            "miss without a grant": plain,
            "miss with its grant": whole,
        },
        (Limit(most_ms),),
        of_goal=True,
        refused=refused,
    )


ROWS = (Bench("held", "what waiting for the kernel adds", quick=True, run=held),)
