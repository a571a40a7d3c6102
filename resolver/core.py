"""The resolver's core: messages, answers and time in, effects out.

Owns the order of a query's life: who asks, what may be asked, the cache, the upstreams, the hold.
Never touches a socket, a clock or a log. Invariant: any bytes from a client give a reply or
silence, any bytes from an upstream give effects; one deadline from receipt bounds every exchange.
"""

from __future__ import annotations

from typing import Final

from policy import gate
from policy.authority import GrantAnswered, LookupRecord
from policy.names import from_wire
from policy.pods import Pod
from policy.snapshot import Snapshot
from resolver.cache import Cached, joined
from resolver.core_settings import CoreSettings
from resolver.deadlines import NEVER, Deadlines
from resolver.effects import AskGrants, AskUpstream, Client, Effect, Record, Reply
from resolver.exchange import HELD, LOOKING, NOT_READY, PROHIBITED, UNKNOWN, Exchange, exchange_key
from resolver.filtering import Filtered, filter_answer
from resolver.flights import Flights, record
from resolver.hits import ALWAYS, Hit, Hits
from resolver.holds import Holds
from resolver.limits import Meter, Meters
from resolver.lookups import NO_REACHABLE_AUTHORITY, Lookups, Pending
from resolver.messages import ANY, IN, NOERROR, NXDOMAIN, REFUSED, Query, parse_query
from resolver.replies import EMPTY, Body, Ede, negative, write_error, write_reply
from resolver.tallies import Report, Tallies
from resolver.verdicts import NOT_SUPPORTED, Asker, Decisions, Verdict
from resolver.zones import is_reverse

__all__ = [
    "AskGrants", "AskUpstream", "Client", "Core", "CoreSettings", "Effect", "Record", "Reply", "Report",
]  # fmt: skip

_HINFO: Final = (b"\x07RFC8482\x00",)
UNKNOWN_ASKER: Final = "unknown"
_FIRST_META_TYPE: Final = 249
"""Up to ANY: TKEY, TSIG, IXFR, AXFR, MAILB, MAILA, never forwarded."""
RECORDS_A_QUERY: Final = 64
"""So many records of an answer cost a pod one more query of its rate: each is decided and granted."""


