"""One client question from its bytes to the reply's, as a state, and the reply drafted from an answer.

Owns the states of an exchange and what a reply to a filtered answer says. Never asks, never sends.
Invariant: an exchange is answered or discarded once.
"""

from __future__ import annotations

from typing import Final

from policy.authority import GrantAnswered
from policy.pods import Pod
from resolver.answers import Answer
from resolver.cache import Asked, Cached
from resolver.deadlines import Waiting
from resolver.effects import Client
from resolver.filtering import Filtered
from resolver.limits import Meter
from resolver.messages import NOERROR, Query
from resolver.replies import BLOCKED_TTL_S, Body, Ede, Written, own_soa, write_reply
from resolver.verdicts import Verdict

ExchangeKey = tuple[object, ...]
"""What a retransmission has in common with its first: client, port, server, id and question."""
MAX_TCP_BYTES: Final = 65535

STALE: Final = Ede(3)
FORGED: Final = Ede(4)
NOT_READY: Final = Ede(14, "this node does not know the pod yet")
PROHIBITED: Final = Ede(18)
GRANT_LIMIT: Final = Ede(0, "grant limit")
NOT_ENFORCED: Final = Ede(0, "enforcement not ready")

ARRIVED: Final = 0
UNKNOWN: Final = 1
"""Waits for its pod or the first snapshot."""
LOOKING: Final = 2
"""Waits for an upstream."""
HELD: Final = 3
"""Waits for its grants."""
DONE: Final = 4
"""Answered or discarded."""


class Draft:
    """A reply about to be sent: what it was made from, its bytes, the addresses it needs opened.

    ``kept``: how many of the body's records the message holds (fewer if ``truncated``).
    """

    __slots__ = (
        "asked", "body", "cached", "edes", "filtered", "kept", "truncated", "ttl_offsets", "wire",
    )  # fmt: skip

    def __init__(
        self,
        cached: Cached,
        filtered: Filtered,
        body: Body,
        edes: tuple[Ede, ...],
        *,
        written: Written,
        wire: bytes,
        asked: tuple[bytes, ...],
    ) -> None:
        self.cached = cached
        self.filtered = filtered
        self.body = body
        self.edes = edes
        self.wire = wire
        self.kept = written.kept
        self.truncated = wire[2] & 2 != 0
        self.ttl_offsets = written.ttl_offsets
        self.asked = asked

    @property
    def is_stale(self) -> bool:
        """Say whether it was made from an entry that had expired."""
        return STALE in self.edes


class Exchange(Waiting):
    """One question under way; ``due_at`` is when its present stage must end.

    ``led``: the cluster's answer whose chain led outside to a name that is now being looked up.
    """

    __slots__ = (
        "asking", "client", "draft", "key", "led", "meter", "pod", "query", "received_at", "stage",
        "verdict", "wire",
    )  # fmt: skip

    def __init__(
        self, query: Query, wire: bytes, client: Client, key: ExchangeKey, *, meter: Meter, now: float
    ) -> None:
        super().__init__()
        self.query = query
        self.wire = wire
        self.client = client
        self.key = key
        self.meter = meter
        self.received_at = now
        self.stage = ARRIVED
        self.pod: Pod | None = None
        self.verdict: Verdict | None = None
        self.draft: Draft | None = None
        self.asking: Asking | None = None
        self.led: Cached | None = None

    @property
    def asked(self) -> Asked:
        """What is to be looked up."""
        query = self.query
        led = self.led.answer if self.led is not None else None
        name = query.name if led is None else led.chain[-1]
        return Asked(name, query.qtype, query.question[-4:-2], signed=query.do)

    @property
    def limit_bytes(self) -> int:
        """The longest reply in octets."""
        return MAX_TCP_BYTES if self.client.transport == "tcp" else self.query.size


class Asking:
    """The grants of one answer: one request for each source address; ``exchange`` None: a renewal."""

    __slots__ = (
        "addresses", "asked_at", "awaited", "exchange", "first_id", "generation", "last_id", "lasting",
        "name", "pod", "reason", "refused", "until",
    )  # fmt: skip

    def __init__(
        self, pod: Pod, name: str, addresses: tuple[bytes, ...], exchange: Exchange | None, now: float
    ) -> None:
        self.pod = pod
        self.name = name
        self.addresses = addresses
        self.exchange = exchange
        self.asked_at = now
        self.first_id = 0
        self.last_id = 0
        self.awaited = 0
        self.refused: dict[bytes, str] | None = None
        self.reason = ""
        self.generation = 0
        self.lasting = True
        self.until = float("inf")

    @property
    def realized(self) -> tuple[bytes, ...]:
        """The addresses that are open, from every source."""
        refused = self.refused
        if refused is None:
            return self.addresses
        return tuple([address for address in self.addresses if address not in refused])

    def take(self, message: GrantAnswered) -> None:
        """Take the outcome of one request; an address without one is not open."""
        self.awaited -= 1
        self.generation = max(self.generation, message.generation)
        if message.reason and not self.reason:
            self.reason = message.reason
        if not message.lasting:
            self.lasting = False
        until = self.asked_at + message.remaining_s
        self.until = min(self.until, until)
        outcomes = message.outcomes
        said = len(outcomes)
        for index, address in enumerate(self.addresses):
            outcome = outcomes[index] if index < said else "failed"
            if outcome != "realized":
                if self.refused is None:
                    self.refused = {}
                self.refused[address] = outcome


def exchange_key(wire: bytes, client: Client) -> ExchangeKey:
    """Make the key of an exchange."""
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
        asked = tuple([address for address in asked if address in sent])
    return Draft(cached, filtered, body, edes, written=written, wire=wire, asked=asked)


def _plan(
    name: bytes, answer: Answer, filtered: Filtered, ttl_s: int, extra: tuple[Ede, ...]
) -> tuple[int, Body, tuple[Ede, ...]]:
    """RCODE, body and EDEs of the reply to a filtered answer."""
    edes = extra
    signatures = answer.signatures
    if filtered.changed and signatures:  # what is changed loses its signatures
        signatures = tuple([item for item in signatures if item[0] < len(answer.chain)])
    if filtered.records:
        if filtered.changed and GRANT_LIMIT not in edes:
            edes = (*edes, FORGED)
        body = Body(answer.chain, answer.rtype, filtered.records, signatures=signatures, ttl=ttl_s)
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
