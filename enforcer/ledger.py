"""What is open on this node and why: the grants with all their reasons.

Owns the in-memory truth about grants, which changes only after the kernel acknowledged the
same change. Never talks to the kernel, never decides. Invariant: a holding exists exactly while
the kernel holds its ``live`` element; ``until`` is when its ``grants`` element ends.

``Ledger`` is the seam behind which a shared state (Redis) can stand beside the memory one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from enforcer.elements import Opening as Opens
from enforcer.elements import describe
from enforcer.identity import Identity, comment_end
from enforcer.terms import NEVER, Term, term_of
from enforcer.ways import Way, way_of
from policy.grants import Reason, Reasons, lasts_until

ElementKey = tuple[str, bytes, bytes]
"""Grants set, key, end of key (b"" where it is no range)."""

MAX_PAST = 1024
"""Destinations of one address whose past grants are remembered, for the reason of a denied packet."""


class Holding:
    """One opened tuple, as an account has it or is to have it: made when somebody looks, kept by nobody."""

    __slots__ = ("account", "destination", "term")

    def __init__(self, account: Account, destination: bytes, term: Term) -> None:
        self.account = account
        self.destination = destination
        self.term = term

    @property
    def source(self) -> bytes:
        """The pod's packed address."""
        return self.account.source

    @property
    def way(self) -> Way:
        """How it is open."""
        return self.term.by.way

    @property
    def until(self) -> float:
        """See ``Term``."""
        return self.term.until

    @property
    def realized_at(self) -> float:
        """See ``Term``."""
        return self.term.realized_at

    @property
    def reasons(self) -> Reasons:
        """See ``Term``."""
        return self.term.reasons

    @property
    def only(self) -> Reason | None:
        """See ``Term``."""
        return self.term.only

    @property
    def shared(self) -> Reason | None:
        """The reason that its record elsewhere says; None without a record."""
        return self.account.recorded.get(self.destination + self.way.mark)

    @shared.setter
    def shared(self, said: Reason | None) -> None:
        if said is None:
            self.account.recorded.pop(self.destination + self.way.mark, None)
        else:
            self.account.recorded[self.destination + self.way.mark] = said

    @property
    def key(self) -> ElementKey:
        """Its element in the grants set."""
        way = self.way
        return way.grants, self.source + self.destination + way.tail, b""

    @property
    def opens(self) -> Opens:
        """What it opens, read from its key when somebody asks (most grants end unasked)."""
        name, key, _ = self.key
        return describe(name, key)

    def covers(self, protocol: str, port: int) -> bool:
        """Say whether a packet of that protocol and port belongs to it."""
        _, _, mine, first, last = self.opens
        if mine == "any":
            return True
        return mine == protocol and (protocol not in {"tcp", "udp"} or first <= port <= last)


def parts(key: ElementKey) -> tuple[bytes, bytes, Way]:
    """Return an element's source and destination and the way that it opens."""
    name, packed, _ = key
    size = 4 if name[-1] == "4" else 16
    return packed[:size], packed[size : 2 * size], way_of(name, packed[2 * size :])


class Opening:
    """One element that is to be opened or prolonged because of one reason; ``held`` is what is open of it.

    ``lasts`` is until when the element is to last: the latest of the reasons that one turn has for it.
    """

    __slots__ = ("account", "destination", "held", "lasts", "term")

    def __init__(self, account: Account, destination: bytes, term: Term) -> None:
        self.account = account
        self.destination = destination
        self.term = term
        self.lasts = term.until
        self.held: Term | None = None

    @property
    def key(self) -> ElementKey:
        """Its element in the grants set."""
        way = self.term.by.way
        return way.grants, self.account.source + self.destination + way.tail, b""


def opening_of(account: Account, key: ElementKey, reason: Reason, until: float) -> Opening:
    """Return an opening of an element by its key."""
    _, destination, way = parts(key)
    return Opening(account, destination, term_of(way, {reason: until}, until, 0.0))


class Past(NamedTuple):
    """The end of a destination's grants: why it was open, when it ended, and whether by revocation."""

    reason: Reason
    ended_at: float
    revoked: bool


Held = Term | dict[bytes, Term]
"""What an account has of one destination: mostly one term, else all of them by their ways' marks."""


