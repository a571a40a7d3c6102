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
from enforcer.ways import Permitted, Rule, Way, way_of
from policy.grants import Reason, Reasons, lasts_until

ElementKey = tuple[str, bytes, bytes]
"""Grants set, key, end of key (b"" where it is no range)."""

NEVER = float("-inf")
MAX_REASONS = 64
"""Reasons one element keeps; beyond it the one that ends first makes room."""
MAX_PAST = 1024
"""Destinations of one address whose past grants are remembered, for the reason of a denied packet."""
_NOBODY: Rule = ("", "")


class Holding:
    """One opened tuple. Written by the ledger alone.

    ``until`` is the monotonic instant at which the kernel stops new connections, ``NEVER`` once
    it has been told to; ``realized_at`` the instant of the kernel's first ACK. ``shared`` belongs to
    a ledger that also writes elsewhere: the reason that its record says, None without a record.

    Nearly all have one reason, which lies in the object itself; only more of them have a dictionary.
    """

    __slots__ = (
        "_because", "_more", "_name", "_rule",
        "destination", "realized_at", "shared", "source", "until", "way",
    )  # fmt: skip

    def __init__(self, source: bytes, destination: bytes, way: Way) -> None:
        self.source = source
        self.destination = destination
        self.way = way
        self.until = NEVER
        self.realized_at = 0.0
        self.shared: Reason | None = None
        self._name = ""
        self._rule = _NOBODY
        self._because = NEVER
        """Until when its one reason holds; ``NEVER`` is none at all."""
        self._more: dict[Reason, float] | None = None

    @property
    def key(self) -> ElementKey:
        """Its element in the grants set."""
        return self.way.grants, self.source + self.destination + self.way.tail, b""

    @property
    def reasons(self) -> Reasons:
        """Why it is open, each reason with the instant until which it holds."""
        if self._more is not None:
            return self._more
        if self._because == NEVER:
            return {}
        return {Reason(self._name, *self._rule): self._because}

    @reasons.setter
    def reasons(self, reasons: Reasons) -> None:
        self._more, self._because = None, NEVER
        if len(reasons) == 1:
            for (name, policy, rule), until in reasons.items():
                self._name, self._rule, self._because = name, (policy, rule), until
        elif reasons:
            self._more = dict(reasons)

    @property
    def only(self) -> Reason | None:
        """Its reason, if it has just one."""
        if self._more is not None or self._because == NEVER:
            return None
        return Reason(self._name, *self._rule)

    def because(self, name: str, rule: Rule, until: float) -> None:
        """Take a reason in addition, or the later instant of one that is there."""
        if self._more is None:
            if self._because == NEVER:
                self._name, self._rule, self._because = name, rule, until
                return
            if self._name == name and self._rule == rule:
                self._because = max(until, self._because)
                return
            self._more = {Reason(self._name, *self._rule): self._because}
        reasons, reason = self._more, Reason(name, *rule)
        known = reasons.get(reason)
        if known is None:
            reasons[reason] = until
            if len(reasons) > MAX_REASONS:
                del reasons[min(reasons, key=reasons.__getitem__)]
        elif until > known:
            reasons[reason] = until

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


def holding_of(key: ElementKey) -> Holding:
    """Make a holding of what opens nothing yet, from its element in the grants set."""
    source, destination, way = _parts(key)
    return Holding(source, destination, way)


def _parts(key: ElementKey) -> tuple[bytes, bytes, Way]:
    name, packed, _ = key
    size = 4 if name[-1] == "4" else 16
    return packed[:size], packed[size : 2 * size], way_of(name, packed[2 * size :])


class Opening:
    """One element that is to be opened or prolonged because of one reason, and what the account has of it.

    ``lasts`` is until when the element is to last: the latest of the reasons that one turn has for it.
    """

    __slots__ = ("account", "by", "destination", "holding", "lasts", "name", "until")

    def __init__(self, account: Account, destination: bytes, by: Permitted, name: str, until: float) -> None:
        self.account = account
        self.destination = destination
        self.by = by
        self.name = name
        self.until = until
        self.lasts = until
        self.holding: Holding | None = None

    @property
    def key(self) -> ElementKey:
        """Its element in the grants set."""
        way = self.by.way
        return way.grants, self.account.source + self.destination + way.tail, b""


