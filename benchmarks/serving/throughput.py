"""Rows of throughput: answers a second with one core for each process.

The resolver has the first core, the enforcer the next; with two cores the load and the upstream share the
enforcer's, so that the figure of misses is lower than that of a node with cores to spare. What the busier
process could serve on a core of its own follows from its CPU a miss, and is a row too.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks import peers
from benchmarks.peers import Peer
from benchmarks.rows import OWN, Bench, Limit, Plan, Row, interleaved, judged, median
from benchmarks.serving.answers import CACHED
from benchmarks.serving.load import Start, ask, names, stand
from benchmarks.serving.misses import fresh, known
from benchmarks.topology import CORES, OTHER_CORE, pin, pod_address

LEAST_MISSES = 8_000
PROCESSES = (1, 2)
PODS = 8


def throughput(plan: Plan) -> Iterator[Row]:
    """As fast as they answer: the same 100 names, then distinct ones."""
    times, count = plan.sized(250, 100), plan.sized(6_000, 2_500)
    starts: dict[str, Start] = {"dnsmasq": peers.dnsmasq, "Unbound": peers.unbound, OWN: peers.nameward}
    busier: list[float] = []
    with stand(starts, known=known(plan, count)) as ready:
        own = ready[OWN]
        for pid in own.named("nw-enforcer"):
            pin(pid, OTHER_CORE)
        each = [found for name in ("nw-resolver", "nw-enforcer") if (found := own.named(name))]

        def cached_qps(name: str) -> float:
            return ask(ready[name], names(range(CACHED)), times=times).qps

        def missed_qps(name: str, number: int) -> float:
            before_s = [peers.cpu_s(processes) for processes in each]
            qps = ask(ready[name], fresh(number, count), window=64).qps
            if name == OWN and number >= 0:
                used_s = [peers.cpu_s(ours) - was for ours, was in zip(each, before_s, strict=True)]
                busier.append(count / max(used_s))
            return qps

        cached = interleaved(plan.rounds, {name: lambda _, name=name: cached_qps(name) for name in ready})  # type: ignore[misc]
        missed = interleaved(
            plan.rounds,
            {name: lambda number, name=name: missed_qps(name, number) for name in ready},  # type: ignore[misc]
        )
    shared = "" if len(CORES) > 3 else f"{len(CORES)} cores: the load and the upstream share the enforcer's"
    yield judged("cached answers a second, one core", "1/s", cached, (Limit(0.9, "dnsmasq", at_least=True),))
    least = (Limit(LEAST_MISSES, at_least=True),)
    yield judged("misses with grants a second, one core for each process", "1/s", missed, least, note=shared)
    yield judged(
        "misses with grants a second that the busier process has CPU for",
        "1/s",
        {OWN: busier},
        least,
        note="1 / its CPU a miss",
    )


def scaling(plan: Plan) -> Iterator[Row]:
    """Several resolver processes, each pod with one of them: how many answers they have CPU for together.

    The pods ask one after the other, and the CPU of the process that had most to do counts: cores that are
    shared with the load would say how many cores the machine has, and not how the processes share the work.
    """
    starts: dict[str, Start] = {
        _title(count): partial(peers.nameward, dns=f", processes: {count}", objects=peers.manifests(PODS))
        for count in PROCESSES
    }
    questions = names(range(CACHED))

    def capacity(peer: Peer, times: int) -> float:
        resolvers = peer.named("nw-resolver")
        before_s = [peers.cpu_s((pid,)) for pid in resolvers]
        answers = sum(
            ask(peer, questions, times=times, source=pod_address(pod)).answered for pod in range(PODS)
        )
        return answers / max(peers.cpu_s((pid,)) - was for pid, was in zip(resolvers, before_s, strict=True))

    with stand(starts, known=CACHED, pods=PODS) as ready:
        times = plan.sized(100, 25)
        runs = interleaved(
            plan.rounds,
            {name: lambda _, name=name: capacity(ready[name], times) for name in ready},  # type: ignore[misc]
        )
    for count in PROCESSES:
        plan.point("scaling", "cached answers", count, median(runs[_title(count)]))
    one, two = (runs[_title(count)] for count in PROCESSES)
    yield judged(
        f"cached answers a second that two resolver processes have CPU for, {PODS} pods",
        "1/s",
        {OWN: two, _title(1): one},
        base=_title(1),
        goal="shown: the scaling on two",
    )


def _title(processes: int) -> str:
    return f"Nameward, {processes} resolver{'s' if processes > 1 else ''}"


ROWS = (
    Bench("throughput", "answers a second", quick=False, run=throughput),
    Bench("scaling", "several resolver processes", quick=False, run=scaling),
)
