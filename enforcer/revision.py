"""Deciding again: what a snapshot makes of everything that is already open.

Pure. Each holding is decided as a tuple (pod, name, address, protocol, ports): still permitted → kept and
attributed to the rule that now permits it; newly permitted ports of a live answer → added; else
revoked. Takes the account as it is and returns what to change and what to adopt afterwards; changes
nothing itself. Invariant: revising twice by the same snapshot changes nothing the second time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from enforcer.elements import Add, Change, Element, Renew, describe, grant_keys, live_twin
from enforcer.identity import comment
from enforcer.journal import Kept
from enforcer.ledger import Account, ElementKey, Holding, latest_reason, parts
from enforcer.terms import NEVER, term_of
from enforcer.ways import Way
from policy.grants import Reason, Reasons, lasts_until
from policy.pods import Pod
from policy.snapshot import Snapshot

OnRevoke = Literal["cut", "keep"]
LEEWAY_S = 1.0
"""How far the kernel's clock of an element and ours may be apart."""


class Revoked(NamedTuple):
    """A holding whose permit was taken away; with ``keep`` its flows may finish."""

    holding: Holding
    reasons: tuple[Reason, ...]
    cut: bool


class Revision(NamedTuple):
    """One account: elements to take away, other changes, and what it holds once they are done."""

    account: Account
    taken: tuple[ElementKey, ...]
    changes: tuple[Change, ...]
    holdings: tuple[Holding, ...]
    revoked: tuple[Revoked, ...]


class _Wanted:
    """A tuple that the snapshot permits, with the reasons of today."""

    __slots__ = ("destination", "reasons", "since", "way")

    def __init__(self, key: ElementKey, since: float) -> None:
        _, self.destination, self.way = parts(key)
        self.since = since
        self.reasons: dict[Reason, float] = {}


Answers = Mapping[bytes, Mapping[str, Kept]]
"""Destination → name → until when (and since when) the name's answer holds."""


def answers_of(account: Account) -> dict[bytes, dict[str, Kept]]:
    """Return the answers that the account's holdings stand for."""
    answers: dict[bytes, dict[str, Kept]] = {}
    for destination in account.destinations:
        names: dict[str, Kept] = {}
        for holding in account.held(destination):
            for reason, until in holding.reasons.items():
                before = names.get(reason.name)
                if before is None or before.until < until:
                    names[reason.name] = Kept(until, holding.realized_at)
        answers[destination] = names
    return answers


def revise(
    account: Account,
    pod: Pod,
    snapshot: Snapshot,
    *,
    now: float,
    on_revoke: OnRevoke,
    answers: Answers | None = None,
) -> Revision:
    """Decide everything of the account again; ``answers`` adds what is known from a journal."""
    known = answers_of(account) if answers is None else answers
    revising = _Revising(account, now, cuts=on_revoke == "cut")
    size = len(account.identity.source)
    for destination in {**account.destinations, **known}:
        if len(destination) != size:
            continue  # a journal's answer, for the pod's address of the other family
        wanted = _wanted(account.identity.source, destination, known.get(destination, {}), pod, snapshot)
        revising.decide(account.held(destination), wanted)
    return revising.revision()


def close(account: Account, now: float) -> Revision:
    """Take everything of an account away: its pod is gone, or is another now."""
    revising = _Revising(account, now, cuts=True)
    for destination in account.destinations:
        revising.decide(account.held(destination), {})
    return revising.revision()