class Account:
    """What is open for one pod address, by destination. Written by the ledger alone.

    ``recorded`` belongs to a ledger that also writes elsewhere: what its records say, by destination and
    the way's mark.
    """

    __slots__ = ("comment_end", "count", "destinations", "identity", "past", "recorded", "source", "tag")

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.source = identity.source
        self.tag = identity.tag()
        self.comment_end = comment_end(self.tag)
        self.destinations: dict[bytes, Held] = {}
        self.count = 0
        self.past: OrderedDict[bytes, Past] = OrderedDict()
        self.recorded: dict[bytes, Reason] = {}

    def terms(self) -> Iterator[Term]:
        """Iterate over all terms, one for each holding; do not change the ledger meanwhile."""
        for held in self.destinations.values():
            if isinstance(held, Term):
                yield held
            else:
                yield from held.values()

    def holdings(self) -> Iterator[Holding]:
        """Iterate over all holdings; do not change the ledger meanwhile."""
        for destination in self.destinations:
            yield from self.held(destination)

    def held(self, destination: bytes) -> list[Holding]:
        """Return the holdings of one destination."""
        held = self.destinations.get(destination)
        if held is None:
            return []
        if isinstance(held, Term):
            return [Holding(self, destination, held)]
        return [Holding(self, destination, term) for term in held.values()]

    def over(self, destination: bytes, before: float) -> list[Holding]:
        """Return the holdings of one destination that admit nothing new since before that instant."""
        held = self.destinations.get(destination)
        if isinstance(held, Term) and held.until >= before:
            return []
        return [each for each in self.held(destination) if each.until < before]

    def term(self, destination: bytes, way: Way) -> Term | None:
        """Return the term of a destination that is open in this way."""
        held = self.destinations.get(destination)
        if held is None:
            return None
        if isinstance(held, Term):
            its = held.by.way
            return held if its is way or its.mark == way.mark else None
        return held.get(way.mark)

    def find(self, destination: bytes, way: Way) -> Holding | None:
        """Return the holding of a destination that opens it in this way."""
        term = self.term(destination, way)
        return Holding(self, destination, term) if term is not None else None

    def at(self, key: ElementKey) -> Holding | None:
        """Return the holding of an element of the account's grants."""
        _, destination, way = parts(key)
        return self.find(destination, way)

    def put(self, destination: bytes, term: Term) -> None:
        """Take one, in place of what is open in the same way."""
        held, way = self.destinations.get(destination), term.by.way
        if held is None:
            self.destinations[destination] = term
        elif isinstance(held, dict):
            self.count -= way.mark in held
            held[way.mark] = term
        elif held.by.way.mark == way.mark:
            self.destinations[destination] = term
            return
        else:
            self.destinations[destination] = {held.by.way.mark: held, way.mark: term}
        self.count += 1

    def drop(self, destination: bytes, way: Way) -> bool:
        """Let go of what opens a destination in this way; False if nothing does."""
        held = self.destinations.get(destination)
        if held is None or (isinstance(held, Term) and held.by.way.mark != way.mark):
            return False
        if isinstance(held, dict):
            if held.pop(way.mark, None) is None:
                return False
            if len(held) == 1:
                self.destinations[destination] = next(iter(held.values()))
        else:
            del self.destinations[destination]
        self.count -= 1
        return True


class Ledger(Protocol):
    """What the enforcer asks of whoever keeps its grants."""

    @property
    def accounts(self) -> dict[bytes, Account]:
        """Accounts by packed source address."""

    @property
    def count(self) -> int:
        """Holdings in all accounts."""

    def open_account(self, identity: Identity) -> Account:
        """Start an empty account for the identity, in place of whatever the address had."""

    def close_account(self, source: bytes) -> None:
        """Forget an address and everything about it."""

    def adopt(self, openings: Sequence[Opening], now: float) -> None:
        """Take over what the kernel has acknowledged."""

    def replace(self, account: Account, holdings: Iterable[Holding]) -> None:
        """Make ``holdings`` all that the account has (after a revision the kernel has acknowledged)."""

    def forget(self, account: Account, holding: Holding, ended: Past | None) -> None:
        """Drop one holding whose elements the kernel has removed."""

    def stop(self, holding: Holding) -> None:
        """Note that the holding admits no new connection any more."""


class MemoryLedger:
    """The ledger of one node, in memory."""

    def __init__(self) -> None:
        self.accounts: dict[bytes, Account] = {}
        self.count = 0

    def open_account(self, identity: Identity) -> Account:
        """See ``Ledger``."""
        self.close_account(identity.source)
        account = self.accounts[identity.source] = Account(identity)
        return account

    def close_account(self, source: bytes) -> None:
        """See ``Ledger``."""
        account = self.accounts.pop(source, None)
        if account is not None:
            self.count -= account.count
            account.destinations = {}
            account.count = 0

    def adopt(self, openings: Sequence[Opening], now: float) -> None:
        """See ``Ledger``."""
        joined: dict[int, tuple[Term, Term, Term]] = {}  # so that what shared a term shares the next
        for each in openings:
            account, destination, term = each.account, each.destination, each.term
            held = account.term(destination, term.by.way)
            if held is None:
                term.realized_at = now
                account.put(destination, term)
                self.count += 1
                continue
            made = joined.get(id(held))
            if made is None or made[0] is not held or made[1] is not term:
                made = joined[id(held)] = held, term, held.joined(term, now)
            account.put(destination, made[2])

    def replace(self, account: Account, holdings: Iterable[Holding]) -> None:
        """See ``Ledger``."""
        self.count -= account.count
        account.destinations = {}
        account.count = 0
        terms: dict[tuple[object, ...], Term] = {}
        for holding in holdings:
            account.put(holding.destination, terms.setdefault(holding.term.said, holding.term))
        self.count += account.count

    def forget(self, account: Account, holding: Holding, ended: Past | None) -> None:
        """See ``Ledger``."""
        if not account.drop(holding.destination, holding.way):
            return
        self.count -= 1
        if ended is not None:
            remember(account, holding.destination, ended)

    def stop(self, holding: Holding) -> None:
        """See ``Ledger``."""
        holding.term = term_of(holding.way, holding.reasons, NEVER, holding.realized_at)
        holding.account.put(holding.destination, holding.term)


def remember(account: Account, destination: bytes, ended: Past) -> None:
    """Keep the end of a destination's grant, bounded, the oldest going first."""
    account.past[destination] = ended
    account.past.move_to_end(destination)
    if len(account.past) > MAX_PAST:
        account.past.popitem(last=False)


def latest_reason(reasons: Reasons) -> Reason:
    """Return the reason that lasts longest (there is at least one)."""
    until = lasts_until(reasons)
    return min(reason for reason, each in reasons.items() if each == until)
