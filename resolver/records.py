"""Records of upstream messages, read by offset, whatever they hold.

Owns names, sections and RDATAs of hostile messages. Never follows a chain, never keeps a record
that cannot be written again. Invariant: any bytes give values or WireError, in bounded time; every
RDATA returned is complete, uncompressed and lower-case in its names (RFC 4034, 6.2).
"""

from __future__ import annotations

import dns.exception
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from resolver.messages import AAAA, CNAME, NS, PTR, RECORD, SOA, A, skip_name

MAX_JUMPS = 64
MAX_UNUSUAL = 512
"""Records of one RRset that is read with dnspython: more of them would hold up everybody else."""


class WireError(Exception):
    """The message breaks the format; the text says where."""


class RawRecord:
    """One record: owner (lower-case wire form), type, TTL in seconds as it came, where its RDATA stands."""

    __slots__ = ("length", "owner", "rtype", "start", "ttl")

    def __init__(self, owner: bytes, rtype: int, ttl: int, start: int, length: int) -> None:
        self.owner = owner
        self.rtype = rtype
        self.ttl = ttl
        self.start = start
        self.length = length


def read_name(wire: bytes, at: int) -> tuple[bytes, int]:
    """Read the name at ``at``: lower-cased wire form, and the offset after it.

    Raises WireError for pointers that do not point backwards (loops), for names over 255 octets.
    """
    runs = b""
    after = -1
    floor = start = at
    jumps = 0
    try:
        while length := wire[at]:
            if length < 64:
                at += length + 1
                if at - start > 254:
                    raise WireError(f"name too long at octet {at}")
                continue
            if length < 0xC0:
                raise WireError(f"label type at octet {at}")
            target = (length & 0x3F) << 8 | wire[at + 1]
            jumps += 1
            if target >= floor or jumps > MAX_JUMPS:
                raise WireError(f"compression loop at octet {at}")
            runs += wire[start:at]
            if after < 0:
                after = at + 2
            floor = start = at = target
    except IndexError:
        raise WireError("name beyond the end") from None
    name = (runs + wire[start : at + 1]).lower()
    if len(name) > 255:
        raise WireError(f"name too long at octet {at}")
    return name, after if after >= 0 else at + 1


def read_section(wire: bytes, at: int, count: int) -> tuple[list[RawRecord], int]:
    """Read ``count`` records from ``at``, those of class IN, and the offset after all.

    Raises WireError if they do not all fit.
    """
    records: list[RawRecord] = []
    pointer = owner = b""  # the pointer seen last: most owners are one
    pointed: dict[bytes, bytes] = {}
    size = len(wire)
    for _ in range(count):
        start = wire[at : at + 2]
        if start == pointer:
            at += 2
        elif start in pointed:
            pointer = start
            owner = pointed[start]
            at += 2
        else:
            pointer = b""
            owner, at = read_name(wire, at)
            if start[0] >= 0xC0:
                pointer = start
                pointed[start] = owner
        if at + 10 > size:
            raise WireError(f"record beyond the end at octet {at}")
        rtype, rclass, ttl, length = RECORD.unpack_from(wire, at)
        at += 10
        if at + length > size:
            raise WireError(f"RDATA beyond the end at octet {at}")
        if rclass == 1:
            records.append(RawRecord(owner, rtype, ttl, at, length))
        at += length
    return records, at


def skip_questions(wire: bytes, count: int) -> int:
    """Offset after the question section."""
    at = 12
    for _ in range(count):
        at = skip_name(wire, at)
        if at < 0 or at + 4 > len(wire):
            raise WireError("question beyond the end")
        at += 4
    return at


def read_target(wire: bytes, record: RawRecord) -> bytes:
    """Read the RDATA of CNAME, NS, PTR: one name and nothing else."""
    name, end = read_name(wire, record.start)
    if end != record.start + record.length:
        raise WireError(f"RDATA length at octet {record.start}")
    return name


def read_soa(wire: bytes, record: RawRecord) -> bytes:
    """Read the RDATA of a SOA; its last four octets are MINIMUM."""
    mname, at = read_name(wire, record.start)
    rname, at = read_name(wire, at)
    if at + 20 != record.start + record.length:
        raise WireError(f"SOA length at octet {record.start}")
    return mname + rname + wire[at : at + 20]


def read_rdatas(wire: bytes, records: list[RawRecord]) -> tuple[bytes, ...]:
    """Read the RDATAs of one RRset, without duplicates (RFC 2181, 5), in order."""
    rtype = records[0].rtype
    if rtype in (A, AAAA):
        size = 4 if rtype == A else 16
        found = []
        for record in records:
            if record.length != size:
                raise WireError("address length")
            found.append(wire[record.start : record.start + size])
    elif rtype in (CNAME, NS, PTR):
        found = [read_target(wire, record) for record in records]
    elif rtype == SOA:
        found = [read_soa(wire, record) for record in records]
    else:
        found = _read_unusual(wire, records)
    return tuple(found) if len(found) == 1 or len(set(found)) == len(found) else tuple(dict.fromkeys(found))


def _read_unusual(wire: bytes, records: list[RawRecord]) -> list[bytes]:
    """Let dnspython check and normalize what the hot path does not know."""
    if len(records) > MAX_UNUSUAL:
        raise WireError(f"{len(records)} records of type {records[0].rtype}")
    found = []
    rtype = dns.rdatatype.RdataType.make(records[0].rtype)
    try:
        for record in records:
            parsed = dns.rdata.from_wire(dns.rdataclass.IN, rtype, wire, record.start, record.length)
            found.append(parsed.to_digestable())
    except dns.exception.DNSException as error:
        raise WireError(f"RDATA of type {records[0].rtype}: {error}") from None
    return found
