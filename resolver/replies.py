"""Replies to clients, written by offset: question, CNAME chain, final RRset, SOA, our OPT.

Owns the bytes of a reply and its truncation. Never decides what is in it. Invariant: the question
is echoed byte for byte, nothing but chain, RRset, signatures, SOA and OPT is written, and the
message fits its limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple

from resolver.messages import AAAA, CNAME, MAX_UDP_BYTES, RRSIG, SOA, A, Query

_COUNTS = Struct("!5H")
_FIXED = Struct("!HHIH")
_PAIR = Struct("!HH")
_SHORT = Struct("!H")

MAX_TEXT_BYTES = 120
BLOCKED_TTL_S = 5
"""TTL and MINIMUM of the SOA in answers made here."""
_OWN_SOA = (
    b"\x08nameward\x07invalid\x00\x06nobody\x07invalid\x00"
    b"\x00\x00\x00\x01\x00\x00\x0e\x10\x00\x00\x02\x58\x00\x01\x51\x80\x00\x00\x00\x05"
)


class Ede(NamedTuple):
    """One extended DNS error (RFC 8914): INFO-CODE and EXTRA-TEXT."""

    code: int
    text: str = ""


class Body(NamedTuple):
    """What a reply says after its question.

    ``chain``: CNAME targets in wire form, from the question on. ``records``: RDATAs of type
    ``rtype`` at the chain's end. ``soa``: owner and RDATA. ``signatures``: RRSIG RDATAs with the
    index of their owner in the chain (0 = the question's name). ``ttl``: seconds, for all records.
    """

    chain: tuple[bytes, ...] = ()
    rtype: int = 0
    records: Sequence[bytes] = ()
    soa: tuple[bytes, bytes] | None = None
    signatures: tuple[tuple[int, bytes], ...] = ()
    ttl: int = 0


class Written(NamedTuple):
    """A reply: its bytes, how many of the body's records it holds, where its TTLs stand."""

    wire: bytes
    kept: int
    ttl_offsets: tuple[int, ...]


EMPTY = Body()


def own_soa(name: bytes) -> tuple[bytes, bytes]:
    """Make the SOA of a negative answer that is made here: owned by the parent of ``name``."""
    return (name[name[0] + 1 :] if name[0] else b"\x00", _OWN_SOA)


def negative(name: bytes) -> Body:
    """Body of a negative answer that is made here."""
    return Body(soa=own_soa(name), ttl=BLOCKED_TTL_S)


def write_reply(query: Query, rcode: int, body: Body, edes: Sequence[Ede], limit_bytes: int) -> Written:
    """Write the reply of at most ``limit_bytes``; too much of it sets TC and keeps whole address records.

    A truncated reply holds the chain and as many addresses as fit, or the question alone. The text
    of EDEs goes before a negative answer is truncated.
    """
    opt = _write_opt(query, rcode, edes) if query.opt else b""
    start = 12 + len(query.question)
    room_bytes = limit_bytes - len(opt)
    section = _Section(query.name, start, body.ttl)
    for target in body.chain:
        section.add_cname(target)
    chain_end = section.at
    answers, authorities, kept, truncated = len(body.chain), 0, 0, False
    if body.records:
        kept = section.add_records(body.rtype, body.records, room_bytes)
        answers += kept
        truncated = kept < len(body.records)
    if not truncated:
        for index, rdata in body.signatures:
            section.add(section.owners[index], RRSIG, rdata)
            answers += 1
        if body.soa is not None:
            section.add_soa(*body.soa)
            authorities = 1
    if section.at > room_bytes and not body.records and any(ede.text for ede in edes):
        return write_reply(query, rcode, body, [Ede(ede.code) for ede in edes], limit_bytes)
    if section.at > room_bytes:
        truncated, authorities = True, 0
        whole = bool(body.records) and body.rtype in (A, AAAA) and section.addresses_end <= room_bytes
        section.cut(section.addresses_end if whole else chain_end if chain_end <= room_bytes else start)
        kept = kept if whole else 0
        answers = len(body.chain) + kept if chain_end <= room_bytes else 0
    flags = 0x8080 | query.flags & 0x7910 | rcode & 15 | (0x0200 if truncated else 0)
    counts = _COUNTS.pack(flags, 1 if query.question else 0, answers, authorities, 1 if opt else 0)
    wire = b"".join((query.id, counts, query.question, *section.parts, opt))
    return Written(wire, kept, tuple(section.ttl_offsets))


def write_error(query: Query, rcode: int, ede: Ede | None = None) -> bytes:
    """Write a reply without any record, of at most 512 octets."""
    return write_reply(query, rcode, EMPTY, (ede,) if ede else (), 512).wire


def _write_opt(query: Query, rcode: int, edes: Sequence[Ede]) -> bytes:
    options = b""
    for ede in edes:
        text = ede.text.encode("ascii", "backslashreplace")[:MAX_TEXT_BYTES]
        options += _PAIR.pack(15, 2 + len(text)) + _SHORT.pack(ede.code) + text
    # RFC 3225: DO is copied; RFC 6891, 6.1.3: the upper bits of the extended RCODE
    extension = (rcode >> 4 << 24) | (0x8000 if query.do else 0)
    return b"\x00" + _FIXED.pack(41, MAX_UDP_BYTES, extension, len(options)) + options


class _Section:
    """Records being written, with the offsets that later names may point to."""

    __slots__ = ("addresses_end", "at", "name", "owners", "parts", "seen", "ttl", "ttl_offsets")

    def __init__(self, name: bytes, start: int, ttl: int) -> None:
        self.parts: list[bytes] = []
        self.at = start
        self.ttl = ttl
        self.ttl_offsets: list[int] = []
        self.owners: list[bytes] = [b"\xc0\x0c"]
        self.addresses_end = start
        self.seen: dict[bytes, int] = {}
        self.name = name

    def compress(self, name: bytes, at: int) -> bytes:
        """Compress a name that will stand at ``at`` and remember its suffixes (RFC 1035, 4.1.4)."""
        seen = self.seen
        if self.name:
            question, self.name = self.name, b""
            self.compress(question, 12)
        index = 0
        while name[index]:
            suffix = name[index:]
            known = seen.get(suffix)
            if known is not None:
                return name[:index] + _SHORT.pack(0xC000 | known)
            if at + index < 0x4000:
                seen[suffix] = at + index
            index += name[index] + 1
        return name

    def add(self, owner: bytes, rtype: int, rdata: bytes) -> None:
        self.ttl_offsets.append(self.at + len(owner) + 4)
        self.parts.append(owner + _FIXED.pack(rtype, 1, self.ttl, len(rdata)) + rdata)
        self.at += len(owner) + 10 + len(rdata)

    def add_cname(self, target: bytes) -> None:
        owner = self.owners[-1]
        self.add(owner, CNAME, self.compress(target, self.at + len(owner) + 10))
        known = self.seen.get(target)
        self.owners.append(target if known is None else _SHORT.pack(0xC000 | known))

    def add_records(self, rtype: int, records: Sequence[bytes], room_bytes: int) -> int:
        """Add as many records as fit, all or none of types other than addresses; return how many."""
        owner = self.owners[-1]
        if rtype in (A, AAAA):
            size = len(records[0])
            step = len(owner) + 10 + size
            kept = max(0, min(len(records), (room_bytes - self.at) // step))
            prefix = owner + _FIXED.pack(rtype, 1, self.ttl, size)
            self.parts += [prefix + record for record in records[:kept]]
            first = self.at + len(owner) + 4
            self.at += step * kept
            self.ttl_offsets += range(first, self.at, step)
            self.addresses_end = self.at
            return kept
        if self.at + sum(len(owner) + 10 + len(record) for record in records) > room_bytes:
            return 0
        for record in records:
            self.add(owner, rtype, record)
        return len(records)

    def add_soa(self, owner: bytes, rdata: bytes) -> None:
        self.add(self.compress(owner, self.at), SOA, rdata)

    def cut(self, end: int) -> None:
        """Drop every record that does not end before ``end``."""
        size = self.at
        while self.parts and size > end:
            size -= len(self.parts.pop())
        self.at = size
        self.ttl_offsets = [offset for offset in self.ttl_offsets if offset < size]
