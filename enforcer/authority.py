"""The authority: decides every grant request by this process's own snapshot.

Owns the way from a batch of requests to one kernel transaction and its answers. Believes nothing of
a request but "this pod's lookup gave these addresses"; names, pods, addresses and ports are decided
here again. Never opens a socket. Invariants: nothing is adopted, journaled or answered ``realized``
before the kernel's ACK; no request costs more than its own size, whatever it says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from enforcer.identity import comment_of
from enforcer.journal import Answer, Journal
from enforcer.kernel import KernelRejected
from enforcer.ledger import Account, Ledger, Opening
from enforcer.terms import Term
from enforcer.ways import Grant, Permitted, permitted
from policy.authority import GrantAnswered, GrantRequested, Outcome
from policy.decision import Permit
from policy.snapshot import Snapshot

_NO_ADDRESS = "the pod has no address of that family"
MAX_WAYS = 1024
"""Different permits of which the ways are remembered."""
MAX_OPENINGS_A_TURN = 8192
"""A permit of many ports is hundreds of elements an address: beyond so many, requests wait for a turn."""
MAX_OPENINGS_ELSEWHERE = 2048
"""Of other nodes' requests in one turn, and of one of them: so long (25 ms) may lookups here wait for it."""
ENDLESS = 1 << 60
MAX_NAME_CHARS = 1024
"""Longest presentation form of a name: 255 octets, each escaped as ``\\DDD``."""


class GrantLimits(NamedTuple):
    """Bounds of what requests may open; times in seconds."""

    max_ttl_s: float
    grace_s: float
    per_pod: int
    total: int


class Admitted(NamedTuple):
    """The accounts of a pod whose addresses the kernel's sets hold, by family."""

    v4: tuple[Account, ...]
    v6: tuple[Account, ...]
    tags: tuple[str, ...]
    """Of all of them."""


def admitted_of(accounts: Iterable[Account]) -> dict[str, Admitted]:
    """Return the accounts by ``namespace/name`` of their pods."""
    by_pod: dict[str, list[Account]] = {}
    for account in accounts:
        by_pod.setdefault(account.identity.key, []).append(account)
    return {
        key: Admitted(
            tuple(each for each in found if len(each.identity.source) == 4),
            tuple(each for each in found if len(each.identity.source) == 16),
            tuple(each.tag for each in found),
        )
        for key, found in by_pod.items()
    }


class Decided(NamedTuple):
    """A request with what became of it. ``work``: elements that were looked at for it."""

    request: GrantRequested
    answer: GrantAnswered
    work: int = 0


class _Ways(NamedTuple):
    permits: tuple[Permit, ...]
    v4: tuple[Permitted, ...]
    v6: tuple[Permitted, ...]


class _Turn:
    """What one batch is about to do; nothing of it has happened yet."""

    __slots__ = ("answers", "most", "new", "new_total", "now", "openings", "staged", "work")

    def __init__(self, now: float) -> None:
        self.now = now
        self.staged: dict[bytes, Opening] = {}
        """The first opening of each element, by pair and way."""
        self.openings: list[Opening] = []
        self.answers: list[Answer] = []
        self.new: dict[bytes, int] = {}
        self.new_total = 0
        self.work = 0
        """Elements that were looked at so far, and (``most``) beyond which no other address is."""
        self.most = ENDLESS

    def grants(self) -> list[Grant]:
        """Return the transaction: fresh elements, and those that are prolonged."""
        now = self.now
        grants: list[Grant] = []
        for each in self.staged.values():
            held, until, account, term = each.held, each.lasts, each.account, each.term
            if held is None or until > held.until:
                said = comment_of(term.by.start, term.name, account.comment_end)
                pair = account.source + each.destination
                grants.append((term.by.way, pair, int((until - now) * 1000) + 1, said, held is not None))
        return grants