def opening_of(account: Account, key: ElementKey, reason: Reason, until: float) -> Opening:
    """Return an opening of an element by its key."""
    _, destination, way = _parts(key)
    name, policy, rule = reason
    return Opening(account, destination, Permitted(way, (policy, rule), b""), name, until)


class Past(NamedTuple):
    """The end of a destination's grants: why it was open, when it ended, and whether by revocation."""

    reason: Reason
    ended_at: float
    revoked: bool


Held = Holding | dict[bytes, Holding]
"""What an account has of one destination: mostly one holding, else all of them by their ways' marks."""


class Account:
    """The holdings of one pod address, by destination. Written by the ledger alone."""

    __slots__ = ("comment_end", "count", "destinations", "identity", "past", "source", "tag")

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.source = identity.source
        self.tag = identity.tag()
        self.comment_end = comment_end(self.tag)
        self.destinations: dict[bytes, Held] = {}
        self.count = 0
        self.past: OrderedDict[bytes, Past] = OrderedDict()

    def holdings(self) -> Iterator[Holding]:
        """Iterate over all holdings; do not change the ledger meanwhile."""
        for held in self.destinations.values():
            if isinstance(held, Holding):
                yield held
            else:
                yield from held.values()

    def held(self, destination: bytes) -> list[Holding]:
        """Return the holdings of one destination."""
        held = self.destinations.get(destination)
        if held is None:
            return []
        return [held] if isinstance(held, Holding) else list(held.values())

    def find(self, destination: bytes, way: Way) -> Holding | None:
        """Return the holding of a destination that opens it in this way."""
        held = self.destinations.get(destination)
        if held is None:
            return None
        if isinstance(held, Holding):
            return held if held.way is way or held.way.mark == way.mark else None
        return held.get(way.mark)

    def at(self, key: ElementKey) -> Holding | None:
        """Return the holding of an element of the account's grants."""
        _, destination, way = _parts(key)
        return self.find(destination, way)

    def put(self, holding: Holding) -> None:
        """Take one that is not there yet."""
        held = self.destinations.get(holding.destination)
        if held is None:
            self.destinations[holding.destination] = holding
        elif isinstance(held, Holding):
            self.destinations[holding.destination] = {held.way.mark: held, holding.way.mark: holding}
        else:
            held[holding.way.mark] = holding
        self.count += 1

    def drop(self, holding: Holding) -> bool:
        """Let go of what stands for this element; False if nothing does."""
        destination, mark = holding.destination, holding.way.mark
        held = self.destinations.get(destination)
        if held is None or (isinstance(held, Holding) and held.way.mark != mark):
            return False
        if isinstance(held, dict):
            if held.pop(mark, None) is None:
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
        for each in openings:
            account, until = each.account, each.until
            way = each.by.way
            holding = account.find(each.destination, way)
            if holding is None:
                holding = Holding(account.source, each.destination, way)
                account.put(holding)
                self.count += 1
            if until > holding.until:
                if holding.until <= now:
                    holding.realized_at = now
                holding.until = until
            holding.because(each.name, each.by.rule, until)

    def replace(self, account: Account, holdings: Iterable[Holding]) -> None:
        """See ``Ledger``."""
        self.count -= account.count
        account.destinations = {}
        account.count = 0
        for holding in holdings:
            holding.source = account.source
            account.put(holding)
        self.count += account.count

    def forget(self, account: Account, holding: Holding, ended: Past | None) -> None:
        """See ``Ledger``."""
        if not account.drop(holding):
            return
        self.count -= 1
        if ended is not None:
            remember(account, holding.destination, ended)

    def stop(self, holding: Holding) -> None:
        """See ``Ledger``."""
        holding.until = NEVER


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
