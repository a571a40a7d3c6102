"""Laws of addresses, their guard, and the interval sets beneath addresses and ports."""

from __future__ import annotations

import ipaddress
import itertools

from hypothesis import given
from hypothesis import strategies as st

from policy import intervals
from policy.addresses import AddressSet, GuardedRanges, from_packed, guard_class, to_packed, together
from policy.intervals import Intervals
from policy.ports import EVERYTHING, PortSet, from_rule
from policy.regions import Regions
from policy.rules import PortRange

V4 = st.integers(0, 2**32 - 1)
V6 = st.integers(0, 2**128 - 1)
SPECIAL = ("10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/4")
GUARDED_V4 = st.sampled_from(SPECIAL).flatmap(
    lambda cidr: st.integers(
        int(ipaddress.IPv4Network(cidr).network_address), int(ipaddress.IPv4Network(cidr).broadcast_address)
    )
)
SMALL = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=5).map(intervals.normal)


def _six(number: int) -> bytes:
    return number.to_bytes(16, "big")


def _forms(v4: int, noise: int) -> dict[str, bytes]:
    low = noise & 0xFFFFFFFF
    return {
        "mapped": _six((0xFFFF << 32) | v4),
        "compatible": _six(v4),
        "translated": _six((0xFFFF << 48) | v4),
        "nat64": _six((0x64FF9B << 96) | v4),
        "6to4": _six((0x2002 << 112) | (v4 << 80) | (noise & (2**80 - 1))),
        "teredo server": _six((0x20010000 << 96) | (v4 << 64) | low),
        "teredo client": _six((0x20010000 << 96) | (0x01010101 << 64) | (v4 ^ 0xFFFFFFFF)),
    }


@given(GUARDED_V4, V6)
def test_every_embedded_form_of_a_guarded_address_is_guarded(v4: int, noise: int) -> None:
    """No IPv6 form that carries a guarded IPv4 address is public, and the set says the same."""
    guard = GuardedRanges()
    assert guard_class(v4.to_bytes(4, "big"))
    for form, packed in _forms(v4, noise).items():
        assert guard_class(packed), form
        assert guard.addresses.has(packed), form


@given(V4 | V6, st.lists(V4, max_size=3))
def test_a_class_is_given_to_exactly_the_guarded_addresses(number: int, nodes: list[int]) -> None:
    """The names of classes and the set of guarded addresses agree, for nodes and a cluster too."""
    addresses = [str(ipaddress.IPv4Address(node)) for node in nodes]
    guard = GuardedRanges(("8.8.0.0/16", "2606:4700::/32"), addresses)
    packed = number.to_bytes(4 if number < 2**32 else 16, "big")
    candidates = [packed, _six((0x64FF9B << 96) | (number & 0xFFFFFFFF)), *map(to_packed, addresses)]
    for candidate in candidates:
        assert guard.addresses.has(candidate) == (guard.classify(candidate) is not None)


@given(V4)
def test_global_ipv4_is_what_python_and_the_registry_agree_on(v4: int) -> None:
    """Nothing that Python calls private is public here; what is guarded beyond that is named."""
    found = guard_class(v4.to_bytes(4, "big"))
    python = ipaddress.IPv4Address(v4)
    if not python.is_global:
        assert found
    if found and python.is_global:
        assert found in {"multicast", "metadata", "6to4-relay", "protocol-assignment"}


@given(V4 | V6)
def test_text_and_octets_of_an_address_are_one(number: int) -> None:
    """Text to octets to text changes nothing."""
    packed = number.to_bytes(4 if number < 2**32 else 16, "big")
    assert to_packed(from_packed(packed)) == packed
    assert from_packed(packed) == str(ipaddress.ip_address(packed))


def _members(spans: Intervals) -> set[int]:
    return {number for first, last in spans for number in range(first, last + 1)}


@given(SMALL, SMALL)
def test_interval_algebra_is_set_algebra(left: Intervals, right: Intervals) -> None:
    """Union, intersection and difference are those of the numbers, in normal form."""
    for found, expected in (
        (intervals.union(left, right), _members(left) | _members(right)),
        (intervals.intersection(left, right), _members(left) & _members(right)),
        (intervals.difference(left, right), _members(left) - _members(right)),
    ):
        assert _members(found) == expected
        assert intervals.normal(found) == found


@given(st.lists(SMALL, max_size=4), st.integers(0, 30))
def test_regions_know_exactly_the_sets_an_address_is_in(sets: list[Intervals], number: int) -> None:
    """An address's class lists the sets that contain it; the regions cover both families without gaps."""
    regions = Regions([AddressSet(v4=spans, v6=spans) for spans in sets])
    expected = {index for index, spans in enumerate(sets) if intervals.contains(spans, number)}
    for width in (4, 16):
        assert regions.classes[regions.number(number.to_bytes(width, "big"))] == expected
    for width in (4, 16):
        family = [region for region in regions if len(region.first) == width]
        assert int.from_bytes(family[0].first, "big") == 0
        assert int.from_bytes(family[-1].last, "big") == 2 ** (width * 8) - 1
        for before, after in itertools.pairwise(family):
            assert int.from_bytes(before.last, "big") + 1 == int.from_bytes(after.first, "big")


port_sets = st.builds(
    from_rule,
    st.sampled_from(["any", "tcp", "udp", "icmp"]),
    st.none()
    | st.tuples(st.integers(0, 1000), st.integers(0, 65535))
    .map(sorted)
    .map(lambda ends: PortRange(ends[0], ends[1])),
)


@given(port_sets, port_sets, st.sampled_from([0, 52, 53, 54, 443, 852, 853, 854, 65535]))
def test_granted_ranges_are_the_ports_without_dns(one: PortSet, two: PortSet, port: int) -> None:
    """Ranges hold each port of the set; 53 and 853 only inside an interval of all ports."""
    ports = one.union(two).difference(from_rule("tcp", PortRange(7, 9)))
    for protocol in ("tcp", "udp"):
        found = [
            span
            for span in ports.ranges()
            if span.protocol in {"any", protocol} and span.first <= port <= span.last
        ]
        assert len(found) <= 1
        full = bool(found) and (found[0].first, found[0].last) == (0, 65535)
        if port in {53, 853}:
            assert not found or full
        else:
            assert bool(found) == ports.has(protocol, port)


@given(port_sets)
def test_everything_minus_a_set_and_the_set_are_everything(ports: PortSet) -> None:
    """Difference and union undo each other."""
    assert EVERYTHING.difference(ports).union(ports) == EVERYTHING
    assert not EVERYTHING.difference(ports).intersection(ports)


@given(st.lists(st.builds(AddressSet, SMALL, SMALL), max_size=5))
def test_sets_together_are_their_union_one_after_the_other(sets: list[AddressSet]) -> None:
    """In one pass over all of them."""
    found = AddressSet()
    for each in sets:
        found = found.union(each)
    assert together(sets) == found
