"""The hold: a reply waits until what it promises is realized.

Owns drafts, grants and the replies that depend on them. Never resolves, never decides a name.
Invariant (answer ⇔ permit): an address is in a reply only after the authority said, for every
address of the pod in its family, that it is realized for at least the reply's TTL; what another node
said is believed for that one reply.
"""

from __future__ import annotations

from typing import Final

from policy.authority import GrantAnswered, LookupRecord
from policy.decision import AddressAccess
from resolver.asking import Askings
from resolver.cache import Cached
from resolver.core_settings import CoreSettings
from resolver.effects import Effect, Record
from resolver.exchange import (
    GRANT_LIMIT,
    HELD,
    NOT_ENFORCED,
    STALE,
    Asking,
    Draft,
    Exchange,
    denial_text,
    draft_reply,
)
from resolver.filtering import Filtered
from resolver.flights import Flights, record
from resolver.hits import Hit, Hits
from resolver.messages import NXDOMAIN
from resolver.realized import NEVER, Realized
from resolver.replies import Ede
from resolver.verdicts import Decisions

FOREVER: Final = float("inf")
_FRESH: Final[tuple[Ede, ...]] = ()
_STALE: Final[tuple[Ede, ...]] = (STALE,)
LIMIT_REASON: Final = "more grants than limits.grantsPerPod or limits.grants"