class _Revising:
    """Collects what follows from deciding again, destination by destination."""

    def __init__(self, account: Account, now: float, *, cuts: bool) -> None:
        self._account = account
        self._now = now
        self._cuts = cuts
        self._taken: list[ElementKey] = []
        self._changes: list[Change] = []
        self._holdings: list[Holding] = []
        self._revoked: list[Revoked] = []

    def revision(self) -> Revision:
        """Return everything collected."""
        return Revision(
            self._account,
            tuple(self._taken),
            tuple(self._changes),
            tuple(self._holdings),
            tuple(self._revoked),
        )

    def decide(self, holdings: Iterable[Holding], wanted: Mapping[ElementKey, _Wanted]) -> None:
        """Compare what one destination has with what is permitted of it."""
        moved: list[Holding] = []
        held = {holding.key: holding for holding in holdings}
        for key, holding in held.items():
            if key in wanted:
                continue
            if any(_overlaps(holding, other) for other in wanted):
                moved.append(holding)  # permitted still, in another form: wider, narrower, any port
            elif self._cuts or holding.until > NEVER:
                self._revoked.append(Revoked(holding, tuple(holding.reasons), self._cuts))
            if self._cuts:
                self._take(holding)
            else:
                self._stop(holding)
        for key, each in wanted.items():
            replaces = any(_overlaps(holding, key) for holding in moved)
            self._keep(key, each, held.get(key), replaces=replaces)

    def _take(self, holding: Holding) -> None:
        """Take both elements away."""
        name, key, end = holding.key
        if holding.until > self._now - LEEWAY_S:
            self._taken.append(holding.key)
        self._taken.append((live_twin(name), key, end))

    def _stop(self, holding: Holding) -> None:
        """Admit no new connection; those that live may finish."""
        if holding.until > self._now - LEEWAY_S:
            self._taken.append(holding.key)
        self._hold(holding.destination, holding.way, holding.reasons, NEVER, holding.realized_at)

    def _keep(self, key: ElementKey, wanted: _Wanted, holding: Holding | None, *, replaces: bool) -> None:
        """Keep, add, shorten or stop one tuple that the snapshot permits."""
        now, until = self._now, lasts_until(wanted.reasons)
        if holding is None and until <= now and not replaces:
            return  # an answer that is over opens nothing new
        name, packed, end = key
        reason = latest_reason(wanted.reasons)
        said = comment(self._account.tag, reason.policy, reason.rule, reason.name)
        if holding is None:
            self._changes.append(Add(Element(live_twin(name), packed, end, 0, said)))
        open_until = holding.until if holding is not None and holding.until > now else NEVER
        lasts = open_until
        if until <= now:
            if open_until > NEVER:
                self._taken.append(key)
            lasts = NEVER
        elif abs(open_until - until) > LEEWAY_S or open_until < until:
            element = Element(name, packed, end, int((until - now) * 1000) + 1, said)
            self._changes.append(Add(element) if holding is None else Renew(element))
            lasts = until
        since = wanted.since if holding is None else holding.realized_at
        self._hold(wanted.destination, wanted.way, wanted.reasons, lasts, since)

    def _hold(self, destination: bytes, way: Way, reasons: Reasons, until: float, since: float) -> None:
        self._holdings.append(Holding(self._account, destination, term_of(way, reasons, until, since)))


def _wanted(
    source: bytes, destination: bytes, names: Mapping[str, Kept], pod: Pod, snapshot: Snapshot
) -> dict[ElementKey, _Wanted]:
    wanted: dict[ElementKey, _Wanted] = {}
    for name, kept in names.items():
        access = snapshot.access(pod, name)
        if not access.resolvable:
            continue
        for permit in access.at(destination).permits:
            reason = Reason(name, permit.policy, permit.rule)
            for key in grant_keys(source, destination, permit):
                each = wanted.get(key)
                if each is None:
                    each = wanted[key] = _Wanted(key, kept.at)
                each.reasons[reason] = max(kept.until, each.reasons.get(reason, NEVER))
    return wanted


def _overlaps(holding: Holding, wanted: ElementKey) -> bool:
    mine, its = holding.opens, describe(wanted[0], wanted[1])
    if "any" in {mine.protocol, its.protocol}:
        return True
    return mine.protocol == its.protocol and mine.first <= its.last and its.first <= mine.last
