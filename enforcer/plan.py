"""From what is wanted and what is there to one transaction.

Pure. Owns the order of changes and how an element that may expire at any moment is taken away.
Laws: the plan from d to d is empty; applying the plan from i to d gives d. Only element sets; the
structure is ``enforcer.ruleset``'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from enforcer.elements import Add, Change, Element, InstalledElement, Remove
from enforcer.ledger import ElementKey

Desired = Mapping[str, Mapping[bytes, Element]]
"""Set → key → element."""


def node_plan(desired: Desired, installed: Desired) -> list[Change]:
    """Return what makes ``installed`` into ``desired``: removals first, so that intervals never meet."""
    removals: list[Change] = []
    additions: list[Change] = []
    for name in {**desired, **installed}:
        wanted, there = desired.get(name, {}), installed.get(name, {})
        if wanted == there:
            continue
        for key, element in there.items():
            if wanted.get(key) != element:
                removals.append(Remove(name, key, element.key_end))
        additions += [Add(element) for key, element in wanted.items() if there.get(key) != element]
    return removals + additions


def as_installed(name: str, elements: Iterable[InstalledElement]) -> dict[bytes, Element]:
    """Return what the kernel lists for a set without timeouts in the shape of ``Desired``."""
    return {each.key: Element(name, each.key, each.key_end) for each in elements}


def absence(keys: Iterable[ElementKey]) -> list[Change]:
    """Make sure that grants' elements are gone, though any may have expired or been taken already.

    Removing alone fails where there is nothing, and with it everything else in the transaction.
    """
    gone = list(keys)
    there: list[Change] = [
        Add(Element(name, packed, end, timeout_ms=1000 if name.startswith("grants") else 0))
        for name, packed, end in gone
    ]
    return there + [Remove(name, packed, end) for name, packed, end in gone]
