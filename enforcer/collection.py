"""Collection of ``live`` elements whose grant is over and that no flow uses any more.

Owns when and what; seldom, and with the conntrack dump off the loop. Invariant: a holding goes only
if its grant had expired before the dump began, has not been prolonged since, and the dump showed no flow
of it. A stale one opens nothing new, so nothing here is urgent but the limit on grants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from enforcer.doors import FlowsDoor, FlowTuple, KernelDoor, OffLoop
from enforcer.kernel import KernelRejected
from enforcer.ledger import Account, Holding, Ledger, Past, latest_reason
from policy.grants import lasts_until

SETTLED_S = 2.0
"""A grant is over for the collection this long after its end: its last flow is in conntrack then."""
PIECE = 100
"""Holdings collected in one turn of the loop: as long as a few lookups."""
LOOKED_AT = 4000
"""Destinations looked at in one turn of the loop: under a millisecond."""


class Collection:
    """Collects, one round at a time."""

    def __init__(
        self,
        *,
        kernel: KernelDoor,
        flows: FlowsDoor,
        ledger: Ledger,
        off_loop: OffLoop,
        next_turn: Callable[[Callable[[], None]], object],
        now: Callable[[], float],
    ) -> None:
        self._kernel = kernel
        self._flows = flows
        self._ledger = ledger
        self._off_loop = off_loop
        self._next_turn = next_turn
        self._now = now
        self.is_running = False
        self.collected = 0

    def begin(self) -> None:
        """Start a round unless one is running or nothing is over."""
        if self.is_running:
            return
        self.is_running = True
        self._look(self._destinations(), [], self._now() - SETTLED_S)

    def _destinations(self) -> Iterator[tuple[Account, bytes]]:
        """All there are, an account as it is when its turn comes."""
        for account in list(self._ledger.accounts.values()):
            for destination in list(account.destinations):
                yield account, destination

    def _look(
        self, rest: Iterator[tuple[Account, bytes]], over: list[tuple[Account, Holding]], before: float
    ) -> None:
        """Find what is over, piece by piece; then ask which of it is in use."""
        looked_at = 0
        for account, destination in islice(rest, LOOKED_AT):
            looked_at += 1
            over += [(account, each) for each in account.over(destination, before)]
        if looked_at == LOOKED_AT:
            self._next_turn(lambda: self._look(rest, over, before))
            return
        if not over:
            self.is_running = False
            return
        pairs = {(account.source, holding.destination) for account, holding in over}
        self._off_loop(lambda: self._flows.used(pairs), lambda used: self._judge(over, used, before))

    def _judge(self, over: list[tuple[Account, Holding]], used: set[FlowTuple], before: float) -> None:
        by_pair: dict[tuple[bytes, bytes], list[tuple[str, int]]] = {}
        for source, destination, protocol, port in used:
            by_pair.setdefault((source, destination), []).append((protocol, port))
        unused = (
            (account, holding)
            for account, holding in over
            if (flows := by_pair.get((account.source, holding.destination))) is None
            or not any(holding.covers(protocol, port) for protocol, port in flows)
        )
        self._collect(unused, before)

    def _collect(self, unused: Iterator[tuple[Account, Holding]], before: float) -> None:
        looked_at = list(islice(unused, PIECE))
        if not looked_at:
            self.is_running = False
            return
        piece = [each for each in looked_at if self._is_held(*each)]
        try:
            self._kernel.commit_ends(
                [(holding.way, holding.source + holding.destination) for _, holding in piece]
            )
        except KernelRejected:
            self.is_running = (
                False  # the repair that follows leaves nothing to collect, or the next round does
            )
            return
        for account, holding in piece:
            reason = latest_reason(holding.reasons)
            self._ledger.forget(account, holding, Past(reason, lasts_until(holding.reasons), revoked=False))
            self.collected += 1
        self._next_turn(lambda: self._collect(unused, before))

    def _is_held(self, account: Account, holding: Holding) -> bool:
        """Say whether the ledger still has this very term of it (it may have been prolonged, or revised)."""
        if self._ledger.accounts.get(account.identity.source) is not account:
            return False
        return account.term(holding.destination, holding.way) is holding.term
