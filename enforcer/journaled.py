"""What a new journal begins with: the answers of the one before it, or those that the ledger stands for.

Pure. Never reads or writes a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from enforcer.journal import Answer, Kept
from enforcer.ledger import Ledger


def replayed_answers(replayed: Mapping[str, Mapping[bytes, Mapping[str, Kept]]]) -> list[Answer]:
    """Return a replayed journal's answers as lines of a new one."""
    return [
        Answer((tag,), name, (destination,), kept.until, kept.at)
        for tag, destinations in replayed.items()
        for destination, names in destinations.items()
        for name, kept in names.items()
    ]


def known_answers(ledger: Ledger) -> tuple[list[str], Iterator[Answer]]:
    """Return who is admitted, and (lazily) every answer that the ledger stands for."""
    accounts = list(ledger.accounts.values())
    return [account.tag for account in accounts], (
        Answer((account.tag,), reason.name, (holding.destination,), until, holding.realized_at)
        for account in accounts
        for holding in list(account.holdings())
        for reason, until in holding.reasons.items()
    )
