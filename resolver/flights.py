"""The exchanges under way: who they are, and their end.

Owns the register and the reply. Never decides. Invariant: an exchange in the
register is counted in flight once, and leaves it with one reply or none.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import dns.rdatatype

from policy.addresses import from_packed
from policy.authority import LookupRecord
from policy.names import from_wire
from resolver.deadlines import EXCHANGES, HOLDS, NEVER, Deadlines
from resolver.effects import Effect, Record, Reply
from resolver.exchange import ARRIVED, DONE, HELD, Exchange, ExchangeKey
from resolver.messages import REFUSED, SERVFAIL
from resolver.replies import Ede, write_error
from resolver.tallies import Tallies
from resolver.verdicts import Verdict

MAX_IN_FLIGHT: Final = 65536
"""Exchanges under way, of all clients together."""

_HIT: Final = 'nameward_dns_request_seconds{path="hit"}'
_MISS: Final = 'nameward_dns_request_seconds{path="miss"}'
_BLOCKED: Final = 'nameward_dns_request_seconds{path="blocked"}'


class Flights:
    """Exchanges by client and question."""

    def __init__(self, tallies: Tallies, deadlines: Deadlines, per_pod: int) -> None:
        self.tallies = tallies
        self.per_pod = per_pod
        self._deadlines = deadlines
        self._exchanges: dict[ExchangeKey, Exchange] = {}
        self._connections: dict[int, set[ExchangeKey]] = {}

    def __len__(self) -> int:
        return len(self._exchanges)

    def __contains__(self, key: ExchangeKey) -> bool:
        return key in self._exchanges

    def all(self) -> list[Exchange]:
        """Every exchange under way, oldest first."""
        return list(self._exchanges.values())

    def of_connection(self, via: int) -> list[Exchange]:
        """The exchanges of one TCP connection."""
        return [self._exchanges[key] for key in self._connections.get(via, ())]

    def keep(self, exchange: Exchange, stage: int, due_at: float, now: float, out: list[Effect]) -> bool:
        """Let an exchange wait in a stage until ``due_at``; False: its client has too many, it is refused."""
        if exchange.stage == ARRIVED:
            meter = exchange.meter
            if (meter.limited and meter.in_flight >= self.per_pod) or len(self._exchanges) >= MAX_IN_FLIGHT:
                self.refuse(exchange, "in-flight limit", now, out)
                return False
            meter.in_flight += 1
            self._exchanges[exchange.key] = exchange
            if exchange.client.transport == "tcp":
                self._connections.setdefault(exchange.client.via, set()).add(exchange.key)
        exchange.stage = stage
        self._deadlines.add(HOLDS if stage == HELD else EXCHANGES, exchange, due_at)
        return True

    def discard(self, exchange: Exchange) -> None:
        """End an exchange without a reply."""
        if exchange.stage != ARRIVED and self._exchanges.pop(exchange.key, None) is not None:
            exchange.meter.in_flight -= 1
            if exchange.client.transport == "tcp":
                keys = self._connections[exchange.client.via]
                keys.discard(exchange.key)
                if not keys:
                    del self._connections[exchange.client.via]
        exchange.stage = DONE
        exchange.due_at = NEVER

    def reply(self, exchange: Exchange, wire: bytes, verdict: str, now: float, out: list[Effect]) -> None:
        """End an exchange with a reply."""
        path = _BLOCKED if verdict == "blocked" else _HIT if exchange.stage == ARRIVED else _MISS
        self.discard(exchange)
        tallies = self.tallies
        tallies.of(verdict, exchange.query.qtype, exchange.client.transport)[0] += 1
        tallies.took(path, now - exchange.received_at)
        out.append(Reply(exchange.client, wire))

    def fail(self, exchange: Exchange, ede: Ede, verdict: str, now: float, out: list[Effect]) -> None:
        """End an exchange with SERVFAIL."""
        self.reply(exchange, write_error(exchange.query, SERVFAIL, ede), verdict, now, out)

    def refuse(self, exchange: Exchange, limit: str, now: float, out: list[Effect]) -> None:
        """End an exchange with REFUSED because of a limit; one record a second tells of it."""
        if exchange.meter.tells(now):
            name = from_wire(exchange.query.name)
            record(exchange, "limit", Verdict("blocked", name, reason=limit), out)
        self.reply(exchange, write_error(exchange.query, REFUSED, Ede(0, limit)), "limited", now, out)


def record(exchange: Exchange, kind: str, verdict: Verdict, out: list[Effect]) -> None:
    """Tell of a lookup; ``kind`` is a LookupRecord's verdict."""
    pod = exchange.pod
    if pod is None:
        return
    item = LookupRecord(
        verdict=kind,  # type: ignore[arg-type]
        namespace=pod.namespace,
        pod=pod.name,
        pod_ip=_address_text(exchange.client.source),
        name=verdict.name,
        qtype=type_text(exchange.query.qtype),
        policy=verdict.policy,
        rule=verdict.rule,
        reason=verdict.reason,
        count=1,
        age_s=0.0,
    )
    out.append(Record(item))


@lru_cache(maxsize=4096)
def _address_text(source: bytes) -> str:
    return from_packed(source)


@lru_cache(maxsize=256)
def type_text(qtype: int) -> str:
    """Text of a query type, ``TYPE1234`` for unknown ones."""
    return dns.rdatatype.to_text(dns.rdatatype.RdataType.make(qtype))
