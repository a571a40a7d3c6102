"""What a hit and a miss cost the resolver's core, and a grant the enforcer's authority; printed as JSON.

Run: ``NAMEWARD_PURE=1 python -m tests.guards.figures``. It needs a process of its own, because another may
have loaded the compiled modules, which cannot be counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import dns.message
import dns.rrset

from enforcer.authority import Authority, GrantLimits
from enforcer.blocked import BlockedRecords, Refused
from enforcer.journal import Journal
from enforcer.ledger import MemoryLedger
from policy.addresses import to_packed
from policy.authority import GrantAnswered, GrantRequested
from policy.build import COMPILED
from policy.snapshot import compile_snapshot
from resolver.core import AskGrants, AskUpstream, Client, Core, CoreSettings
from tests.enforcer.rig import A, Rig, permit, policy
from tests.guards.counting import count_tables, executed, kept_blocks, kept_bytes, looked_up
from tests.scenarios.worlds import read_world

SOURCE = bytes((10, 0, 0, 2))
CLIENT = Client(SOURCE, 40000, bytes((10, 96, 0, 10)), "udp", 1)
NOW = 1000.0
AVERAGED = 20
TOGETHER = 32
ADDRESSES = 10
"""Of a name whose grants' memory is measured."""

Step = Callable[[], object]


def make_core() -> Core:
    """A core with one pod that may ask for ``*.example.com``."""
    core = Core(CoreSettings(queries_per_second=1 << 40, distinct_names=1 << 40, cache_entries=1 << 20))
    world = read_world(["cluster 10.0.0.0/8", "pod t/a 10.0.0.2", "permit t/p/r *.example.com tcp/443"], 1)
    core.snapshot_published(compile_snapshot(world), NOW)
    return core


def query(name: str, number: int = 0) -> bytes:
    """One query as libraries write them now, with an OPT record."""
    return dns.message.make_query(name, "A", use_edns=0, id=number & 0xFFFF).to_wire()


def answer(asked: bytes, addresses: int) -> bytes:
    """The upstream's answer."""
    message = dns.message.from_wire(asked)
    response = dns.message.make_response(message)
    texts = [f"93.184.216.{number + 1}" for number in range(addresses)]
    response.answer.append(dns.rrset.from_text(message.question[0].name, 300, "IN", "A", *texts))
    return response.to_wire()


class Miss:
    """One question that nobody asked before, step by step, so that each can be counted by itself."""

    def __init__(self, core: Core, name: str, addresses: int = 1) -> None:
        self.core = core
        self.wire = query(name)
        self.said = answer(self.wire, addresses)
        self.effects: list[object] = []

    def run(self, count: Callable[[Step], None]) -> None:
        """Take the three steps, each through ``count``."""
        self.count(count, self.core.query_received, self.wire, CLIENT, NOW)
        (ask,) = self.effects
        assert isinstance(ask, AskUpstream)
        self.count(count, self.core.upstream_answered, ask.id, self.said, NOW)
        (grant,) = self.effects
        assert isinstance(grant, AskGrants)
        outcomes = ("realized",) * len(grant.request.addresses)
        message = GrantAnswered(grant.request.id, 1, outcomes, 120.0)
        self.count(count, self.core.grants_answered, message, NOW)
        assert len(self.effects) == 1

    def count(
        self, count: Callable[[Step], None], method: Callable[..., list[object]], *what: object
    ) -> None:
        kept: list[list[object]] = []
        count(partial(_keep, kept.append, partial(method, *what)))
        (self.effects,) = kept


def _keep(keep: Callable[[list[object]], None], call: Callable[[], list[object]]) -> None:
    keep(call())


def misses(addresses: int) -> dict[str, float]:
    """Figures of a miss with so many addresses."""
    core = make_core()
    for number in range(100):
        Miss(core, f"warm{number}.example.com", addresses).run(lambda step: step())
    found = {"bytecodes": 0, "functions": 0, "lookups": 0}

    def count(step: Step) -> None:
        bytecodes, functions = executed([step])
        found["bytecodes"] += bytecodes
        found["functions"] += functions

    for number in range(AVERAGED):
        Miss(core, f"asked{number}.example.com", addresses).run(count)
    prepared = [Miss(core, f"kept{number}.example.com", addresses) for number in range(400)]
    blocks = kept_blocks(lambda number: prepared[number].run(lambda step: step()), 200)
    count_tables(core)

    def look(step: Step) -> None:
        found["lookups"] += looked_up(step)

    for number in range(AVERAGED):
        Miss(core, f"looked{number}.example.com", addresses).run(look)
    return {**{what: total / AVERAGED for what, total in found.items()}, "blocks": blocks}


def repeated(call: Callable[[], object], root: object) -> dict[str, float]:
    """Figures of a call that does the same each time."""
    for _ in range(100):
        call()
    bytecodes, functions = executed([call])
    blocks = kept_blocks(lambda _: call(), 2000)
    count_tables(root)
    lookups = looked_up(call)
    return {"bytecodes": bytecodes, "functions": functions, "lookups": lookups, "blocks": blocks}