class Holds:
    """Sends replies, after their grants where they need some."""

    def __init__(self, settings: CoreSettings, flights: Flights, hits: Hits) -> None:
        self.settings = settings
        self.decisions: Decisions | None = None
        self._has_authority = True
        self._flights = flights
        self._hits = hits
        self._realized = Realized()
        self._askings = Askings()
        self._held = 0

    def __len__(self) -> int:
        """Replies on hold whose grants are asked for."""
        return self._held

    def clear(self) -> None:
        """Forget what was realized, and every request: another snapshot holds."""
        self._realized.clear()
        self._askings.forget_renewals()

    def deliver(
        self, exchange: Exchange, cached: Cached, filtered: Filtered, now: float, out: list[Effect]
    ) -> None:
        """Reply to a filtered answer: at once if it is open for long enough, else after its grants."""
        extra = _FRESH if cached.is_fresh(now) else _STALE
        ttl_s = cached.ttl_s(now, self.settings.max_ttl_s)
        draft = draft_reply(exchange, cached, filtered, ttl_s, extra)
        pod = exchange.pod
        if not draft.asked or pod is None:
            self._send(exchange, draft, FOREVER, now, out)
            return
        until = self._realized.until(pod.addresses, filtered.verdict.name, draft.asked)
        if until - now >= ttl_s:
            if until - now < ttl_s + self.settings.grace_s / 2:
                self._renew(exchange, draft, now, out)
            self._send(exchange, draft, until, now, out)
            return
        exchange.draft = draft
        if exchange.stage != HELD:
            due_at = now + self.settings.hold_timeout_s
            last_at = exchange.received_at + self.settings.deadline_s
            due_at = min(due_at, last_at)
            if not self._flights.keep(exchange, HELD, due_at, now, out):
                return
        self._ask(exchange, draft, now, out)

    def forget(self, exchange: Exchange) -> None:
        """Await nothing more for an exchange."""
        asking = exchange.asking
        if asking is not None:
            exchange.asking = None
            self._held -= 1
            self._askings.forget(asking)

    def lose_authority(self) -> None:
        """Note that nobody answers requests."""
        self._has_authority = False
        self._askings.forget_renewals()
        self._realized.end_renewals()

    def regain_authority(self, now: float, out: list[Effect]) -> None:
        """Ask again for everything on hold."""
        self._has_authority = True
        for exchange in self._flights.all():
            if exchange.stage == HELD and exchange.draft is not None:
                self._ask(exchange, exchange.draft, now, out)

    def answered(self, message: GrantAnswered, now: float, out: list[Effect]) -> None:
        """Take one answer of the authority; the last one of an exchange releases its reply."""
        asking = self._askings.answered(message)
        decisions = self.decisions
        if asking is None or decisions is None:
            return
        exchange = asking.exchange
        if exchange is None:
            self._realized.end_renewal(asking.pod.addresses, asking.name, asking.addresses[0])
        elif asking.generation > decisions.snapshot.generation:
            return  # the snapshot that decided is on its way, and decides this exchange again
        if asking.lasting:
            realized = asking.realized
            if realized:
                self._realized.add(asking.pod.addresses, asking.name, realized, asking.until)
        if exchange is None:
            return
        exchange.asking = None
        self._held -= 1
        draft = exchange.draft
        if draft is None:
            return
        self._flights.tallies.took("nameward_hold_seconds", now - asking.asked_at)
        if asking.refused is not None:
            self._reduce(exchange, draft, asking, now, out)
        else:
            self._release(exchange, draft, asking, now, out)

    def time_out(self, exchange: Exchange, now: float, out: list[Effect]) -> None:
        """Give up a hold: SERVFAIL, because nothing is answered unheld."""
        self.forget(exchange)
        self._flights.tallies.hold_timeouts += 1
        self._flights.fail(exchange, NOT_ENFORCED, "failed", now, out)

    def _ask(self, exchange: Exchange, draft: Draft, now: float, out: list[Effect]) -> None:
        self.forget(exchange)
        pod, decisions = exchange.pod, self.decisions
        if not self._has_authority or pod is None or decisions is None:
            return
        asking = Asking(pod, draft.filtered.verdict.name, draft.asked, exchange, now)
        exchange.asking = asking
        self._held += 1
        sources = decisions.sources(pod, exchange.query.qtype)
        self._askings.ask(asking, sources, draft.body.ttl, decisions.snapshot.generation, out)

    def _renew(self, exchange: Exchange, draft: Draft, now: float, out: list[Effect]) -> None:
        pod, decisions = exchange.pod, self.decisions
        name = draft.filtered.verdict.name
        if not self._has_authority or pod is None or decisions is None:
            return
        if self._realized.begin_renewal(pod.addresses, name, draft.asked[0]):
            asking = Asking(pod, name, draft.asked, None, now)
            sources = decisions.sources(pod, exchange.query.qtype)
            self._askings.ask(asking, sources, draft.body.ttl, decisions.snapshot.generation, out)

    def _reduce(
        self,
        exchange: Exchange,
        draft: Draft,
        asking: Asking,
        now: float,
        out: list[Effect],
    ) -> None:
        """Some addresses were refused: leave them out; nothing left is an answer of its own."""
        filtered = draft.filtered
        refused = asking.refused or {}
        sent = draft.body.records[: draft.kept]
        records = tuple([record for record in sent if record not in refused])
        outcomes = set(refused.values())
        if "limit" in outcomes and exchange.meter.tells(now):
            verdict = filtered.verdict
            record(exchange, "limit", verdict.because(verdict.policy, verdict.rule, LIMIT_REASON), out)
        if not records and outcomes != {"denied"}:
            ede = GRANT_LIMIT if "limit" in outcomes else NOT_ENFORCED
            self._flights.fail(exchange, ede, "limited" if "limit" in outcomes else "failed", now, out)
            return
        denied = filtered.denied or AddressAccess((), asking.reason or "denied by the enforcer", "", "")
        filtered = Filtered(filtered.verdict, records, changed=True, denied=denied)
        extra: tuple[Ede, ...] = _STALE if draft.is_stale else _FRESH
        if "limit" in outcomes:
            extra = (*extra, GRANT_LIMIT)
        ttl_s = self._ttl_s(draft, asking.until if records else FOREVER, now)
        reduced = draft_reply(exchange, draft.cached, filtered, ttl_s, extra, truncated=draft.truncated)
        self._send(exchange, reduced, NEVER, now, out)

    def _release(
        self, exchange: Exchange, draft: Draft, asking: Asking, now: float, out: list[Effect]
    ) -> None:
        until, ttl_s = asking.until, draft.body.ttl
        if until - now < ttl_s or draft.cached.expires_at - now <= ttl_s - 1:
            ttl_s = self._ttl_s(draft, until, now)
        if ttl_s != draft.body.ttl:
            extra = _STALE if draft.is_stale else _FRESH
            draft = draft_reply(exchange, draft.cached, draft.filtered, ttl_s, extra)
        self._send(exchange, draft, until if asking.lasting else NEVER, now, out)

    def _ttl_s(self, draft: Draft, until: float, now: float) -> int:
        """A TTL that outlives neither the entry, which may have expired during the hold, nor the grants."""
        ttl_s = min(draft.body.ttl, draft.cached.ttl_s(now, self.settings.max_ttl_s))
        if now >= draft.cached.expires_at and not draft.is_stale:
            ttl_s = 1
        return ttl_s if until - now >= ttl_s else max(1, int(until - now))

    def _send(self, exchange: Exchange, draft: Draft, until: float, now: float, out: list[Effect]) -> None:
        """Reply, and prepare the same reply for whoever asks again before ``until``."""
        verdict = draft.filtered.verdict
        stale = draft.is_stale
        label = "stale" if stale else verdict.kind
        access = verdict.access
        answer = draft.cached.answer
        if not draft.filtered.records and answer is not None and answer.records:
            label = "blocked"
            denied = draft.filtered.denied
            reason = denied.reason if denied and denied.reason else denial_text(draft.filtered)
            where = (denied.policy, denied.rule) if denied else ("", "")
            record(exchange, "blocked", verdict.because(*where, reason), out)
        told = len(out)
        if verdict.cluster and _is_expansion(draft):
            record(exchange, "search", verdict, out)
        if access is not None and access.watched:
            for policy, rule, outcome in access.watched:
                record(exchange, "watched", verdict.because(policy, rule, f"would {outcome}"), out)
        if not stale and label != "blocked":
            records: tuple[LookupRecord, ...] = ()
            if len(out) > told:
                records = tuple([effect.record for effect in out[told:] if isinstance(effect, Record)])
            self._prepare(exchange, draft, until, records, now)
        self._flights.reply(exchange, draft.wire, label, now, out)

    def _prepare(
        self, exchange: Exchange, draft: Draft, until: float, records: tuple[LookupRecord, ...], now: float
    ) -> None:
        """Put the reply into the table of hits, until its cache entry or its grants need a look."""
        cached = draft.cached
        ttl_s = cached.ttl_s(now, self.settings.max_ttl_s)  # the most that patching will write
        end = until - ttl_s - self.settings.grace_s / 2
        end = min(end, cached.expires_at - 1.0)
        prefetch_at = cached.prefetch_at()
        if now < prefetch_at < end:
            end = prefetch_at
        if now < end:
            transport = exchange.client.transport
            tally = self._flights.tallies.of(draft.filtered.verdict.kind, exchange.query.qtype, transport)
            hit = Hit(draft.wire, draft.ttl_offsets, end, cached.expires_at, tally, records=records)
            self._hits.prepare_resolved(exchange.wire, exchange.client, exchange.meter, hit)


def _is_expansion(draft: Draft) -> bool:
    """NXDOMAIN of the cluster's DNS for a cluster name is the search list's work."""
    answer = draft.cached.answer
    return answer is not None and answer.rcode == NXDOMAIN
