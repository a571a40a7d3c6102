"""Rows of the hold: what waiting for the kernel's ACK adds to the latency of a name never asked before.

Measured at the client, exactly: the same pod asks at the same rate once for TXT records, whose answers need
no grant, and once for addresses; both are misses and take the same way but for the grant. What is said is
the difference of the quantiles. The resolver has a core, the enforcer the other, which with two cores it
shares with the load and the upstream: that is in the figures.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import peers
from benchmarks.peers import Peer
from benchmarks.rows import OWN, Bench, Limit, Plan, Row, judged, median
from benchmarks.serving.load import ask, names, stand
from benchmarks.topology import OTHER_CORE, pin

RATE = 2_000
RATES = (500, 1_000, 2_000, 4_000)
SHARES = {"P50": 0.5, "P99": 0.99}
FIRST = 1_000
WINDOW = 500
BUSY = 10
"""Where a miss without a grant takes so many times what a hold may add, the difference says nothing."""


def spread_out(peer: Peer) -> None:
    """Give the enforcer a core of its own, as far as the machine has one."""
    for pid in peer.named("nw-enforcer"):
        pin(pid, OTHER_CORE)


def quantiles(peer: Peer, numbers: range, rate: int, kind: str) -> dict[str, float]:
    """Ask each name once; the latencies' quantiles, ms."""
    letter = "h" if kind == "A" else "t"
    questions = names(numbers, letter=letter, kind=kind)
    times_ms = ask(peer, questions, rate=rate, window=WINDOW, each=True, lossy=True).latencies_ms()
    return {name: times_ms[int(share * (len(times_ms) - 1))] for name, share in SHARES.items()}


def held(plan: Plan) -> Iterator[Row]:
    """Added latency at 2,000 misses a second; the whole run also draws it over the rate."""
    seconds = 1.0 if plan.quick else 3.0
    plain: dict[str, list[float]] = {name: [] for name in SHARES}
    whole: dict[str, list[float]] = {name: [] for name in SHARES}
    rates = () if plan.quick else RATES
    steady = int(RATE * seconds)
    total = FIRST + (plan.rounds + 1) * steady + sum(int(rate * seconds) for rate in rates)
    with stand({OWN: peers.nameward}, known=total, texts=total) as ready:
        own = ready[OWN]
        spread_out(own)
        first = FIRST
        for number in range(-1, plan.rounds):
            numbers = range(first, first + steady)
            first += steady
            without = quantiles(own, numbers, RATE, "TXT")
            with_grant = quantiles(own, numbers, RATE, "A")
            if number >= 0:
                for name in SHARES:
                    plain[name].append(without[name])
                    whole[name].append(with_grant[name])
        for rate in rates:
            numbers = range(first, first + int(rate * seconds))
            first = numbers.stop
            without, with_grant = (quantiles(own, numbers, rate, kind) for kind in ("TXT", "A"))
            for name in SHARES:
                plan.point("added-latency", name, rate, with_grant[name] - without[name])
    for name, most_ms in (("P50", 0.3), ("P99", 3.0)):
        added = [a - b for a, b in zip(whole[name], plain[name], strict=True)]
        work = f"latency that the hold adds at {RATE:,} misses a second, {name}"
        runs = {OWN: added, "miss without a grant": plain[name], "miss with its grant": whole[name]}
        busy = median(plain[name]) > BUSY * most_ms
        refused = "the machine was too busy: a miss without a grant took too long as well" if busy else ""
        yield judged(work, "ms", runs, (Limit(most_ms),), too_noisy=0.5, refused=refused)


ROWS = (Bench("held", "what waiting for the kernel adds", quick=True, run=held),)
