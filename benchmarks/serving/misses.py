"""Rows of names never asked before: forwarded, and for ours opened in the kernel before the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from benchmarks import peers
from benchmarks.peers import Peer
from benchmarks.rows import OWN, TIMES, Bench, Limit, Plan, Row, interleaved, judged
from benchmarks.serving.answers import servers
from benchmarks.serving.load import Start, ask, names, stand
from benchmarks.topology import Place

WINDOW = 64
FOREIGN_CHAINS = 5_000
NFTSET, INTERVAL = "dnsmasq --nftset", "dnsmasq --nftset, interval set"
HELD = 2_000
"""Addresses that the interval set holds from the start: what one more costs there grows with them."""
_EVERY_OTHER = ", ".join(f"46.0.{i >> 7 & 255}.{2 * i & 255}" for i in range(HELD))
SETS = {
    NFTSET: "type ipv4_addr;",
    INTERVAL: f"type ipv4_addr; flags interval; elements = {{ {_EVERY_OTHER} }};",
}
SMALL = "dnsmasq --cache-size=1000"
SLOW_NAMES = 50
"""Names a round for what takes milliseconds a name."""
FIRST = 1_000
WARM_UP = 12_000
"""Names of the round before: more than dnsmasq's cache holds, which a miss then costs what it always will."""


def nftset(kind: str) -> Start:
    """Dnsmasq that also adds each answered address to a set: the nearest peer by what it does."""
    return partial(peers.dnsmasq, nftset=SETS[kind])


def fresh(number: int, count: int) -> str:
    """Return questions for names that belong to this round alone (the warm-up is round -1)."""
    if number < 0:
        return names(range(FIRST, FIRST + WARM_UP))
    first = FIRST + WARM_UP + number * count
    return names(range(first, first + count))


def known(plan: Plan, count: int) -> int:
    """Return how many names upstream must know for all rounds."""
    return FIRST + WARM_UP + plan.rounds * count


def cost(peer: Peer, count: int) -> Callable[[int], float]:
    """Ask so many fresh names a round; the CPU a query of all the server's processes."""
    return lambda number: ask(peer, fresh(number, count), window=WINDOW).cpu_us


def slow_cost(peer: Peer) -> Callable[[int], float]:
    """Ask a few fresh names a round of a server that takes milliseconds for each."""

    def measure(number: int) -> float:
        first = FIRST + (number + 1) * SLOW_NAMES
        return ask(peer, names(range(first, first + SLOW_NAMES)), window=WINDOW).cpu_us

    return measure


def missed(plan: Plan) -> Iterator[Row]:
    """Distinct names, each forwarded once; beside servers that only forward, and dnsmasq with its sets."""
    count = plan.sized(6_000, 2_000)
    starts = servers()
    own = starts.pop(OWN)
    starts[SMALL] = partial(peers.dnsmasq, cache=1_000)
    starts |= {kind: nftset(kind) for kind in SETS} | {OWN: own}
    with stand(starts, known=known(plan, count)) as ready:
        candidates = {name: cost(peer, count) for name, peer in ready.items()}
        runs = interleaved(plan.rounds, candidates | {INTERVAL: slow_cost(ready[INTERVAL])})
    work = "miss with its enforced grant, distinct names, CPU a query of both processes"
    sets = {name: runs.pop(name) for name in SETS}
    yield judged(
        work,
        "µs",
        runs,
        (Limit(1.0, "dnsmasq"),),
        goal=f"≤ 1 {TIMES} dnsmasq without enforcement (120 µs where that takes 106 to 155)",
        note="dnsmasq with its largest cache, 10,000, full: it then costs more than with a small one",
    )
    notes = {
        NFTSET: "a plain set in an empty node",
        INTERVAL: f"a set for ranges, which holds {HELD:,} addresses",
    }
    for name, figures in sets.items():
        found = {OWN: runs[OWN], name: figures}
        yield judged(f"miss with its enforced grant, against {name}", "µs", found,
                     (Limit(25.0, name, per_own=True),), note=notes[name])  # fmt: skip


def beside(start: Start, count: int = FOREIGN_CHAINS) -> Start:
    """Start a server in a node with so many chains in somebody else's table."""

    @contextmanager
    def started(folder: Path, place: Place) -> Iterator[Peer]:
        with peers.foreign_chains(count, place), start(folder, place) as peer:
            yield peer

    def begin(folder: Path, place: Place) -> AbstractContextManager[Peer]:
        return started(folder, place)

    return begin


def foreign(plan: Plan) -> Iterator[Row]:
    """Grants beside 5,000 chains of another table, as kube-proxy has them, and without."""
    count = plan.sized(5_000, 2_500)
    without, nearest = "Nameward without them", "dnsmasq --nftset beside them"
    starts = {without: peers.nameward, nearest: beside(nftset(NFTSET)), OWN: beside(peers.nameward)}
    with stand(starts, known=known(plan, count)) as ready:
        runs = interleaved(
            plan.rounds,
            {name: slow_cost(peer) if name == nearest else cost(peer, count) for name, peer in ready.items()},
        )
    slow = runs.pop(nearest)
    work = f"miss with its enforced grant beside {FOREIGN_CHAINS:,} foreign chains, CPU a query"
    yield judged(work, "µs", runs, (Limit(1.2, without),))
    yield judged(f"{work}, against dnsmasq --nftset", "µs", {OWN: runs[OWN], nearest: slow},
                 (Limit(25.0, nearest, per_own=True),))  # fmt: skip


ROWS = (
    Bench("missed", "names that were never asked before", quick=True, run=missed),
    Bench("foreign", "grants beside many chains of others", quick=False, run=foreign),
)
