"""The stage of a scenario: one core, a fake clock, a fake authority's kernel, and the laws.

Owns the sorting of effects and what holds for every reply in every test. Never plays a script.
Invariant: no reply passes unchecked.
"""

from __future__ import annotations

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from policy.addresses import from_packed, to_packed
from policy.authority import LookupRecord
from policy.snapshot import Snapshot, compile_snapshot
from policy.world import World
from resolver.core import AskGrants, AskUpstream, Client, Core, CoreSettings, Record, Reply
from tests.scenarios.worlds import read_world

GRACE_S = 60.0


class Stage:
    """One core with its fake surroundings."""

    def __init__(self) -> None:
        self.settings = CoreSettings(grace_s=GRACE_S)
        self.core = Core(self.settings)
        self.now = 1000.0
        self.generation = 0
        self.world = read_world([], 0)
        self.snapshot: Snapshot = compile_snapshot(self.world)
        self.clients: dict[str, tuple[Client, bytes]] = {}
        self.replies: dict[str, bytes] = {}
        self.paths: dict[str, str] = {}
        self.upstream: list[AskUpstream] = []
        self.grants: list[AskGrants] = []
        self.records: list[LookupRecord] = []
        self.open: dict[tuple[bytes, bytes], float] = {}

    def publish(self, world: World) -> None:
        """Publish a world as the snapshot of its generation."""
        self.generation, self.world, self.snapshot = world.generation, world, compile_snapshot(world)
        self.take(self.core.snapshot_published(self.snapshot, self.now))

    def take(self, effects: list[object]) -> None:
        """Sort effects, and hold every reply to the laws."""
        for effect in effects:
            if isinstance(effect, Reply):
                self.take_reply(effect.client, effect.wire, "long")
            elif isinstance(effect, AskUpstream):
                self.upstream.append(effect)
            elif isinstance(effect, AskGrants):
                self.grants.append(effect)
            elif isinstance(effect, Record):
                self.records.append(effect.record)

    def take_reply(self, client: Client, wire: bytes, path: str) -> None:
        label = next(
            label
            for label, (asker, query) in reversed(self.clients.items())
            if asker == client and query[:2] == wire[:2]
        )
        self.replies[label] = wire
        self.paths[label] = path
        check_reply(self.clients[label][1], wire, client.transport)
        self.check_open(client, wire)

    def check_open(self, client: Client, wire: bytes) -> None:
        """Invariant 1: every address is open, from every source of its family, for its TTL at least."""
        pod = self.snapshot.pod_at(client.source)
        if pod is None or not pod.governed:
            return
        for rrset in dns.message.from_wire(wire).answer:
            if rrset.rdtype not in (dns.rdatatype.A, dns.rdatatype.AAAA):
                continue
            for address in [to_packed(rdata.address) for rdata in rrset]:
                if self.world.cluster_traffic == "exempt" and self.snapshot.is_cluster_address(address):
                    continue
                for source in map(to_packed, pod.addresses):
                    until = self.open.get((source, address), 0.0)
                    assert len(source) != len(address) or until >= self.now + rrset.ttl, (
                        f"{from_packed(address)} is not open for {rrset.ttl} s"
                    )

    def let_pass(self, seconds: float) -> None:
        """Advance the clock, stopping at each deadline on the way."""
        end = self.now + seconds
        while (at := self.core.next_deadline()) is not None and at <= end:
            self.now = max(self.now, at)
            self.take(self.core.deadline_passed(self.now))
        self.now = end


def check_reply(query: bytes, wire: bytes, transport: str) -> dns.message.Message:
    """What holds for every reply: it parses, echoes, fits, says why it fails. Return it parsed."""
    message = dns.message.from_wire(wire)
    assert wire[:2] == query[:2], "the id is the query's"
    assert message.flags & dns.flags.QR
    assert message.flags & dns.flags.RA, "RA is always set"
    assert not message.flags & (dns.flags.AA | dns.flags.AD), "AA and AD are never set"
    if wire[4:6] == b"\x00\x01":
        end = 12
        while query[end]:
            end += query[end] + 1
        end += 5
        assert wire[12:end] == query[12:end], "the question is echoed byte for byte"
    ttls = {rrset.ttl for rrset in message.answer + message.authority}
    assert len(ttls) <= 1, f"one TTL for all records, not {ttls}"
    assert not message.additional, "nothing but our OPT is additional"
    try:
        asked = dns.message.from_wire(query, keyring=False)
    except dns.exception.DNSException:
        assert message.rcode() != dns.rcode.NOERROR or len(wire) <= 1232
        return message
    if transport == "udp":
        size = min(max(asked.payload, 512), 1232) if asked.edns >= 0 else 512
        assert len(wire) <= size, f"{len(wire)} octets do not fit {size}"
    assert asked.edns >= 0 or message.edns < 0, "no OPT unasked"
    if message.rcode() in (dns.rcode.SERVFAIL, dns.rcode.REFUSED) and asked.edns >= 0:
        assert any(option.otype == dns.edns.EDE for option in message.options), "failures say why"
    return message
