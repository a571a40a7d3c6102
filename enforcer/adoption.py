"""Adoption: what an earlier enforcer left in the kernel, with names, by the journal's word.

Pure but for reading sets. Owns the match of elements with the journal. Decides nothing: the holdings it
makes carry names without rules, and are decided again (``enforcer.revision``) before anything else.
Invariant: an element that the journal does not explain for the identity in its comment is taken away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from enforcer.doors import KernelDoor
from enforcer.elements import GRANT_SETS, InstalledElement, describe, live_twin
from enforcer.identity import tag_of
from enforcer.journal import Kept
from enforcer.ledger import NEVER, Account, ElementKey, Holding, Ledger
from policy.grants import Reason

Answers = Mapping[str, Mapping[bytes, Mapping[str, Kept]]]


class Adopted(NamedTuple):
    """``unexplained`` are to be taken away; ``halves`` are grants whose live twin is missing."""

    unexplained: list[ElementKey]
    halves: list[ElementKey]
    count: int


def adopt(kernel: KernelDoor, ledger: Ledger, answers: Answers, now: float) -> Adopted:
    """Fill the ledger's (empty) accounts with what the kernel holds and the journal explains."""
    unexplained: list[ElementKey] = []
    halves: list[ElementKey] = []
    found: dict[bytes, dict[ElementKey, Holding]] = {}
    for name in GRANT_SETS:
        twins = kernel.elements(live_twin(name))
        live = {each.key for each in twins}
        for each in kernel.elements(name):
            if _explain(name, name, each, ledger.accounts, answers, found, now):
                if each.key not in live:
                    halves.append((live_twin(name), each.key, b""))
            else:
                unexplained.append((name, each.key, b""))
        for each in twins:
            if not _explain(name, live_twin(name), each, ledger.accounts, answers, found, now):
                unexplained.append((live_twin(name), each.key, b""))
    for source, holdings in found.items():
        ledger.replace(ledger.accounts[source], holdings.values())
    return Adopted(unexplained, halves, sum(len(holdings) for holdings in found.values()))


def _explain(
    grants: str,
    name: str,
    element: InstalledElement,
    accounts: Mapping[bytes, Account],
    answers: Answers,
    found: dict[bytes, dict[ElementKey, Holding]],
    now: float,
) -> bool:
    opening = describe(name, element.key)
    account = accounts.get(opening.pod)
    if account is None or tag_of(element.comment) != account.tag:
        return False
    names = answers.get(account.tag, {}).get(opening.destination)
    if not names:
        return False
    key = (grants, element.key, b"")
    holdings = found.setdefault(opening.pod, {})
    holding = holdings.get(key)
    if holding is None:
        holding = holdings[key] = Holding(key)
        holding.reasons = {Reason(known, "", ""): kept.until for known, kept in names.items()}
        holding.realized_at = min(kept.at for kept in names.values())
    if name == grants:
        remaining_ms = element.expires_ms or 0
        holding.until = max(holding.until, now + remaining_ms / 1000 if remaining_ms else NEVER)
    return True