class Authority:
    """Decides requests, opens what they may open, and says what became of each."""

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        commit: Callable[[Sequence[Grant]], None],
        limits: GrantLimits,
    ) -> None:
        self._ledger = ledger
        self._journal = journal
        self._commit = commit
        self.limits = limits
        self.snapshot: Snapshot | None = None
        self.admitted: dict[str, Admitted] = {}
        """By the pod's ``namespace/name``."""
        self.outcomes: dict[str, int] = {"realized": 0, "denied": 0, "limit": 0, "failed": 0}
        self.last_realized_at = float("-inf")
        self.kernel_errors = 0
        self._ways: dict[int, _Ways] = {}
        """By the identity of the permits (which the entry keeps alive): none is compared or hashed."""

    def answer(
        self, requests: Sequence[GrantRequested], now: float, others: Sequence[GrantRequested] = ()
    ) -> tuple[list[Decided], list[GrantRequested]]:
        """Decide a batch in one transaction. Returns what is decided, and what waits: for its pod, or a turn.

        ``others`` are other nodes' requests: they come last, and may open little. If the kernel refuses the
        batch, each request is tried alone, so that one refusal is one request's.
        """
        turn = _Turn(now)
        decided: list[Decided] = []
        waiting: list[GrantRequested] = []
        for request in requests:
            self._put(request, turn, MAX_OPENINGS_A_TURN, decided, waiting)
        full = min(turn.work + MAX_OPENINGS_ELSEWHERE, MAX_OPENINGS_A_TURN)
        for request in others:
            turn.most = turn.work + MAX_OPENINGS_ELSEWHERE
            self._put(request, turn, full, decided, waiting)
        if not self._realize(turn):
            alone = [self._alone(each, now) for each in decided]
            return alone, waiting
        self._count(decided)
        return decided, waiting

    def _put(
        self,
        request: GrantRequested,
        turn: _Turn,
        full: int,
        decided: list[Decided],
        waiting: list[GrantRequested],
    ) -> None:
        """Decide one request of a turn, unless the turn is ``full``: to one of the lists."""
        before = turn.work
        answer = None if before >= full else self._decide(request, turn)
        if answer is None:
            waiting.append(request)
        else:
            decided.append(Decided(request, answer, turn.work - before))

    def refuse(self, request: GrantRequested, reason: str) -> Decided:
        """Answer a request that waited in vain for its pod."""
        decided = Decided(request, self._refusal(request, "failed", reason))
        self._count([decided])
        return decided

    def _alone(self, before: Decided, now: float) -> Decided:
        turn, request = _Turn(now), before.request
        turn.most = before.work
        answer = self._decide(request, turn)
        if answer is None or not self._realize(turn):
            answer = self._refusal(request, "failed", "the kernel refused the elements")
        decided = Decided(request, answer, turn.work)
        self._count([decided])
        return decided

    def _realize(self, turn: _Turn) -> bool:
        grants = turn.grants()
        if grants:
            try:
                self._commit(grants)
            except KernelRejected:
                self.kernel_errors += 1
                return False
        if turn.openings:
            self._ledger.adopt(turn.openings, turn.now)
            self.last_realized_at = turn.now
            for answer in turn.answers:
                self._journal.granted(answer)
        return True

    def _count(self, decided: Sequence[Decided]) -> None:
        for each in decided:
            for outcome in each.answer.outcomes:
                self.outcomes[outcome] += 1

    def _refusal(self, request: GrantRequested, outcome: Outcome, reason: str) -> GrantAnswered:
        generation = self.snapshot.generation if self.snapshot else 0
        return GrantAnswered(request.id, generation, (outcome,) * len(request.addresses), 0.0, reason)

    def _decide(self, request: GrantRequested, turn: _Turn) -> GrantAnswered | None:
        """Stage what the request may open. None: its pod is declared but not admitted yet."""
        snapshot = self.snapshot
        if snapshot is None:
            return None
        pod = snapshot.pod_at(request.source)
        if pod is None or pod.uid != request.pod_uid or not pod.governed:
            return self._refusal(request, "denied", "no governed pod with that address and uid")
        if len(request.name) > MAX_NAME_CHARS:
            return self._refusal(request, "denied", "no name is that long")
        access = snapshot.access(pod, request.name)
        if not access.resolvable:
            return self._refusal(request, "denied", access.reason)
        admitted = self.admitted.get(pod.key)
        if admitted is None:
            return None
        limits = self.limits
        until = turn.now + min(max(request.ttl_s, 1), limits.max_ttl_s) + limits.grace_s
        outcomes: dict[bytes, Outcome] = dict.fromkeys(request.addresses, "denied")
        opened: list[bytes] = []
        reason = ""
        ways: tuple[Permitted, ...] = ()
        terms: tuple[Term, ...] = ()
        for address in outcomes:  # once, however often it is named: a way may be hundreds of elements
            size = len(address)
            accounts = admitted.v4 if size == 4 else admitted.v6 if size == 16 else ()
            permits = access.class_at(address).permits if accounts and not access.tunnel else ()
            if not permits:
                reason = reason or (access.at(address).reason if accounts else _NO_ADDRESS)
                continue
            its = self._ways_of(permits, size) if turn.work < turn.most else ()
            if its is not ways:
                ways, terms = its, tuple([Term(by, request.name, until) for by in its])
            if its and self._stage(turn, accounts, address, terms, until):
                outcomes[address] = "realized"
                opened.append(address)
            else:
                outcomes[address] = "limit"
                reason = "grant limit"
        if opened:
            turn.answers.append(Answer(admitted.tags, request.name, tuple(opened), until, turn.now))
        remaining_s = until - turn.now if opened else 0.0
        said = tuple([outcomes[address] for address in request.addresses])
        return GrantAnswered(request.id, snapshot.generation, said, remaining_s, reason)

    def _ways_of(self, permits: tuple[Permit, ...], size: int) -> tuple[Permitted, ...]:
        known = self._ways.get(id(permits))
        if known is None or known.permits is not permits:
            if len(self._ways) >= MAX_WAYS:
                self._ways.clear()
            known = self._ways[id(permits)] = _Ways(permits, permitted(permits, 4), permitted(permits, 16))
        return known.v4 if size == 4 else known.v6

    def _stage(
        self,
        turn: _Turn,
        accounts: tuple[Account, ...],
        address: bytes,
        terms: tuple[Term, ...],
        until: float,
    ) -> bool:
        """Stage one address for all of the pod's addresses of its family; False: beyond a limit."""
        staged = turn.staged
        turn.work += len(terms) * len(accounts)
        fresh: dict[bytes, Opening] = {}
        again: list[Opening] = []
        openings: list[Opening] = []
        new: list[tuple[bytes, int]] = []
        total = turn.new_total
        for account in accounts:
            source = account.source
            pair = source + address
            before = turn.new.get(source, 0)
            count = before
            most = self.limits.per_pod - account.count
            for term in terms:
                opening = Opening(account, address, term)
                openings.append(opening)
                way = term.by.way
                key = pair + way.mark
                first = staged.get(key)
                if first is not None:
                    again.append(first)
                elif key not in fresh:
                    fresh[key] = opening
                    opening.held = account.term(address, way)
                    if opening.held is None:
                        count += 1
                        if count > most:
                            return False
            if count > before:
                total += count - before
                new.append((source, count))
        if total > turn.new_total and self._ledger.count + total > self.limits.total:
            return False
        turn.new.update(new)
        turn.new_total = total
        for first in again:
            first.lasts = max(until, first.lasts)
        staged.update(fresh)
        turn.openings += openings
        return True
