"""The authority: decides every grant request by this process's own snapshot.

Owns the way from a batch of requests to one kernel transaction and its answers. Believes nothing of
a request but "this pod's lookup gave these addresses"; names, pods, addresses and ports are decided
here again. Never opens a socket. Invariants: nothing is adopted, journaled or answered ``realized``
before the kernel's ACK; no request costs more than its own size, whatever it says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from enforcer.elements import Add, Change, Element, Renew, grant_keys, live_twin
from enforcer.identity import comment
from enforcer.journal import Answer, Journal
from enforcer.kernel import KernelRejected
from enforcer.ledger import Account, ElementKey, Holding, Ledger, Opening
from policy.authority import GrantAnswered, GrantRequested, Outcome
from policy.decision import Permit
from policy.grants import Reason
from policy.snapshot import Snapshot

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


def admitted_of(accounts: Iterable[Account]) -> dict[str, Admitted]:
    """Return the accounts by ``namespace/name`` of their pods."""
    by_pod: dict[str, list[Account]] = {}
    for account in accounts:
        by_pod.setdefault(account.identity.key, []).append(account)
    return {
        key: Admitted(
            tuple(each for each in found if len(each.identity.source) == 4),
            tuple(each for each in found if len(each.identity.source) == 16),
        )
        for key, found in by_pod.items()
    }


class Decided(NamedTuple):
    """A request with what became of it."""

    request: GrantRequested
    answer: GrantAnswered


class _Staged(NamedTuple):
    until: float
    account: Account
    reason: Reason
    holding: Holding | None


class _Turn:
    """What one batch is about to do; nothing of it has happened yet."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.staged: dict[ElementKey, _Staged] = {}
        self.openings: list[Opening] = []
        self.grants: list[Answer] = []
        self.new: dict[bytes, int] = {}
        self.new_total = 0

    def changes(self) -> list[Change]:
        """Return the transaction: fresh elements with their live twins, others prolonged."""
        changes: list[Change] = []
        comments: dict[tuple[str, Reason], bytes] = {}
        for (name, key, end), (until, account, reason, holding) in self.staged.items():
            if holding is not None and until <= holding.until:
                continue
            said = comments.get((account.tag, reason))
            if said is None:
                said = comment(account.tag, reason.policy, reason.rule, reason.name)
                comments[account.tag, reason] = said
            element = Element(name, key, end, int((until - self.now) * 1000) + 1, said)
            if holding is None:
                changes.append(Add(element))
                changes.append(Add(Element(live_twin(name), key, end, 0, said)))
            else:
                changes.append(Renew(element))
        return changes


class Authority:
    """Decides requests, opens what they may open, and says what became of each."""

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        commit: Callable[[Sequence[Change]], None],
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
        self.realized: Callable[[Opening], None] | None = None

    def answer(
        self, requests: Sequence[GrantRequested], now: float
    ) -> tuple[list[Decided], list[GrantRequested]]:
        """Decide a batch in one transaction. Returns what is decided, and what has to wait for its pod.

        If the kernel refuses the batch, each request is tried alone, so that one refusal is
        one request's.
        """
        turn = _Turn(now)
        decided: list[Decided] = []
        waiting: list[GrantRequested] = []
        for request in requests:
            answer = self._decide(request, turn)
            if answer is None:
                waiting.append(request)
            else:
                decided.append(Decided(request, answer))
        if not self._realize(turn):
            alone = [self._alone(each.request, now) for each in decided]
            return alone, waiting
        self._count(decided)
        return decided, waiting

    def refuse(self, request: GrantRequested, reason: str) -> Decided:
        """Answer a request that waited in vain for its pod."""
        decided = Decided(request, self._refusal(request, "failed", reason))
        self._count([decided])
        return decided

    def _alone(self, request: GrantRequested, now: float) -> Decided:
        turn = _Turn(now)
        answer = self._decide(request, turn)
        if answer is None or not self._realize(turn):
            answer = self._refusal(request, "failed", "the kernel refused the elements")
        decided = Decided(request, answer)
        self._count([decided])
        return decided

    def _realize(self, turn: _Turn) -> bool:
        changes = turn.changes()
        if changes:
            try:
                self._commit(changes)
            except KernelRejected:
                self.kernel_errors += 1
                return False
        if turn.openings:
            self._ledger.adopt(turn.openings, turn.now)
            self.last_realized_at = turn.now
            for answer in turn.grants:
                self._journal.granted(answer)
            if self.realized is not None:
                for opening in turn.openings:
                    self.realized(opening)
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
        outcomes: list[Outcome] = []
        opened: list[bytes] = []
        reason = ""
        for address in request.addresses:
            size = len(address)
            accounts = admitted.v4 if size == 4 else admitted.v6 if size == 16 else ()
            at = access.at(address) if accounts else None
            if at is None or not at.permits:
                outcomes.append("denied")
                reason = reason or (at.reason if at else "the pod has no address of that family")
            elif self._stage(turn, accounts, address, permits=at.permits, name=request.name, until=until):
                outcomes.append("realized")
                opened.append(address)
            else:
                outcomes.append("limit")
                reason = "grant limit"
        if opened:
            tags = tuple(account.tag for account in (*admitted.v4, *admitted.v6))
            turn.grants.append(Answer(tags, request.name, tuple(opened), until, turn.now))
        remaining_s = until - turn.now if opened else 0.0
        return GrantAnswered(request.id, snapshot.generation, tuple(outcomes), remaining_s, reason)

    def _stage(
        self,
        turn: _Turn,
        accounts: tuple[Account, ...],
        address: bytes,
        *,
        permits: tuple[Permit, ...],
        name: str,
        until: float,
    ) -> bool:
        """Stage one address for all of the pod's addresses of its family; False: beyond a limit."""
        staged = turn.staged
        fresh: dict[ElementKey, _Staged] = {}
        openings: list[Opening] = []
        for account in accounts:
            source = account.identity.source
            held = account.destinations.get(address)
            for permit in permits:
                reason = Reason(name, permit.policy, permit.rule)
                for key in grant_keys(source, address, permit):
                    openings.append(Opening(account, key, address, reason, until))
                    before = staged.get(key)
                    if before is None:
                        fresh[key] = _Staged(until, account, reason, held.get(key) if held else None)
                    elif before.until < until:
                        fresh[key] = before._replace(until=until)
        if not self._within_limits(turn, fresh):
            return False
        staged.update(fresh)
        turn.openings += openings
        return True

    def _within_limits(self, turn: _Turn, fresh: dict[ElementKey, _Staged]) -> bool:
        new: dict[bytes, int] = {}
        for key, each in fresh.items():
            if each.holding is None and key not in turn.staged:
                source = each.account.identity.source
                new[source] = new.get(source, 0) + 1
                if each.account.count + turn.new.get(source, 0) + new[source] > self.limits.per_pod:
                    return False
        total = sum(new.values())
        if self._ledger.count + turn.new_total + total > self.limits.total:
            return False
        for source, count in new.items():
            turn.new[source] = turn.new.get(source, 0) + count
        turn.new_total += total
        return True
