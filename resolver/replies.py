"""Replies to clients, written by offset: question, CNAME chain, final RRset, SOA, our OPT.

Owns the bytes of a reply and its truncation. Never decides what is in it. Invariant: the question
is echoed byte for byte, nothing but chain, RRset, signatures, SOA and OPT is written, and the
message fits its limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

from resolver.messages import AAAA, CNAME, MAX_UDP_BYTES, RRSIG, SOA, A, Query, is_within

_COUNTS: Final = Struct("!5H")
_FIXED: Final = Struct("!HHIH")
_OPTION: Final = Struct("!HHH")
_SHORT: Final = Struct("!H")
_PLAIN_OPT: Final = b"\x00" + _FIXED.pack(41, MAX_UDP_BYTES, 0, 0)

MAX_TEXT_BYTES: Final = 120
BLOCKED_TTL_S: Final = 5
"""TTL and MINIMUM of the SOA in answers made here."""
_OWN_SOA: Final = (
    b"\x08nameward\x07invalid\x00\x06nobody\x07invalid\x00"
    b"\x00\x00\x00\x01\x00\x00\x0e\x10\x00\x00\x02\x58\x00\x01\x51\x80\x00\x00\x00\x05"
)


class Ede:
    """One extended DNS error (RFC 8914): INFO-CODE and EXTRA-TEXT. Compared by identity."""

    __slots__ = ("code", "text")

    def __init__(self, code: int, text: str = "") -> None:
        self.code = code
        self.text = text


class Body:
    """What a reply says after its question.

    ``chain``: CNAME targets in wire form, from the question on. ``records``: RDATAs of type
    ``rtype`` at the chain's end. ``soa``: owner and RDATA. ``signatures``: RRSIG RDATAs with the
    index of their owner in the chain (0 = the question's name). ``ttl``: seconds, for all records.
    """

    __slots__ = ("chain", "records", "rtype", "signatures", "soa", "ttl")

    def __init__(
        self,
        chain: tuple[bytes, ...] = (),
        rtype: int = 0,
        records: tuple[bytes, ...] = (),
        soa: tuple[bytes, bytes] | None = None,
        *,
        signatures: tuple[tuple[int, bytes], ...] = (),
        ttl: int = 0,
    ) -> None:
        self.chain = chain
        self.rtype = rtype
        self.records = records
        self.soa = soa
        self.signatures = signatures
        self.ttl = ttl


class Written:
    """A reply: its bytes, how many of the body's records it holds, where its TTLs stand."""

    __slots__ = ("kept", "ttl_offsets", "wire")

    def __init__(self, wire: bytes, kept: int, ttl_offsets: tuple[int, ...]) -> None:
        self.wire = wire
        self.kept = kept
        self.ttl_offsets = ttl_offsets


EMPTY: Final = Body()


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
            owner, rdata = body.soa
            section.add(section.compress(owner, section.at), SOA, rdata)
            authorities = 1
    if section.at > room_bytes:
        if not body.records and has_text(edes):
            return write_reply(query, rcode, body, [Ede(ede.code) for ede in edes], limit_bytes)
        truncated, authorities = True, 0
        whole = bool(body.records) and body.rtype in (A, AAAA) and section.addresses_end <= room_bytes
        section.cut(section.addresses_end if whole else chain_end if chain_end <= room_bytes else start)
        kept = kept if whole else 0
        answers = len(body.chain) + kept if chain_end <= room_bytes else 0
    flags = 0x8080 | query.flags & 0x7910 | rcode & 15
    if truncated:
        flags |= 0x0200
    counts = _COUNTS.pack(flags, 1 if query.question else 0, answers, authorities, 1 if opt else 0)
    parts = section.parts
    parts[0] = query.id + counts + query.question
    parts.append(opt)
    return Written(b"".join(parts), kept, tuple(section.ttl_offsets))


def write_error(query: Query, rcode: int, ede: Ede | None = None) -> bytes:
    """Write a reply without any record, of at most 512 octets."""
    return write_reply(query, rcode, EMPTY, (ede,) if ede else (), 512).wire


def has_text(edes: Sequence[Ede]) -> bool:
    """Say whether one of them has an EXTRA-TEXT."""
    return any(ede.text for ede in edes)


def _write_opt(query: Query, rcode: int, edes: Sequence[Ede]) -> bytes:
    options = b""
    for ede in edes:
        text = ede.text.encode("ascii", "backslashreplace")[:MAX_TEXT_BYTES]
        options += _OPTION.pack(15, 2 + len(text), ede.code) + text
    # RFC 3225: DO is copied; RFC 6891, 6.1.3: the upper bits of the extended RCODE
    extension = (rcode >> 4 << 24) | (0x8000 if query.do else 0)
    if not (options or extension):
        return _PLAIN_OPT
    return b"\x00" + _FIXED.pack(41, MAX_UDP_BYTES, extension, len(options)) + options


class _Section:
    """Records being written, with the offsets that later names may point to.

    ``parts`` begins with what stands before the records. ``seen`` is made at the first name that
    is not the question's own or above it.
    """

    __slots__ = ("addresses_end", "at", "name", "owners", "parts", "seen", "ttl", "ttl_offsets")

    def __init__(self, name: bytes, start: int, ttl: int) -> None:
        self.parts: list[bytes] = [b""]
        self.at = start
        self.ttl = ttl
        self.ttl_offsets: list[int] = []
        self.owners: list[bytes] = [b"\xc0\x0c"]
        self.addresses_end = start
        self.seen: dict[bytes, int] | None = None
        self.name = name

    def compress(self, name: bytes, at: int) -> bytes:
        """Compress a name that will stand at ``at`` and remember its suffixes (RFC 1035, 4.1.4)."""
        seen = self.seen
        if seen is None:
            if len(name) > 1 and is_within(self.name, name):
                return _SHORT.pack(0xC000 | 12 + len(self.name) - len(name))
            seen = self.seen = {}
            _remember(seen, self.name, 12)
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
        """Add one record."""
        self.ttl_offsets.append(self.at + len(owner) + 4)
        self.parts.append(owner + _FIXED.pack(rtype, 1, self.ttl, len(rdata)) + rdata)
        self.at += len(owner) + 10 + len(rdata)

    def add_cname(self, target: bytes) -> None:
        """Add one step of the chain."""
        owner = self.owners[-1]
        at = self.at + len(owner) + 10
        written = self.compress(target, at)
        self.add(owner, CNAME, written)
        if len(written) == 2:  # a pointer to the whole name
            self.owners.append(written)
        else:
            self.owners.append(_SHORT.pack(0xC000 | at) if at < 0x4000 and len(target) > 1 else target)

    def add_records(self, rtype: int, records: tuple[bytes, ...], room_bytes: int) -> int:
        """Add as many records as fit, all or none of types other than addresses; return how many."""
        owner = self.owners[-1]
        if rtype in (A, AAAA):
            size = len(records[0])
            step = len(owner) + 10 + size
            kept = (room_bytes - self.at) // step
            if kept >= len(records):
                kept = len(records)
            elif kept < 0:
                kept = 0
            prefix = owner + _FIXED.pack(rtype, 1, self.ttl, size)
            parts, offsets = self.parts, self.ttl_offsets
            offset = self.at + len(owner) + 4
            for index in range(kept):
                parts.append(prefix + records[index])
                offsets.append(offset)
                offset += step
            self.at += step * kept
            self.addresses_end = self.at
            return kept
        if self.at + sum(len(owner) + 10 + len(record) for record in records) > room_bytes:
            return 0
        for record in records:
            self.add(owner, rtype, record)
        return len(records)

    def cut(self, end: int) -> None:
        """Drop every record that does not end before ``end``."""
        size = self.at
        while len(self.parts) > 1 and size > end:
            size -= len(self.parts.pop())
        self.at = size
        self.ttl_offsets = [offset for offset in self.ttl_offsets if offset < size]


def _remember(seen: dict[bytes, int], name: bytes, at: int) -> None:
    """Note where each suffix of an uncompressed name stands."""
    index = 0
    while name and name[index]:
        seen.setdefault(name[index:], at + index)
        index += name[index] + 1
