"""Keys of set elements: what opens what, byte for byte."""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.elements import (
    GRANT_SETS,
    LIVE_SETS,
    NODE_SETS,
    Endpoint,
    KnownPod,
    describe,
    grant_keys,
    live_twin,
    node_elements,
    static_elements,
)

POD4, DST4 = ip_address("10.0.0.1").packed, ip_address("45.1.0.2").packed
POD6, DST6 = ip_address("fd00::1").packed, ip_address("2600:1::2").packed


class P(NamedTuple):
    """Ports of a permit."""

    protocol: str
    first: int = 0
    last: int = 65535


class B(NamedTuple):
    """A static box."""

    first: bytes
    last: bytes
    protocol: str
    first_port: int = 0
    last_port: int = 65535


def test_one_port_is_one_element():
    """Address, address, protocol and three octets of padding, port and two."""
    assert grant_keys(POD4, DST4, P("tcp", 443, 443)) == (
        ("grants4", POD4 + DST4 + b"\x06\0\0\0\x01\xbb\0\0", b""),
    )
    assert grant_keys(POD6, DST6, P("udp", 53053, 53053))[0][0] == "grants6"


def test_wide_permits_take_wide_sets():
    """Any port: by protocol; any protocol: by addresses; ICMP has no port, and its family's number."""
    assert grant_keys(POD4, DST4, P("tcp")) == (("grants_protocol4", POD4 + DST4 + b"\x06\0\0\0", b""),)
    assert grant_keys(POD4, DST4, P("any")) == (("grants_all4", POD4 + DST4, b""),)
    assert grant_keys(POD4, DST4, P("icmp", 0, 0))[0] == (
        "grants_protocol4",
        POD4 + DST4 + b"\x01\0\0\0",
        b"",
    )
    assert grant_keys(POD6, DST6, P("icmp"))[0][1][32] == 58


def test_any_protocol_with_ports_is_tcp_and_udp():
    """Both, and nothing that has no ports."""
    assert [key[8] for _, key, _ in grant_keys(POD4, DST4, P("any", 80, 80))] == [6, 17]


def test_mixed_families_are_an_error():
    """An IPv4 pod has no flow to an IPv6 address."""
    with pytest.raises(ValueError, match="families"):
        grant_keys(POD4, DST6, P("any"))


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_the_pieces_of_a_range_are_the_range(first, last):
    """They are disjoint, cover exactly its ports, read back, and are never more than 267."""
    first, last = sorted((first, last))
    keys = grant_keys(POD4, DST4, P("tcp", first, last))
    found = [describe(name, key) for name, key, _ in keys]
    assert all((each.pod, each.destination, each.protocol) == (POD4, DST4, "tcp") for each in found)
    at = first
    for each in sorted(found, key=lambda opening: opening.first):
        assert each.first == at
        at = each.last + 1
    assert at == last + 1
    assert len(keys) <= 267
    if last - first < 64:
        assert all(name == "grants4" for name, _, _ in keys)


def test_twins_are_each_others():
    """Every grants set has a live set of the same name."""
    assert [live_twin(name) for name in GRANT_SETS] == list(LIVE_SETS)
    with pytest.raises(ValueError, match="cluster4"):
        describe("cluster4", POD4)


def test_static_boxes_become_disjoint_ranges():
    """Any protocol on all ports by addresses alone; ICMP over all its types; other family left out."""
    net = (ip_address("45.0.0.0").packed, ip_address("45.255.255.255").packed)
    boxes = [B(*net, "tcp", 80, 443), B(*net, "any"), B(*net, "icmp"), B(DST6, DST6, "any")]
    made = static_elements(POD4, boxes)
    assert [element.set for element in made] == ["static4", "static_all4", "static4"]
    assert made[0].key == POD4 + net[0] + b"\x06\0\0\0\x00\x50\0\0"
    assert made[0].key_end == POD4 + net[1] + b"\x06\0\0\0\x01\xbb\0\0"
    assert made[2].key[8] == made[2].key_end[8] == 1
    assert made[2].key_end[12:14] == b"\xff\xff"


def test_any_protocol_box_with_ports_is_tcp_and_udp():
    """As for grants."""
    assert [e.key[8] for e in static_elements(POD4, [B(DST4, DST4, "any", 80, 81)])] == [6, 17]


def test_node_elements_say_who_is_who():
    """A pod without interface is governed and believed from nowhere; every set is present."""
    found = node_elements(
        [
            KnownPod(POD4, "veth1", governed=True),
            KnownPod(POD6, "veth1", governed=False),
            KnownPod(DST4, "", governed=True),
        ],
        cluster_cidrs=["10.0.0.0/9", "10.128.0.0/9", "10.1.2.3/16", "fd00::/8"],
        never=[POD6],
        uplinks=["eth0"],
        upstreams=[Endpoint(DST4, "udp", 53)],
        listen=[Endpoint(DST6, "tcp", 53)],
        static={POD4: [B(DST4, DST4, "tcp", 80, 80)]},
    )
    assert set(found) == set(NODE_SETS)
    assert set(found["governed4"]) == set(found["pods4"]) == {POD4, DST4}
    assert set(found["pods6"]) == {POD6}
    assert not found["governed6"]
    assert set(found["podsrc4"]) == {b"veth1".ljust(16, b"\0") + POD4}
    assert set(found["podifs"]) == {b"veth1".ljust(16, b"\0")}
    (cluster,) = found["cluster4"].values()
    assert (cluster.key, cluster.key_end) == (
        ip_address("10.0.0.0").packed,
        ip_address("10.255.255.255").packed,
    )
    assert POD6 in found["never6"]
    assert ip_address("169.254.169.254").packed in found["never4"]
    assert list(found["upstreams4"]) == [DST4 + b"\x11\0\0\0\0\x35\0\0"]
    assert list(found["listen6"]) == [DST6 + b"\x06\0\0\0\0\x35\0\0"]
    assert len(found["static4"]) == 1
