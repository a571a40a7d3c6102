"""The ledger of a node that shares its grants: the one in memory, which also marks what changed.

Pure. Owns when a grant's record has to be looked at again. Never waits, never writes: ``Publisher`` does,
later, from what the ledger then says. Invariant: after each call, every grant whose record (as far as one
was sent) says something else than the ledger is marked, or Redis is lost and all of them count as marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from enforcer.ledger import Account, ElementKey, Holding, MemoryLedger, Opening, Past
from enforcer.sharing.publishing.outbox import Outbox


class RedisLedger(MemoryLedger):
    """See the module."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__()
        self.outbox = outbox

    def close_account(self, source: bytes) -> None:
        """See ``Ledger``; all its records go."""
        account = self.accounts.get(source)
        if account is not None:
            for holding in account.holdings():
                self.outbox.end(holding)
        super().close_account(source)

    def adopt(self, openings: Sequence[Opening], now: float) -> None:
        """See ``Ledger``."""
        super().adopt(openings, now)
        self.outbox.touch([each.key for each in openings])

    def replace(self, account: Account, holdings: Iterable[Holding]) -> None:
        """See ``Ledger``; a holding has the record of the one that it follows."""
        before = {holding.key: holding for holding in account.holdings()}
        super().replace(account, holdings)
        changed: list[ElementKey] = []
        for holding in account.holdings():
            key = holding.key
            was = before.pop(key, None)
            if was is not None:
                if holding.until < was.until and was.shared is not None:
                    self.outbox.bury(key, was.until)
                if holding.until == was.until and holding.reasons == was.reasons:
                    continue
            changed.append(key)
        for holding in before.values():
            self.outbox.end(holding)
        if changed:
            self.outbox.touch(changed)

    def forget(self, account: Account, holding: Holding, ended: Past | None) -> None:
        """See ``Ledger``."""
        held = account.find(holding.destination, holding.way)
        if held is not None:
            self.outbox.end(held)
        super().forget(account, holding, ended)

    def stop(self, holding: Holding) -> None:
        """See ``Ledger``; what admits no new connection is no grant to show."""
        self.outbox.end(holding)
        super().stop(holding)
