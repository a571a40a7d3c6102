"""What the sets of ``bridge nameward`` hold, and what changes when a pod comes or goes.

Pure. Owns the elements' shape and their words in nft text. Law: ``contents`` and then the ``plan`` from it to
others are those others. A value is an interface's name (text) or octets; the last of ``home``'s is
where its key leads.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import NamedTuple

Value = str | bytes
Entry = tuple[Value, ...]
Contents = Mapping[str, frozenset[Entry]]
"""Set → its elements; a set that is not named is empty."""

TARGET = "@th,64,128"
"""Target of a neighbour advertisement (RFC 4861 4.4); nft 1.0.6 has no word for it."""
MAP = "home"
TYPES = {
    "aside": "type ifname",
    "named": "type ifname",
    "ports": "type ifname",
    "hardware": "type ifname . ether_addr",
    MAP: "type ifname : ether_addr",
    "source4": "type ifname . ipv4_addr",
    "pods4": "type ipv4_addr",
    "governed4": "type ipv4_addr",
    "ours4": "type ipv4_addr",
    "source6": "type ifname . ipv6_addr",
    "pods6": "type ipv6_addr",
    "governed6": "type ipv6_addr",
    "ours6": "type ipv6_addr",
    "target6": f"typeof iifname . {TARGET}",
    "taken6": f"typeof {TARGET}",
}


class Turn(NamedTuple):
    """One element that comes into a set, or leaves it."""

    set: str
    entry: Entry
    comes: bool


def plan(before: Contents, after: Contents) -> list[Turn]:
    """Return what makes ``before`` into ``after``: what goes first, so that a key of the map may change."""
    gone = [Turn(name, each, comes=False) for name in TYPES for each in _less(before, after, name)]
    return gone + [Turn(name, each, comes=True) for name in TYPES for each in _less(after, before, name)]


def declarations(contents: Contents) -> list[str]:
    """Declare all sets in nft's words, with what they hold."""
    return [_declared(name, kind, contents.get(name, frozenset())) for name, kind in TYPES.items()]


def _less(these: Contents, others: Contents, name: str) -> frozenset[Entry]:
    return these.get(name, frozenset()) - others.get(name, frozenset())


def _declared(name: str, kind: str, entries: frozenset[Entry]) -> str:
    joint = " : " if name == MAP else " . "
    said = ", ".join(sorted(joint.join(_word(kind, value) for value in entry) for entry in entries))
    word = "map" if name == MAP else "set"
    return f"{word} {name} {{ {kind};{f' elements = {{ {said} }};' if said else ''} }}"


def _word(kind: str, value: Value) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if len(value) == 6:
        return value.hex(":")
    return f"0x{value.hex()}" if TARGET in kind else str(ipaddress.ip_address(value))
