"""How a permit opens an address: the elements of a grant, but for the pair of addresses in their keys.

Pure. Owns what is the same for every grant that one permit gives, made once and shared. Never decides.
Invariant: a way and a pair say the same elements as ``elements.grant_keys``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from enforcer.elements import GRANT_SETS, Add, Change, Element, Renew, grant_keys, live_twin
from enforcer.identity import comment_start
from policy.decision import Permit

Rule = tuple[str, str]
"""A policy and its rule: what permits."""
_NUMBERS = {name: bytes((number,)) for number, name in enumerate(GRANT_SETS)}


class Way:
    """One element that opens: its grants set, the live twin, and what follows the pair in the key.

    ``mark`` tells the ways of one pair of addresses from each other.
    """

    __slots__ = ("grants", "live", "mark", "tail")

    def __init__(self, grants: str, tail: bytes) -> None:
        self.grants = grants
        self.live = live_twin(grants)
        self.tail = tail
        self.mark = tail + _NUMBERS[grants]


class Permitted:
    """A way, the rule that permits it, and how its elements' comments begin."""

    __slots__ = ("rule", "start", "way")

    def __init__(self, way: Way, rule: Rule, start: bytes) -> None:
        self.way = way
        self.rule = rule
        self.start = start


Grant = tuple[Way, bytes, int, bytes, bool]
"""A way, the pair of addresses, how long (ms), the comment; is it prolonged (its live twin stands)?"""


Ended = tuple[Way, bytes]
"""A way and a pair of addresses whose live element is to go."""


@lru_cache(maxsize=16384)
def way_of(grants: str, tail: bytes) -> Way:
    """Return the way of a set and the end of a key; ``KeyError`` if the set holds no grants."""
    return Way(grants, tail)


@lru_cache(maxsize=16384)
def permitted_by(way: Way, rule: Rule) -> Permitted:
    """Return a way that a rule permits."""
    return Permitted(way, rule, comment_start(*rule))


def permitted(permits: Iterable[Permit], size: int) -> tuple[Permitted, ...]:
    """Return every way in which the permits open an address of so many octets."""
    nobody = bytes(size)
    found: list[Permitted] = []
    for permit in permits:
        rule = (permit.policy, permit.rule)
        for name, key, _ in grant_keys(nobody, nobody, permit):
            found.append(permitted_by(way_of(name, key[2 * size :]), rule))
    return tuple(found)


def changes_of(grants: Sequence[Grant]) -> list[Change]:
    """Return what grants change, as ``enforcer.transaction.batch`` takes it."""
    changes: list[Change] = []
    for way, pair, timeout_ms, said, is_prolonged in grants:
        element = Element(way.grants, pair + way.tail, b"", timeout_ms, said)
        if is_prolonged:
            changes.append(Renew(element))
        else:
            changes.append(Add(element))
            changes.append(Add(Element(way.live, element.key, b"", 0, said)))
    return changes
