"""IP addresses: text and octets, sets of them, and which of them are guarded.

Owns the two families' arithmetic and the guard against rebinding (policy.md "Guarded addresses").
Never knows rules. Invariant: an IPv6 address that embeds a guarded IPv4 address is guarded.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from typing import NamedTuple

from policy import intervals, special_purpose
from policy.intervals import Interval, Intervals

_NAT64 = int(ipaddress.IPv6Address(special_purpose.NAT64))
_TEREDO = int(ipaddress.IPv6Address("2001::"))


class AddressSet(NamedTuple):
    """A set of addresses as intervals of numbers, one tuple per family."""

    v4: Intervals = ()
    v6: Intervals = ()

    def union(self, more: AddressSet) -> AddressSet:
        """Return what is in either of them."""
        return AddressSet(intervals.union(self.v4, more.v4), intervals.union(self.v6, more.v6))

    def intersection(self, more: AddressSet) -> AddressSet:
        """Return what is in both of them."""
        return AddressSet(intervals.intersection(self.v4, more.v4), intervals.intersection(self.v6, more.v6))

    def difference(self, less: AddressSet) -> AddressSet:
        """Return what is in this set and not in the other."""
        return AddressSet(intervals.difference(self.v4, less.v4), intervals.difference(self.v6, less.v6))

    def covers(self, inner: AddressSet) -> bool:
        """Say whether every address of ``inner`` is in this set."""
        return not any(inner.difference(self))

    def has(self, packed: bytes) -> bool:
        """Say whether the packed address is in the set."""
        spans = self.v4 if len(packed) == 4 else self.v6
        return intervals.contains(spans, int.from_bytes(packed, "big"))


ALL_ADDRESSES = AddressSet(((0, 2**32 - 1),), ((0, 2**128 - 1),))
NO_ADDRESSES = AddressSet()


def canonical(text: str) -> str:
    """Return the canonical text of an address; ``ValueError`` if it is none."""
    return str(ipaddress.ip_address(text.strip()))


def to_packed(text: str) -> bytes:
    """Return the 4 or 16 octets of an address; ``ValueError`` if it is none."""
    return ipaddress.ip_address(text).packed


def from_packed(packed: bytes) -> str:
    """Return the canonical text of 4 or 16 octets."""
    if len(packed) == 4:
        return "{}.{}.{}.{}".format(*packed)
    return str(ipaddress.IPv6Address(packed))


def cidr_set(cidr: str) -> AddressSet:
    """Return the addresses of a CIDR (or of one address); ``ValueError`` if it is none."""
    network = ipaddress.ip_network(cidr, strict=False)
    span = ((int(network.network_address), int(network.broadcast_address)),)
    return AddressSet(v4=span) if network.version == 4 else AddressSet(v6=span)


@lru_cache(maxsize=1024)
def is_cidr(text: str) -> bool:
    """Say whether ``cidr_set`` can read a text."""
    try:
        cidr_set(text)
    except ValueError:
        return False
    return True


def union_of(cidrs: Iterable[str]) -> AddressSet:
    """Return the addresses of all the CIDRs together."""
    v4: list[Interval] = []
    v6: list[Interval] = []
    for cidr in cidrs:
        found = cidr_set(cidr)
        v4 += found.v4
        v6 += found.v6
    return AddressSet(intervals.normal(v4), intervals.normal(v6))


def together(sets: Iterable[AddressSet]) -> AddressSet:
    """Return what is in any of them; one after the other, thousands would cost their number squared."""
    listed = list(sets)
    return AddressSet(
        intervals.normal(each for found in listed for each in found.v4),
        intervals.normal(each for found in listed for each in found.v6),
    )


def with_nat64(addresses: AddressSet) -> AddressSet:
    """Add the forms that the IPv4 addresses have behind NAT64 (RFC 6052, 2.1)."""
    return addresses.union(AddressSet(v6=tuple((_NAT64 + a, _NAT64 + b) for a, b in addresses.v4)))


class _Classes:
    """Names of ranges, the last that matches first: a sorted table cut where the answer changes."""

    __slots__ = ("_names", "_starts")

    def __init__(self, ranges: Iterable[tuple[str, str]], width: int) -> None:
        own: list[tuple[int, int, str]] = []
        cuts = {0}
        for cidr, name in ranges:
            spans = cidr_set(cidr)
            for first, last in spans.v4 if width == 4 else spans.v6:
                own.append((first, last, name))
                cuts |= {first, last + 1}
        starts = sorted(cut for cut in cuts if cut < 2 ** (width * 8))
        self._starts = [start.to_bytes(width, "big") for start in starts]
        self._names = [
            next((name for first, last, name in reversed(own) if first <= start <= last), "")
            for start in starts
        ]

    def name(self, packed: bytes) -> str:
        return self._names[bisect_right(self._starts, packed) - 1]


@cache
def _table() -> tuple[tuple[str, str], ...]:
    reachable = tuple((cidr, "") for cidr in special_purpose.GLOBAL_IPV6)
    table = special_purpose.IPV4 + special_purpose.IPV6 + reachable
    return tuple(sorted(table, key=lambda row: ipaddress.ip_network(row[0]).prefixlen))


class GuardedRanges:
    """The guarded addresses of one node: the table, its cluster's CIDRs, its nodes' addresses."""

    __slots__ = ("_v4", "_v6", "addresses", "metadata")

    def __init__(self, cluster_cidrs: Iterable[str] = (), node_addresses: Iterable[str] = ()) -> None:
        cluster = tuple((cidr, "cluster") for cidr in cluster_cidrs)
        nodes = tuple((address, "node") for address in node_addresses)
        metadata = tuple((address, "metadata") for address in special_purpose.METADATA)
        ranges = _table() + cluster + nodes + metadata
        self._v4 = _Classes(ranges, 4)
        self._v6 = _Classes(ranges, 16)
        self.metadata: AddressSet = with_nat64(union_of(special_purpose.METADATA))
        """Guarded ranges of their own inside wider ones: only their own address names them."""
        special = union_of(cidr for cidr, name in _table() if name)
        special = special.difference(union_of(special_purpose.GLOBAL_IPV6))
        local = union_of(cidr for cidr, _ in cluster + nodes)
        self.addresses: AddressSet = with_nat64(special.union(local).union(self.metadata))
        """Everything that is guarded, in both families."""

    def classify(self, packed: bytes) -> str | None:
        """Return the class of a guarded address (``private-use``, ``cluster``, ``metadata``…), or None.

        An IPv6 address that embeds a guarded IPv4 address has that address's class.
        """
        if len(packed) == 4:
            return self._v4.name(packed) or None
        own = self._v6.name(packed)
        for embedded in _embedded(packed) if own not in _SINGLE else ():
            name = self._v4.name(embedded)
            if name:
                return name
        return own or None


_SINGLE = frozenset({"metadata", "unspecified", "loopback"})


def guard_class(packed: bytes) -> str | None:
    """Return the special-purpose class of 4 or 16 octets, or None for a public address."""
    return _special_purpose().classify(packed)


@cache
def _special_purpose() -> GuardedRanges:
    return GuardedRanges()


@cache
def _embeddings() -> tuple[tuple[int, int, int], ...]:
    found = []
    for cidr, bit in special_purpose.EMBEDDING_IPV6:
        ((first, last),) = cidr_set(cidr).v6
        found.append((first, last, 96 - bit))
    return tuple(found)


def _embedded(packed: bytes) -> Iterator[bytes]:
    """Give the IPv4 addresses that an IPv6 address carries, if it is of a form that does."""
    number = int.from_bytes(packed, "big")
    for first, last, shift in _embeddings():
        if first <= number <= last:
            yield ((number >> shift) & 0xFFFFFFFF).to_bytes(4, "big")
            if first == _TEREDO:  # the client too, each bit inverted (RFC 4380, 4)
                yield (~number & 0xFFFFFFFF).to_bytes(4, "big")
