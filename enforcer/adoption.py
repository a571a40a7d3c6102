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
from enforcer.ledger import Account, ElementKey, Holding, Ledger, parts
from enforcer.terms import NEVER, term_of
from policy.grants import Reason

Answers = Mapping[str, Mapping[bytes, Mapping[str, Kept]]]


class Adopted(NamedTuple):
    """``unexplained`` are to be taken away; ``halves`` are grants whose live twin is missing."""

    unexplained: list[ElementKey]
    halves: list[ElementKey]
    explained: int


def adopt(kernel: KernelDoor, ledger: Ledger, answers: Answers, now: float) -> Adopted:
    """Fill the ledger's (empty) accounts with what the kernel holds and the journal explains."""
    matching = _Matching(ledger.accounts, answers, now)
    halves: list[ElementKey] = []
    for name in GRANT_SETS:
        twins = kernel.elements(live_twin(name))
        live = {each.key for each in twins}
        explained = [each for each in kernel.elements(name) if matching.explain(name, each, opens=True)]
        halves += [(live_twin(name), each.key, b"") for each in explained if each.key not in live]
        for each in twins:
            matching.explain(name, each, opens=False)
    for source, holdings in matching.found.items():
        ledger.replace(ledger.accounts[source], holdings.values())
    return Adopted(matching.unexplained, halves, sum(map(len, matching.found.values())))


class _Matching:
    """Matches elements, one by one, with accounts and answers."""

    def __init__(self, accounts: Mapping[bytes, Account], answers: Answers, now: float) -> None:
        self._accounts = accounts
        self._answers = answers
        self._now = now
        self.found: dict[bytes, dict[ElementKey, Holding]] = {}
        self.unexplained: list[ElementKey] = []

    def explain(self, grants: str, element: InstalledElement, *, opens: bool) -> bool:
        """Match an element of a grants set (``opens``) or of its live twin; False: nobody explains it."""
        opening = describe(grants, element.key)
        account = self._accounts.get(opening.pod)
        names = None
        if account is not None and tag_of(element.comment) == account.tag:
            names = self._answers.get(account.tag, {}).get(opening.destination)
        if account is None or not names:
            self.unexplained.append((grants if opens else live_twin(grants), element.key, b""))
            return False
        key = (grants, element.key, b"")
        holdings = self.found.setdefault(opening.pod, {})
        holding = holdings.get(key)
        if holding is None:
            _, destination, way = parts(key)
            reasons = {Reason(name, "", ""): kept.until for name, kept in names.items()}
            since = min(kept.at for kept in names.values())
            until = self._now + element.expires_ms / 1000 if opens and element.expires_ms else NEVER
            holdings[key] = Holding(account, destination, term_of(way, reasons, until, since))
        return True
