"""One client question from its bytes to the reply's, as a state, and the reply drafted from an answer.

Owns the states of an exchange and what a reply to a filtered answer says. Never asks, never sends.
Invariant: an exchange is answered or discarded once.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from policy.pods import Pod
from resolver.answers import Answer
from resolver.cache import Cached
from resolver.effects import Client
from resolver.filtering import Filtered
from resolver.limits import Meter
from resolver.messages import NOERROR, Query
from resolver.replies import BLOCKED_TTL_S, Body, Ede, own_soa, write_reply
from resolver.verdicts import Verdict

ExchangeKey = tuple[bytes, int, bytes, str, int, bytes]
MAX_TCP_BYTES = 65535

STALE = Ede(3)
FORGED = Ede(4)
NOT_READY = Ede(14, "this node does not know the pod yet")
PROHIBITED = Ede(18)
GRANT_LIMIT = Ede(0, "grant limit")
NOT_ENFORCED = Ede(0, "enforcement not ready")


class Stage(Enum):
    """Where an exchange stands."""

    ARRIVED = "arrived"
    UNKNOWN = "waits for its pod or the first snapshot"
    LOOKING = "waits for an upstream"
    HELD = "waits for its grants"
    DONE = "answered or discarded"


class Draft(NamedTuple):
    """A reply about to be sent: what it was made from, its bytes, the addresses it needs opened.

    ``kept``: how many of the body's records the message holds (fewer if ``truncated``).
    """

    cached: Cached
    filtered: Filtered
    body: Body
    edes: tuple[Ede, ...]
    wire: bytes
    kept: int
    truncated: bool
    ttl_offsets: tuple[int, ...]
    asked: tuple[bytes, ...]


class Exchange:
    """One question under way; ``due_at`` is when its present stage must end.

    ``led``: the cluster's answer whose chain led outside to a name that is now being looked up.
    """

    __slots__ = (
        "client", "draft", "due_at", "generation", "key", "led", "meter", "pod", "query", "received_at",
        "stage", "verdict", "wire",
    )  # fmt: skip

    def __init__(self, query: Query, wire: bytes, client: Client, meter: Meter, now: float) -> None:
        self.query = query
        self.wire = wire
        self.client = client
        self.meter = meter
        self.received_at = now
        self.due_at = now
        self.key: ExchangeKey = exchange_key(wire, client)
        self.stage = Stage.ARRIVED
        self.pod: Pod | None = None
        self.verdict: Verdict | None = None
        self.draft: Draft | None = None
        self.led: Cached | None = None
        self.generation = 0

    @property
    def asked(self) -> tuple[bytes, int, bool]:
        """Name (wire form), type and DO of what is to be looked up."""
        led = self.led.answer if self.led is not None else None
        return (led.chain[-1] if led is not None else self.query.name, self.query.qtype, self.query.do)

    @property
    def limit_bytes(self) -> int:
        """The longest reply in octets."""
        return MAX_TCP_BYTES if self.client.transport == "tcp" else self.query.size


def exchange_key(wire: bytes, client: Client) -> ExchangeKey:
    """What a retransmission has in common with its first: client, port, server, id and question."""
    return (client.source, client.port, client.aimed, client.transport, client.via, wire)


def draft_reply(
    exchange: Exchange,
    cached: Cached,
    filtered: Filtered,
    ttl_s: int,
    extra: tuple[Ede, ...] = (),
    *,
    truncated: bool = False,
) -> Draft:
    """Write the reply to a filtered answer; ``ttl_s`` for all its records, ``extra`` its first EDEs.

    ``truncated``: records were left out of the message already, so TC is set whatever fits now.
    """
    query = exchange.query
    answer = cached.answer
    if answer is None:
        raise ValueError("an entry without an answer cannot be drafted")
    rcode, body, edes = _plan(query.name, answer, filtered, ttl_s, extra)
    written = write_reply(query, rcode, body, edes, exchange.limit_bytes)
    wire = written.wire
    if truncated and not wire[2] & 2:
        wire = wire[:2] + bytes((wire[2] | 2,)) + wire[3:]
    asked = filtered.asked
    if written.kept < len(body.records) and asked:  # granted are the records in the message that is sent
        sent = frozenset(body.records[: written.kept])
        asked = tuple(address for address in asked if address in sent)
    cut = truncated or bool(wire[2] & 2)
    return Draft(cached, filtered, body, edes, wire, written.kept, cut, written.ttl_offsets, asked)


def _plan(
    name: bytes, answer: Answer, filtered: Filtered, ttl_s: int, extra: tuple[Ede, ...]
) -> tuple[int, Body, tuple[Ede, ...]]:
    """RCODE, body and EDEs of the reply to a filtered answer."""
    edes = extra
    signatures = answer.signatures
    if filtered.changed:  # what is changed loses its signatures
        signatures = tuple(item for item in signatures if item[0] < len(answer.chain))
    if filtered.records:
        if filtered.changed and GRANT_LIMIT not in edes:
            edes += (FORGED,)
        body = Body(answer.chain, answer.rtype, filtered.records, None, signatures, ttl_s)
        return NOERROR, body, edes
    if answer.records:
        ttl_s = min(ttl_s, BLOCKED_TTL_S)
        body = Body(answer.chain, soa=own_soa(name), signatures=signatures, ttl=ttl_s)
        return NOERROR, body, (*edes, Ede(15, denial_text(filtered)))
    soa = answer.soa or own_soa(name)
    return answer.rcode, Body(answer.chain, soa=soa, signatures=signatures, ttl=ttl_s), edes


def denial_text(filtered: Filtered) -> str:
    """Say why nothing of an answer is left: the deny rule, or the address class."""
    denied = filtered.denied
    if denied is None:
        return "no permitted target"
    return denied.reason
