"""What is open on this node and why: the grants with all their reasons.

Owns the in-memory truth about grants, which changes only after the kernel acknowledged the
same change. Never talks to the kernel, never decides. Invariant: a holding exists exactly while
the kernel holds its ``live`` element; ``until`` is when its ``grants`` element ends.

``Ledger`` is the seam behind which a shared state (Redis) can stand beside the memory one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from enforcer.elements import Opening as Opens
from enforcer.elements import describe
from enforcer.identity import Identity
from policy.grants import Reason, Reasons, lasts_until

ElementKey = tuple[str, bytes, bytes]
"""Grants set, key, end of key (b"" where it is no range)."""

NEVER = float("-inf")
MAX_REASONS = 64
"""Reasons one element keeps; beyond it the one that ends first makes room."""
MAX_PAST = 1024
"""Destinations of one address whose past grants are remembered, for the reason of a denied packet."""


class Holding:
    """One opened tuple. Written by the ledger alone.

    ``until`` is the monotonic instant at which the kernel stops new connections, ``NEVER`` once
    it has been told to; ``realized_at`` the instant of the kernel's first ACK. ``shared`` belongs to
    a ledger that also writes elsewhere: the reason that its record says, None without a record.
    """

    __slots__ = ("key", "realized_at", "reasons", "shared", "until")

    def __init__(self, key: ElementKey) -> None:
        self.key = key
        self.reasons: dict[Reason, float] = {}
        self.until = NEVER
        self.realized_at = 0.0
        self.shared: Reason | None = None

    @property
    def opens(self) -> Opens:
        """What it opens, read from its key when somebody asks (most grants end unasked)."""
        return describe(self.key[0], self.key[1])

    @property
    def destination(self) -> bytes:
        """The packed address that it opens."""
        return self.opens.destination

    def covers(self, protocol: str, port: int) -> bool:
        """Say whether a packet of that protocol and port belongs to it."""
        _, _, mine, first, last = self.opens
        if mine == "any":
            return True
        return mine == protocol and (protocol not in {"tcp", "udp"} or first <= port <= last)


class Opening(NamedTuple):
    """One element that the kernel opened or prolonged, because of one reason."""

    account: Account
    key: ElementKey
    destination: bytes
    reason: Reason
    until: float


class Past(NamedTuple):
    """The end of a destination's grants: why it was open, when it ended, and whether by revocation."""

    reason: Reason
    ended_at: float
    revoked: bool


class Account:
    """The holdings of one pod address, by destination. Written by the ledger alone."""

    __slots__ = ("count", "destinations", "identity", "past", "tag")

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.tag = identity.tag()
        self.destinations: dict[bytes, dict[ElementKey, Holding]] = {}
        self.count = 0
        self.past: OrderedDict[bytes, Past] = OrderedDict()

    def holdings(self) -> Iterator[Holding]:
        """Iterate over all holdings; do not change the ledger meanwhile."""
        for held in self.destinations.values():
            yield from held.values()


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

    def adopt(self, openings: Iterable[Opening], now: float) -> None:
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

    def adopt(self, openings: Iterable[Opening], now: float) -> None:
        """See ``Ledger``."""
        for account, key, destination, reason, until in openings:
            held = account.destinations.get(destination)
            if held is None:
                held = account.destinations[destination] = {}
            holding = held.get(key)
            if holding is None:
                holding = held[key] = Holding(key)
                account.count += 1
                self.count += 1
            reasons = holding.reasons
            if until > holding.until:
                if holding.until <= now:
                    holding.realized_at = now
                holding.until = until
            known = reasons.get(reason)
            if known is None:
                reasons[reason] = until
                if len(reasons) > MAX_REASONS:
                    del reasons[min(reasons, key=reasons.__getitem__)]
            elif until > known:
                reasons[reason] = until

    def replace(self, account: Account, holdings: Iterable[Holding]) -> None:
        """See ``Ledger``."""
        self.count -= account.count
        account.destinations = {}
        account.count = 0
        for holding in holdings:
            account.destinations.setdefault(holding.destination, {})[holding.key] = holding
            account.count += 1
        self.count += account.count

    def forget(self, account: Account, holding: Holding, ended: Past | None) -> None:
        """See ``Ledger``."""
        held = account.destinations.get(holding.destination)
        if held is None or held.pop(holding.key, None) is None:
            return
        if not held:
            del account.destinations[holding.destination]
        account.count -= 1
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