def answered_here() -> dict[str, dict[str, float]]:
    """Figures of hits, and of what is asked for the first time and needs no upstream."""
    found: dict[str, dict[str, float]] = {}
    for work, name in (("hit", "www.example.com"), ("hit, mixed case", "wWw.exaMple.com")):
        core = make_core()
        Miss(core, "www.example.com").run(lambda step: step())
        found[work] = repeated(partial(_must, core.hit, query(name), SOURCE, NOW), core)
    core = make_core()
    Miss(core, "www.example.com").run(lambda step: step())
    found["cached, the long way"] = repeated(
        partial(core.query_received, query("www.example.com"), CLIENT, NOW), core
    )
    core = make_core()
    blocked = query("www.attacker.test")
    core.query_received(blocked, CLIENT, NOW)
    found["hit, blocked"] = repeated(partial(_must, core.hit, blocked, SOURCE, NOW), core)
    core = make_core()
    found["blocked, the long way"] = repeated(partial(core.query_received, blocked, CLIENT, NOW), core)
    return found


def _must(call: Callable[..., bytes | None], *what: object) -> bytes:
    reply = call(*what)
    if reply is None:
        raise AssertionError("no reply was prepared")
    return reply


def grants() -> dict[str, dict[str, float]]:
    """Figures of the enforcer's decision on requests that come together, for each of them."""
    found: dict[str, dict[str, float]] = {}
    for batch in (1, TOGETHER):
        with TemporaryDirectory() as folder:
            rig = Rig(Path(folder), per_pod=100_000, total=100_000).settled_with(
                policy(permit("*.example.com"))
            )
            for number in range(20):
                rig.ask(f"warm{number}.example.com", f"93.184.1.{number}")
            requests = [
                rig.request(f"asked{number}.example.com", f"93.184.2.{number}") for number in range(batch)
            ]
            before = len(rig.kernel.commits)
            bytecodes, functions = executed([partial(rig.authority.answer, requests, rig.clock())])
            work = "grant, alone" if batch == 1 else f"grant, {batch} together"
            found[work] = {
                "bytecodes": bytecodes / batch, "functions": functions / batch,
                "transactions": (len(rig.kernel.commits) - before) / batch,
            }  # fmt: skip
            rig.journal.flush()
    return found


def kept() -> dict[str, dict[str, float]]:
    """Octets that stay of a grant, in each process, where a name has ten addresses; and of a refusal."""
    core = make_core()
    missed = kept_bytes(lambda n: Miss(core, f"k{n:06}.example.com", ADDRESSES).run(lambda step: step()), 500)
    blocked = BlockedRecords(100_000)
    refused = kept_bytes(lambda number: blocked.add(_refused(number)), 10_000)
    with TemporaryDirectory() as folder:
        granted = _kept_of_a_name(Path(folder))
    return {
        "grant, in the resolver": {"bytes": missed / ADDRESSES},
        "grant, in the enforcer": {"bytes": granted / ADDRESSES},
        "refusal": {"bytes": refused},
    }


def _kept_of_a_name(folder: Path) -> float:
    """Without the verdicts on names that the snapshot remembers, so many and no more."""
    rig = Rig(folder).settled_with(policy(permit("*.example.com")))
    journal = Journal(folder / "another", "boot-1")
    journal.open(1, (), ())
    limits = GrantLimits(60.0, 60.0, 1 << 30, 1 << 30)
    authority = Authority(MemoryLedger(), journal, lambda grants: None, limits)
    held = rig.authority.snapshot
    assert held is not None
    authority.snapshot, authority.admitted = compile_snapshot(held.world), rig.authority.admitted
    source = to_packed(A.addresses[0])

    def grant(number: int) -> None:
        first = 0x5DB80000 + ADDRESSES * number
        addresses = tuple((first + each).to_bytes(4, "big") for each in range(ADDRESSES))
        request = GrantRequested(number, 1, A.uid, source, f"k{number:06}.example.com", addresses, 60)
        ((decided,), _) = authority.answer([request], NOW + number / 100)
        assert decided.answer.outcomes == ("realized",) * ADDRESSES
        journal.flush()

    def forget() -> None:
        authority.snapshot = None  # which nobody else has

    return kept_bytes(grant, 1000, forget)


def _refused(number: int) -> Refused:
    name = f"f{number:06}.elsewhere.org"
    return Refused(
        "lookup", "mcp", "a", str(A.addresses[0]), name, "A", "", "", None, "", "",
        f"no rule permits {name} for mcp/a", "blocked", 1, NOW + number,
    )  # fmt: skip


def figures() -> dict[str, dict[str, float]]:
    """All of them."""
    if COMPILED is not None:
        raise SystemExit("compiled modules run: set NAMEWARD_PURE=1")
    return {
        **answered_here(),
        "miss, 1 address": misses(1),
        "miss, 8 addresses": misses(8),
        **grants(),
        **kept(),
    }


if __name__ == "__main__":
    print(json.dumps(figures(), indent=1))
