"""Dumps of others' tables, as they would come from kernels that this one is not."""

from __future__ import annotations

import struct

from enforcer.foreign import Foreign, Table, flowtables, raw_tables, untracked
from enforcer.netlink import Message, attribute, text


def said(family: int, *fields: bytes) -> Message:
    """One message of a dump."""
    return Message(0, 0, 0, 0, struct.pack(">BBH", family, 0, 0) + b"".join(fields))


def chain(table: str, hook: int, priority: int) -> Message:
    """A base chain."""
    where = attribute(1, struct.pack(">I", hook)) + attribute(2, struct.pack(">i", priority))
    return said(2, text(1, table), text(3, "c"), attribute(4, where))


def rule(*expressions: bytes) -> Message:
    """A rule of ``ip raw PREROUTING``."""
    listed = b"".join(attribute(1, each) for each in expressions)
    return said(2, text(1, "raw"), text(2, "PREROUTING"), attribute(4, listed))


def xtables(kind: str, name: str, info: bytes) -> bytes:
    """A match or target of iptables-nft."""
    return text(1, kind) + attribute(2, text(1, name) + attribute(3, info))


NOTRACK = xtables("target", "CT", struct.pack("=HH", 1, 0) + bytes(60))
ZONE = xtables("target", "CT", struct.pack("=HH", 0, 7) + bytes(60))
DNS = xtables("match", "udp", struct.pack("=HHHHBB", 0, 65535, 53, 53, 0, 0))
OTHER = xtables("match", "udp", struct.pack("=HHHHBB", 0, 65535, 8472, 8472, 0, 0))


def test_flowtables_are_named_as_nft_names_them():
    """Family, table, name; each is a doubt."""
    found = flowtables([said(1, text(1, "fw"), text(2, "fast")), said(10, text(1, "x"), text(2, "y"))])
    assert found == ("inet fw fast", "ip6 x y")
    assert len(Foreign(found).doubts) == 2


def test_only_tables_that_decide_before_conntrack_are_read():
    """A cluster's thousands of chains at dstnat are never dumped; nor are ours."""
    found = [
        chain("raw", 0, -300),
        chain("raw", 3, -300),
        chain("nat", 0, -100),
        chain("late", 1, -300),
        chain("nameward", 0, -310),
        said(2, text(1, "kube"), text(3, "no hook")),
    ]
    assert raw_tables(found, ["nameward"]) == [Table(2, "raw")]


def test_the_ct_target_counts_when_it_untracks_more_than_dns():
    """``-j CT --zone`` tracks; NodeLocal's rules are for port 53."""
    assert untracked([rule(OTHER, ZONE), rule(DNS, NOTRACK)]) == ()
    assert untracked([rule(OTHER, NOTRACK), rule(NOTRACK)]) == ("ip raw PREROUTING",)
