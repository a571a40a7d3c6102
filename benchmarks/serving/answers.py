"""Rows of answers that are ready: cached and permitted, blocked; their CPU a query beside the peers'."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from benchmarks import peers
from benchmarks.peers import Peer
from benchmarks.rows import OWN, TIMES, Bench, Limit, Plan, Row, interleaved, judged, median
from benchmarks.serving.load import Start, ask, metric, names, stand
from benchmarks.topology import pod_address

CACHED, WINDOW = 100, 100
"""Names that are asked again and again, and questions that wait for an answer at a time."""
QUERIES = 25_000
BLOCKED = "blocked.test"
PODS, NAMES_A_POLICY = 110, 100
POLICIES = (10, 100, 1_000)
ONE = "Nameward, one policy"


def servers() -> dict[str, Start]:
    """Return the candidates that are installed here, our own last."""
    found: dict[str, Start] = {"dnsmasq": peers.dnsmasq, "Unbound": peers.unbound}
    if peers.coredns_program():
        found["CoreDNS"] = peers.coredns
    return found | {OWN: peers.nameward}


def cached(plan: Plan) -> Iterator[Row]:
    """The same 100 names from each server's cache; then names that are not permitted, from ours."""
    times = plan.sized(QUERIES, 10_000) // CACHED
    permitted = names(range(CACHED))
    repeated = names(range(CACHED), zone=BLOCKED)

    def distinct(number: int) -> str:
        first = (number + 2) * times * CACHED
        return names(range(first, first + times * CACHED), zone=BLOCKED)

    with stand(servers(), known=CACHED) as ready:
        own = ready[OWN]

        def costs(name: str) -> Callable[[int], float]:
            return lambda _: ask(ready[name], permitted, times=times, window=WINDOW).cpu_us

        runs = interleaved(
            plan.rounds,
            {name: costs(name) for name in ready}
            | {
                "blocked": lambda _: ask(own, repeated, times=times, window=WINDOW, expect="NXDOMAIN").cpu_us,
                "distinct": lambda number: (
                    ask(own, distinct(number), window=WINDOW, expect="NXDOMAIN").cpu_us
                ),
            },
        )
    blocked, different = runs.pop("blocked"), runs.pop("distinct")
    limits = (Limit(1.0, "dnsmasq"), Limit(0.5, "CoreDNS"))
    yield judged("cached permitted answer, CPU a query", "µs", runs, limits)
    first = "Nameward, cached permitted answer"
    for work, found in (
        (f"blocked name, the same {CACHED} again and again, CPU a query", blocked),
        ("blocked names that are all distinct, CPU a query", different),
    ):
        yield judged(work, "µs", {OWN: found, first: runs[OWN]}, (Limit(1.2, first),))


def crowd(plan: Plan) -> Iterator[Row]:
    """A node that is full: 110 pods, up to 1,000 policies of 100 names, each really looked up."""
    starts: dict[str, Start] = {ONE: peers.nameward}
    for policies in POLICIES:
        objects = peers.manifests(PODS, policies, NAMES_A_POLICY)
        starts[f"{policies:,} policies"] = partial(peers.nameward, objects=objects, grace="24h")
    largest = POLICIES[-1]
    times = QUERIES // CACHED
    with stand(starts, known=largest * NAMES_A_POLICY, pods=PODS) as ready:
        for policies in POLICIES:
            fill(ready[f"{policies:,} policies"], policies)
        full = ready[f"{largest:,} policies"]
        grants = int(metric(full, "nameward_grants"))

        def cost(name: str) -> Callable[[int], float]:
            return lambda _: ask(ready[name], names(range(CACHED)), times=times, window=WINDOW).cpu_us

        runs = interleaved(plan.rounds, {name: cost(name) for name in ready})
    for count, name in zip((1, *POLICIES), runs, strict=True):
        plan.point("policies", "cached permitted answer", count, median(runs[name]))
    found = {OWN: runs.pop(f"{largest:,} policies"), ONE: runs[ONE]}
    work = (
        f"cached permitted answer, {largest:,} policies {TIMES} {NAMES_A_POLICY} names, {PODS} pods, "
        f"{grants:,} live grants, CPU a query"
    )
    yield judged(work, "µs", found, (Limit(1.1, ONE),))


def fill(peer: Peer, policies: int) -> None:
    """Let each pod look up each of its names once: its grants are those that real lookups make."""
    for pod in range(min(PODS, policies)):
        questions = names(
            policy * NAMES_A_POLICY + name
            for policy in range(pod, policies, PODS)
            for name in range(NAMES_A_POLICY)
        )
        try:
            ask(peer, questions, source=pod_address(pod), window=32)
        except SystemExit:  # the machine stalled: once more, as a client would
            ask(peer, questions, source=pod_address(pod), window=32)


ROWS = (
    Bench("cached", "answers that are ready", quick=True, run=cached),
    Bench("crowd", "answers that are ready, in a full node", quick=False, run=crowd),
)
