"""Rows of shared state: what it costs the enforcer and Redis, and how long another node's pod waits.

The cost is that of ledger, publisher and door in a process of their own, less that of a ledger that shares
nothing (``benchmarks.shared_cost``). Who waits is a pod that asks its own node's resolver and then another's,
each name for the first time: what is said is the difference. Both nodes and Redis are on this machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from benchmarks import shared, shared_cost
from benchmarks.rows import OWN, Bench, Limit, Plan, Row, judged, median, not_measured

A_GRANT = (Limit(15.0),)
MEMORY = (Limit(600.0),)
RATE = 500
ADDED = {"P50": Limit(3.0), "P99": Limit(15.0)}
FIRST = 1000
BUSY = 5
"""Where a pod's own node takes so many times what may be added, the difference says nothing."""


def sharing(plan: Plan) -> Iterator[Row]:
    """Cost and memory of a grant, then the way to another node."""
    if shutil.which("redis-server") is None:
        yield not_measured("shared state", "", (), "missing: apt-get install redis-server")
        return
    yield from cost(plan)
    yield from across(plan)


def cost(plan: Plan) -> Iterator[Row]:
    """CPU of a new and of a renewed grant, and Redis's memory of one."""
    seconds = plan.sized(3, 1)
    found: dict[str, list[shared_cost.Cost]] = {"new": [], "renewed": []}
    for _ in range(plan.rounds):
        for what, costs in found.items():
            costs.append(shared_cost.measure(what, seconds))
    for what, costs in found.items():
        runs = {
            OWN: [each.added_us for each in costs],
            "in memory alone": [each.alone_us for each in costs],
            "shared": [each.shared_us for each in costs],
        }
        work = (
            f"CPU of the enforcer that sharing a {what} grant adds, {shared_cost.GRANTS_A_SECOND:,} a second"
        )
        yield judged(work, "µs", runs, A_GRANT)
    bytes_ = [each.redis_bytes for each in found["new"]]
    yield judged("Redis's memory of a shared grant", "bytes", {OWN: bytes_}, MEMORY)


def across(plan: Plan) -> Iterator[Row]:
    """Latency that another node's resolver adds, at a steady rate."""
    count = RATE * plan.sized(4, 2)
    runs: dict[str, dict[str, list[float]]] = {name: {"own": [], "other": []} for name in ADDED}
    first = FIRST
    with shared.two_nodes(FIRST + 2 * (plan.rounds + 1) * count) as (folder, own, other):
        for number in range(-1, plan.rounds):
            for where, address in (("own", own), ("other", other)):
                took = shared.ask(folder, address, range(first, first + count), RATE)
                first += count
                if took["answered"] < 1 - shared.TOLERATED:
                    raise SystemExit(
                        f"{took['answered']:.0%} of the lookups by the {where} node were answered"
                    )
                for name, figures in runs.items():
                    if number >= 0:
                        figures[where].append(took[name.lower()])
    for name, limit in ADDED.items():
        mine, theirs = runs[name]["own"], runs[name]["other"]
        added = [there - here for here, there in zip(mine, theirs, strict=True)]
        busy = median(mine) > BUSY * limit.factor
        yield judged(
            f"latency that another node's resolver adds at {RATE} lookups a second, {name}",
            "ms",
            {OWN: added, "by the pod's own node": mine, "by another": theirs},
            (limit,),
            of_goal=True,
            refused="the machine was too busy: a pod's own node took too long as well" if busy else "",
        )


ROWS = (Bench("sharing", "state shared through Redis", quick=False, run=sharing),)
