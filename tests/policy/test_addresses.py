"""Addresses and the guard: the table, the cluster, the nodes, the forms that embed others."""

from __future__ import annotations

import pytest

from policy.addresses import (
    AddressSet,
    GuardedRanges,
    canonical,
    cidr_set,
    guard_class,
    to_packed,
    union_of,
    with_nat64,
)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("0.0.0.0", "this-network"),
        ("10.1.2.3", "private-use"),
        ("100.64.0.1", "shared"),
        ("127.0.0.1", "loopback"),
        ("169.254.1.1", "link-local"),
        ("169.254.169.254", "metadata"),
        ("168.63.129.16", "metadata"),
        ("100.100.100.200", "metadata"),
        ("172.31.255.255", "private-use"),
        ("192.0.0.9", "protocol-assignment"),
        ("192.0.2.1", "documentation"),
        ("192.88.99.1", "6to4-relay"),
        ("192.168.0.1", "private-use"),
        ("198.19.255.255", "benchmarking"),
        ("203.0.113.9", "documentation"),
        ("224.0.0.251", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("240.0.0.1", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::a01:203", "private-use"),
        ("::ffff:10.1.2.3", "private-use"),
        ("::ffff:8.8.8.8", "ipv4-mapped"),
        ("64:ff9b::a9fe:a9fe", "metadata"),
        ("64:ff9b:1::1", "local-nat64"),
        ("100::1", "discard"),
        ("2001::1", "this-network"),
        ("2001:0:808:808::f7f7:f7f7", "teredo"),
        ("2001:2::1", "benchmarking"),
        ("2001:db8::1", "documentation"),
        ("2002:a9fe:a9fe::1", "metadata"),
        ("2002:808:808::1", "6to4"),
        ("3fff::1", "documentation"),
        ("4000::1", "reserved"),
        ("fd00::1", "unique-local"),
        ("fd00:ec2::254", "metadata"),
        ("fe80::1", "link-local"),
        ("ff02::1", "multicast"),
    ],
)
def test_special_purpose_addresses_have_a_class(address: str, kind: str) -> None:
    """Each range of the table names its addresses; an embedded IPv4 address names its own."""
    assert guard_class(to_packed(address)) == kind


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "1.1.1.1",
        "172.32.0.1",
        "192.31.196.1",
        "2606:4700::1",
        "2a00::1",
        "64:ff9b::808:808",
        "2001:4860::8",
    ],
)
def test_public_addresses_have_none(address: str) -> None:
    """What is globally reachable is not guarded, through NAT64 neither."""
    assert guard_class(to_packed(address)) is None


def test_the_cluster_and_the_nodes_are_guarded() -> None:
    """Cluster CIDRs and node addresses have classes of their own, even inside other ranges."""
    guard = GuardedRanges(("10.244.0.0/16", "2a01:4f8::/64"), ("5.6.7.8", "10.0.0.1"))
    assert guard.classify(to_packed("10.244.1.1")) == "cluster"
    assert guard.classify(to_packed("2a01:4f8::5")) == "cluster"
    assert guard.classify(to_packed("5.6.7.8")) == "node"
    assert guard.classify(to_packed("10.0.0.1")) == "node"
    assert guard.classify(to_packed("64:ff9b::506:708")) == "node"
    assert guard.classify(to_packed("5.6.7.9")) is None


def test_metadata_stays_metadata_inside_a_cluster() -> None:
    """A cluster CIDR around a metadata address does not hide what it is."""
    guard = GuardedRanges(("100.64.0.0/10", "169.254.169.254/32"), ("169.254.170.2",))
    for address in ("100.100.100.200", "169.254.169.254", "169.254.170.2"):
        assert guard.classify(to_packed(address)) == "metadata"


def test_text_forms() -> None:
    """Addresses have one text; a range is none."""
    assert canonical(" 2001:DB8:0::1 ") == "2001:db8::1"
    with pytest.raises(ValueError, match=r"."):
        canonical("10.0.0.0/8")


def test_sets_of_addresses() -> None:
    """Sets keep families apart and know what they cover."""
    private = union_of(["10.0.0.0/9", "10.128.0.0/9", "fd00::/8"])
    assert private.v4 == cidr_set("10.0.0.0/8").v4
    assert private.covers(cidr_set("10.1.0.0/16"))
    assert not private.covers(cidr_set("11.0.0.0/8"))
    assert private.has(to_packed("fd00::1"))
    assert not private.has(to_packed("::ffff:10.0.0.1"))
    assert private.intersection(cidr_set("10.1.0.0/16")) == cidr_set("10.1.0.0/16")
    assert with_nat64(cidr_set("8.8.8.8")).has(to_packed("64:ff9b::808:808"))
    assert private.difference(private) == AddressSet()