class Core:
    """One node's resolver without its I/O. Instants are monotonic seconds."""

    def __init__(self, settings: CoreSettings) -> None:
        self._settings = settings
        self._decisions: Decisions | None = None
        self._meters = Meters()
        self._tallies = Tallies()
        self._deadlines = Deadlines()
        self._flights = Flights(self._tallies, self._deadlines, settings.queries_in_flight)
        self._hits = Hits(settings.max_ttl_s)
        self._holds = Holds(settings, self._flights, self._hits)
        self._lookups: Lookups[Exchange] = Lookups(settings, self._deadlines)
        self._enforced: frozenset[str] = frozenset()
        self.hit = self._hits.hit
        """(wire, source, now) → the prepared reply to this very query, or None: ``query_received``."""

    def query_received(self, wire: bytes, client: Client, now: float) -> list[Effect]:
        """Take a client's message; ``wire`` is without TCP's length prefix."""
        out: list[Effect] = []
        query = parse_query(wire)
        if query is None:
            return out
        key = exchange_key(wire, client)
        if key in self._flights:
            return out  # a retransmission joins its first asker and counts once
        if query.rcode != NOERROR or query.qclass != IN or _FIRST_META_TYPE <= query.qtype < ANY:
            out.append(Reply(client, self._protocol_error(query, client)))
            return out
        decisions = self._decisions
        asker, pod = (UNKNOWN_ASKER, None) if decisions is None else decisions.asker(client.source)
        exchange = Exchange(query, wire, client, key, meter=self._meter(pod, client.source), now=now)
        exchange.pod = pod
        if not exchange.meter.take(now, self._settings.queries_per_second):
            self._flights.refuse(exchange, "rate limit", now, out)
            return out
        self._begin(exchange, asker, now, out)
        return out

    def upstream_answered(self, ident: int, wire: bytes, now: float) -> list[Effect]:
        """Take the message that answers an AskUpstream: id and question match, the rest is hostile."""
        out: list[Effect] = []
        waiters, cached = self._lookups.answered(ident, wire, now)
        self._looked_up(waiters, cached, now, out)
        return out

    def upstream_failed(self, ident: int, ede: int, now: float) -> list[Effect]:
        """Take the news that no upstream answered (22), or none could be spoken to (23)."""
        out: list[Effect] = []
        waiters, cached = self._lookups.failed(ident, ede, now)
        self._looked_up(waiters, cached, now, out)
        return out

    def grants_answered(self, message: GrantAnswered, now: float) -> list[Effect]:
        """Take the authority's answer to an AskGrants."""
        out: list[Effect] = []
        self._holds.answered(message, now, out)
        return out

    def snapshot_published(self, snapshot: Snapshot, now: float) -> list[Effect]:
        """Decide by another snapshot from now on, and again whatever is under way."""
        out: list[Effect] = []
        if not snapshot.world.loaded:
            return out
        self._apply(Decisions(self._settings, snapshot), now, out)
        self._meters.keep({pod.uid for pod in snapshot.world.pods})
        return out

    def settings_changed(self, settings: CoreSettings, now: float) -> list[Effect]:
        """Go on with other settings; the cache's capacity stays as it was at the start."""
        out: list[Effect] = []
        self._settings = settings
        self._hits.max_ttl_s = settings.max_ttl_s
        self._flights.per_pod = settings.queries_in_flight
        self._holds.settings = self._lookups.settings = settings
        if self._decisions is not None:
            self._apply(Decisions(settings, self._decisions.snapshot), now, out)
        return out

    def pods_enforced(self, uids: tuple[str, ...]) -> None:
        """Take the uids of the pods on which policy is known to be enforced."""
        self._enforced = frozenset(uids)

    def authority_lost(self, now: float) -> list[Effect]:  # noqa: ARG002  every input has its instant
        """Note that the enforcer is away: what needs grants is held, and nobody is known to be enforced."""
        self._enforced = frozenset()
        self._holds.lose_authority()
        return []

    def authority_back(self, now: float) -> list[Effect]:
        """Ask the enforcer again for all that is on hold."""
        out: list[Effect] = []
        self._holds.regain_authority(now, out)
        return out

    def connection_closed(self, via: int, now: float) -> None:  # noqa: ARG002  as above
        """Discard what a TCP connection had under way."""
        for exchange in self._flights.of_connection(via):
            self._discard(exchange)

    def next_deadline(self) -> float | None:
        """The instant at which ``deadline_passed`` is to be called; it may become earlier with any call."""
        at = self._deadlines.next_at()
        return None if at == NEVER else at

    def deadline_passed(self, now: float) -> list[Effect]:
        """End whatever has waited long enough."""
        out: list[Effect] = []
        while (due := self._deadlines.take(now)) is not None:
            if isinstance(due, Pending):
                waiters, cached = self._lookups.failed(due.id, NO_REACHABLE_AUTHORITY, now)
                self._looked_up(waiters, cached, now, out)
            elif isinstance(due, Exchange):
                if due.stage == HELD:
                    self._holds.time_out(due, now, out)
                else:
                    ede = NOT_READY if due.stage == UNKNOWN else Ede(NO_REACHABLE_AUTHORITY)
                    self._flights.fail(due, ede, "failed", now, out)
        return out

    def drain(self) -> Report:
        """Return what was counted since the last call."""
        return self._tallies.drain(len(self._lookups.cache))

    def take_counted(self) -> list[tuple[LookupRecord, float]]:
        """Return the records of lookups that ``hit`` answered, counted, and when each was last seen."""
        return self._hits.take_counted()

    def owner(self, source: bytes) -> str | bytes:
        """Whose a packed address is: a pod's uid, or the address itself; the key of limits."""
        pod = self._decisions.snapshot.pod_at(source) if self._decisions else None
        return pod.uid if pod is not None else source

    def is_idle(self, owner: str | bytes) -> bool:
        """Say whether nothing of an ``owner`` is under way."""
        return not self._meters.in_flight(owner)

    @property
    def in_flight(self) -> int:
        """Exchanges under way."""
        return len(self._flights)

    @property
    def held(self) -> int:
        """Replies that wait for grants."""
        return len(self._holds)

    def _protocol_error(self, query: Query, client: Client) -> bytes:
        """Malformed or unsupported messages are answered alike whoever asks (RFC 8906)."""
        self._tallies.of("error", query.qtype, client.transport)[0] += 1
        rcode = query.rcode or REFUSED
        return write_error(query, rcode, NOT_SUPPORTED if rcode == REFUSED else None)

    def _meter(self, pod: Pod | None, source: bytes) -> Meter:
        """The pod's meter, whichever of its addresses it asks from; the node itself has no limits."""
        if pod is not None:
            return self._meters.of(pod.uid)
        is_node = self._decisions is not None and self._decisions.is_node(source)
        return self._meters.of(source, limited=not is_node)

    def _apply(self, decisions: Decisions, now: float, out: list[Effect]) -> None:
        self._decisions = self._holds.decisions = decisions
        self._hits.clear()
        self._holds.clear()
        for exchange in self._flights.all():
            self._decide_again(exchange, decisions, now, out)

    def _begin(self, exchange: Exchange, asker: Asker, now: float, out: list[Effect]) -> None:
        decisions, pod, query = self._decisions, exchange.pod, exchange.query
        if decisions is None or asker == UNKNOWN_ASKER:
            due_at = exchange.received_at + self._settings.deadline_s
            self._flights.keep(exchange, UNKNOWN, due_at, now, out)
        elif asker == "other":
            self._flights.reply(exchange, write_error(query, REFUSED, PROHIBITED), "refused", now, out)
        elif pod is not None and query.name == gate.WIRE:
            self._say_of_itself(exchange, pod, decisions, now, out)
        elif asker == "plain" or pod is None:
            self._follow(exchange, decisions.plain(query.name, query.qtype), now, out)
        else:
            self._follow(exchange, decisions.decide(pod, query.name, query.qtype), now, out)

    def _decide_again(self, exchange: Exchange, decisions: Decisions, now: float, out: list[Effect]) -> None:
        """A changed generation is decided again before anything is sent; a pod that went is discarded."""
        asker, pod = decisions.asker(exchange.client.source)
        if exchange.stage == UNKNOWN:
            if asker != UNKNOWN_ASKER:
                exchange.pod = pod
                self._begin(exchange, asker, now, out)
            return
        was = exchange.pod
        if was is not None and (pod is None or (pod.uid, pod.key) != (was.uid, was.key)):
            self._discard(exchange)
            return
        self._holds.forget(exchange)
        exchange.led = None
        exchange.pod = pod
        self._begin(exchange, asker, now, out)

    def _say_of_itself(
        self, exchange: Exchange, pod: Pod, decisions: Decisions, now: float, out: list[Effect]
    ) -> None:
        """Tell a pod whether policy is enforced on it (``nameward gate``)."""
        generation = decisions.snapshot.world.generation
        said = gate.Said(pod.key, pod.uid, generation, pod.governed, pod.uid in self._enforced)
        records = (gate.as_record(said),) if exchange.query.qtype == gate.TXT else ()
        body = Body(rtype=gate.TXT, records=records) if records else negative(exchange.query.name)
        written = write_reply(exchange.query, NOERROR, body, (), exchange.limit_bytes)
        self._flights.reply(exchange, written.wire, "special", now, out)

    def _follow(self, exchange: Exchange, verdict: Verdict, now: float, out: list[Effect]) -> None:
        exchange.verdict = verdict
        if verdict.kind in ("permitted", "plain"):
            self._resolve(exchange, verdict, now, out)
        else:
            self._answer_here(exchange, verdict, now, out)

    def _answer_here(self, exchange: Exchange, verdict: Verdict, now: float, out: list[Effect]) -> None:
        """Reply without any upstream: blocked, search-list expansions, special names, suppressed types."""
        query = exchange.query
        if verdict.kind == "hinfo":
            body = Body(rtype=13, records=_HINFO, ttl=self._settings.max_ttl_s)
        else:
            body = EMPTY if verdict.rcode == REFUSED else negative(query.name)
        edes = (verdict.ede,) if verdict.ede else ()
        told = len(out)
        if verdict.kind in ("blocked", "search"):
            record(exchange, verdict.kind, verdict, out)
        wire = write_reply(query, verdict.rcode, body, edes, exchange.limit_bytes).wire
        if verdict is exchange.verdict and exchange.led is None:  # so it depends on the question alone
            records = tuple(effect.record for effect in out[told:] if isinstance(effect, Record))
            tally = self._tallies.of(verdict.kind, query.qtype, exchange.client.transport)
            hit = Hit(wire, (), ALWAYS, ALWAYS, tally, records=records)
            self._hits.prepare_made(exchange.wire, exchange.client, exchange.meter, hit)
        self._flights.reply(exchange, wire, verdict.kind, now, out)

    def _resolve(self, exchange: Exchange, verdict: Verdict, now: float, out: list[Effect]) -> None:
        asked = exchange.asked
        state, cached = self._lookups.find(asked, now)
        owner = exchange.pod.uid if exchange.pod is not None else ""
        if cached is not None and state == "fresh":
            prefetch = self._lookups.prefetch(asked, verdict.group, owner, cached, now)
            if prefetch is not None:
                out.append(prefetch)
            self._deliver(exchange, verdict, cached, now, out)
        elif cached is not None and state == "failed":
            self._deliver_failure(exchange, verdict, cached, now, out)
        elif not self._tunnels(exchange, verdict, now, out):
            # the question to the upstreams is due before an exchange that begins with it
            begins = exchange.received_at == now
            due_at = NEVER if begins else exchange.received_at + self._settings.deadline_s
            if self._flights.keep(exchange, LOOKING, due_at, now, out):
                begun = self._lookups.ask(asked, verdict.group, owner, exchange, now)
                if begun is not None:
                    out.append(begun)

    def _tunnels(self, exchange: Exchange, verdict: Verdict, now: float, out: list[Effect]) -> bool:
        """Count a name that upstream will see; True if it is one too many and was answered."""
        access = verdict.access
        if verdict.group == "cluster":
            if not is_reverse(verdict.name):
                return False  # a Kubernetes form: the cluster's DNS is its authority and asks nobody else
        elif access is None or (access.exact and not access.tunnel):
            return False
        domain = exchange.meter.count_name(verdict.name, now, self._settings)
        if not domain:
            return False
        minutes = self._settings.distinct_names_period_s / 60
        text = f"more than {self._settings.distinct_names} names of {domain} in {minutes:g} min"
        over = verdict.instead("blocked", rcode=NXDOMAIN, ede=Ede(15, text), reason=text)
        if self._settings.tunnel_action == "record":
            record(exchange, "limit", over, out)
            return False
        self._answer_here(exchange, over, now, out)
        return True

    def _looked_up(
        self, waiters: list[Exchange], cached: Cached | None, now: float, out: list[Effect]
    ) -> None:
        """Hand the outcome to all who wait for it."""
        for exchange in waiters:
            verdict = exchange.verdict
            if exchange.stage != LOOKING or verdict is None or cached is None:
                continue
            if cached.is_fresh(now):
                self._deliver(exchange, verdict, cached, now, out)
            else:
                self._deliver_failure(exchange, verdict, cached, now, out)

    def _deliver_failure(
        self, exchange: Exchange, verdict: Verdict, cached: Cached, now: float, out: list[Effect]
    ) -> None:
        """Upstream failed: a stale answer, filtered and granted afresh, or SERVFAIL."""
        if cached.is_usable_stale(now):
            self._deliver(exchange, verdict, cached, now, out)
        else:
            self._flights.fail(exchange, Ede(cached.ede), "failed", now, out)

    def _deliver(
        self, exchange: Exchange, verdict: Verdict, cached: Cached, now: float, out: list[Effect]
    ) -> None:
        """Filter an answer for its asker, and reply once its addresses are open."""
        if exchange.led is not None:
            cached = joined(exchange.led, cached, now)
        answer, pod, decisions = cached.answer, exchange.pod, self._decisions
        if answer is None or decisions is None:
            return
        if verdict.kind == "plain" or pod is None:
            filtered = Filtered(verdict, answer.records)
        else:
            exchange.meter.left -= len(answer.records) // RECORDS_A_QUERY
            filtered = filter_answer(answer, verdict, decisions, pod, exchange.query.name)
        if filtered.verdict.kind not in ("permitted", "plain"):
            self._answer_here(exchange, filtered.verdict, now, out)
            return
        if verdict.cluster and not filtered.verdict.cluster and not answer.records:
            exchange.led = _up_to(cached, filtered.verdict.name)
            self._follow(exchange, filtered.verdict, now, out)
            return
        self._holds.deliver(exchange, cached, filtered, now, out)

    def _discard(self, exchange: Exchange) -> None:
        self._holds.forget(exchange)
        self._flights.discard(exchange)


def _up_to(cached: Cached, name: str) -> Cached:
    """Return the part of a cluster's answer that leads to a name outside, which is asked by itself."""
    answer = cached.answer
    targets = [from_wire(target) for target in answer.chain] if answer is not None else []
    return cached.up_to(targets.index(name) + 1)
