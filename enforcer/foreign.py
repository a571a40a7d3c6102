"""What others' rulesets do to pods' packets before or beside ours: flowtables, and NOTRACK.

Pure: reads what nf_tables dumps say. Never changes or judges anything of others; what follows is
said by ``status``. Best effort: rules of iptables-legacy and of eBPF programs cannot be seen here,
nor what a set or a jump narrows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from enforcer.netlink import Message, attributes
from enforcer.transaction import NFPROTO_INET

NEWFLOWTABLE, GETFLOWTABLE, DELFLOWTABLE = 22, 23, 24
_FAMILIES = {NFPROTO_INET: "inet", 2: "ip", 5: "netdev", 7: "bridge", 10: "ip6"}
_PREROUTING, _OUTPUT = 0, 3
_BEFORE_CONNTRACK = -200
_EQUAL = struct.pack(">I", 0)
_DNS = struct.pack(">H", 53)
_DNS_OF_XTABLES = struct.pack("=HH", 53, 53)
_LINK_LOCAL = bytes((169, 254))


class Table(NamedTuple):
    """A table: family and name."""

    family: int
    name: str

    def __str__(self) -> str:
        """Return it as nft says it."""
        return f"{_FAMILIES.get(self.family, str(self.family))} {self.name}"


class Foreign(NamedTuple):
    """Flowtables (``inet filter f``), and chains that hold NOTRACK for more than DNS (``ip raw c``)."""

    flowtables: tuple[str, ...] = ()
    untracked: tuple[str, ...] = ()

    @property
    def doubts(self) -> list[str]:
        """Say what keeps the node from enforcing."""
        return [
            f"flowtable {name} takes flows past the forward hook, where policy is enforced:"
            " remove it from this node"
            for name in self.flowtables
        ]

    @property
    def problems(self) -> list[str]:
        """Say what is closed but does not work."""
        return [
            f"chain {name} takes packets out of connection tracking (notrack); those of governed pods"
            " are dropped: narrow its rule to port 53 or to what is no pod's"
            for name in self.untracked
        ]


def flowtables(found: Iterable[Message]) -> tuple[str, ...]:
    """Read a dump of flowtables."""
    return tuple(sorted(f"{_table(each, f)} {_name(f.get(2))}" for each, f in _read(found)))


def raw_tables(found: Iterable[Message], ours: Iterable[str]) -> list[Table]:
    """Read a dump of chains: the tables that may decide before connection tracking, not ``ours``."""
    tables = set()
    for each, fields in _read(found):
        hook = dict(attributes(fields.get(4, b"")))
        if 1 not in hook or 2 not in hook:
            continue
        number, priority = struct.unpack(">I", hook[1])[0], struct.unpack(">i", hook[2])[0]
        if number in {_PREROUTING, _OUTPUT} and priority <= _BEFORE_CONNTRACK:
            tables.add(_table(each, fields))
    return sorted(table for table in tables if table.name not in set(ours))


def untracked(found: Iterable[Message]) -> tuple[str, ...]:
    """Read a dump of rules: the chains with a NOTRACK that is not DNS's or a link-local address's alone."""
    chains = set()
    for each, fields in _read(found):
        said = list(_expressions(fields.get(4, b"")))
        if any(_is_notrack(*one) for one in said) and not any(_is_narrow(*one) for one in said):
            chains.add(f"{_table(each, fields)} {_name(fields.get(2))}")
    return tuple(sorted(chains))


def _read(found: Iterable[Message]) -> Iterator[tuple[Message, dict[int, bytes]]]:
    for each in found:
        yield each, dict(attributes(each.payload, 4))


def _table(each: Message, fields: dict[int, bytes]) -> Table:
    return Table(each.payload[0], _name(fields.get(1)))


def _name(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0").decode("ascii", "replace")


def _expressions(value: bytes) -> Iterator[tuple[str, dict[int, bytes]]]:
    for _, element in attributes(value):
        fields = dict(attributes(element))
        yield _name(fields.get(1)), dict(attributes(fields.get(2, b"")))


def _is_notrack(name: str, data: dict[int, bytes]) -> bool:
    """Tell nft's own, or the CT target of iptables-nft with its flag NOTRACK."""
    if name != "target":
        return name == "notrack"
    target, flags = _name(data.get(1)), data.get(3, b"")[:2]
    if target == "CT" and flags:
        return bool(struct.unpack("=H", flags)[0] & 1)
    return target == "NOTRACK"


def _is_narrow(name: str, data: dict[int, bytes]) -> bool:
    """Tell a comparison with port 53, or with NodeLocal DNSCache's link-local address."""
    if name == "cmp":
        value = dict(attributes(data.get(3, b""))).get(1, b"")
        if data.get(2, _EQUAL) != _EQUAL:
            return False
        return value == _DNS or value[:2] == _LINK_LOCAL
    return name == "match" and _name(data.get(1)) in {"udp", "tcp"} and _DNS_OF_XTABLES in data.get(3, b"")
