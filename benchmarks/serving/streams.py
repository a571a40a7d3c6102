"""Rows of TCP: answers for a second of the server's CPU, which no load generator limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.peers import Peer
from benchmarks.rows import Bench, Limit, Plan, Row, interleaved, judged
from benchmarks.serving.answers import CACHED, servers
from benchmarks.serving.load import ask, names, stand

LIMITS = (Limit(0.5, "Unbound", at_least=True),)


def streams(plan: Plan) -> Iterator[Row]:
    """A connection for each question; kept ones with a question at a time; pipelined."""
    ways = (
        ("TCP, a connection for each question", plan.sized(12, 8), 20, 20, ("-O", "num-queries-per-conn=1")),
        ("TCP, 20 kept connections, a question at a time", plan.sized(80, 30), 20, 20, ()),
        ("TCP, pipelined: 4 connections, 100 questions at once", plan.sized(200, 50), 4, 100, ()),
    )
    starts = servers()
    del starts["dnsmasq"]  # it forks for each connection, and ends it after 100 questions
    questions = names(range(CACHED))
    with stand(starts, known=CACHED) as ready:
        for work, times, clients, window, options in ways:

            def served(peer: Peer, times: int = times, clients: int = clients, window: int = window,
                       options: tuple[str, ...] = options) -> Callable[[int], float]:  # fmt: skip
                return lambda _: (
                    1e6
                    / ask(
                        peer,
                        questions,
                        times=times,
                        clients=clients,
                        window=window,
                        mode="tcp",
                        options=options,
                    ).cpu_us
                )

            runs = interleaved(plan.rounds, {name: served(peer) for name, peer in ready.items()})
            yield judged(f"{work}, cached answers a CPU second", "1/s", runs, LIMITS)


ROWS = (Bench("streams", "TCP", quick=False, run=streams),)
