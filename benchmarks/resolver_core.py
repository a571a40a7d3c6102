"""CPU of the resolver's core alone, without sockets: µs per hit, miss, blocked and cached answer.

Run: ``python -m benchmarks.resolver_core [COUNT]``. Figures are of this machine and this moment;
a miss here is query, upstream's answer, grant request, its answer, reply.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import dns.message
import dns.rrset

from policy.authority import GrantAnswered, Outcome
from policy.pods import Pod
from policy.rules import Destination, Policy, PortRange, Rule
from policy.snapshot import compile_snapshot
from policy.world import World
from resolver.core import AskGrants, AskUpstream, Client, Core, CoreSettings, Reply

SOURCE = bytes((10, 0, 0, 2))


def make_core() -> Core:
    """A core with one pod that may ask for ``*.example.com``."""
    rule = Rule(
        name="r", action="permit", destinations=(Destination(kind="public"),), web_groups=("*.example.com",),
        protocol="tcp", ports=PortRange(443, 443),
    )  # fmt: skip
    world = World(
        generation=1,
        pods=(Pod(namespace="t", name="a", uid="u", addresses=("10.0.0.2",)),),
        policies=(Policy(namespace="t", name="p", kind="FirewallPolicy", rules=(rule,)),),
        cluster_cidrs=("10.0.0.0/8",),
    )
    core = Core(CoreSettings(queries_per_second=1 << 40, distinct_names=1 << 40, cache_entries=1 << 20))
    core.snapshot_published(compile_snapshot(world), 0.0)
    return core


def measured(title: str, count: int, body: Callable[[int], object]) -> None:
    """Print the CPU of one call, the best of three rounds."""
    best = float("inf")
    for turn in range(3):
        began = time.process_time()
        for number in range(turn * count, (turn + 1) * count):
            body(number)
        best = min(best, time.process_time() - began)
    print(f"{title:42} {best / count * 1e6:8.2f} µs")


def query(name: str, number: int = 0) -> bytes:
    """One query as glibc writes it, quickly."""
    head = number.to_bytes(2, "big") + b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return head + labels + b"\x00\x00\x01\x00\x01"


def answer(chain: int, addresses: int) -> Callable[[bytes], bytes]:
    """Make upstream answers by pasting a name before fixed records."""
    response = dns.message.make_response(dns.message.make_query("0000000.example.com", "A"))
    owner = "0000000.example.com."
    for number in range(chain):
        target = f"c{number}.cdn.example.net."
        response.answer.append(dns.rrset.from_text(owner, 300, "IN", "CNAME", target))
        owner = target
    texts = [f"1.2.3.{number + 1}" for number in range(addresses)]
    response.answer.append(dns.rrset.from_text(owner, 300, "IN", "A", *texts))
    wire = response.to_wire()
    head, tail = wire[:12], wire[12 + 25 :]
    return lambda name: head + name + b"\x00\x01\x00\x01" + tail  # same length of name: pointers hold


def miss(core: Core, answers: Callable[[bytes], bytes], client: Client) -> Callable[[int], None]:
    """One question that nobody asked before, to its reply."""

    def run(number: int) -> None:
        label = b"%07d" % number
        name = b"\x07" + label + b"\x07example\x03com\x00"
        wire = b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + name + b"\x00\x01\x00\x01"
        (ask,) = core.query_received(wire, client, 0.0)
        assert isinstance(ask, AskUpstream)
        (grant,) = core.upstream_answered(ask.id, answers(name), 0.0)
        assert isinstance(grant, AskGrants)
        request = grant.request
        realized: Outcome = "realized"
        outcomes = (realized,) * len(request.addresses)
        (reply,) = core.grants_answered(GrantAnswered(request.id, 1, outcomes, 120.0), 0.0)
        assert isinstance(reply, Reply)

    return run


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    client = Client(SOURCE, 40000, bytes((10, 96, 0, 10)), "udp", 0)
    core = make_core()
    for chain, addresses in ((0, 1), (0, 4), (2, 4)):
        measured(
            f"miss, chain of {chain}, {addresses} addresses",
            count,
            miss(core, answer(chain, addresses), client),
        )
        core = make_core()
    miss(core, answer(1, 4), client)(0)
    asked = query("0000000.example.com", 1)
    hit = core.hit
    core.query_received(asked, client, 0.0)
    assert hit(asked, SOURCE, 0.0)
    measured("hit", count * 5, lambda _: hit(asked, SOURCE, 0.0) and None)
    began = time.process_time()
    for _ in range(count * 5):
        hit(asked, SOURCE, 0.0)
    print(f"{'hit, without a call around it':42} {(time.process_time() - began) / count / 5 * 1e6:8.2f} µs")
    measured(
        "cached answer, realized, the long way",
        count,
        lambda _: core.query_received(asked, client, 0.0) and None,
    )
    blocked = query("www.attacker.test", 1)
    measured("blocked", count, lambda _: core.query_received(blocked, client, 0.0) and None)
    expansion = query("www.example.com.t.svc.cluster.local", 1)
    measured("search-list expansion", count, lambda _: core.query_received(expansion, client, 0.0) and None)


if __name__ == "__main__":
    main()
