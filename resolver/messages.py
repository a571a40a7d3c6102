"""Queries from clients, read by offset: header, question, OPT record.

Owns what a query is and which malformed ones get which error. Never builds a message object,
never decides about names. Invariant: any bytes give a Query or None, never an exception.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

HEADER = Struct("!6H")
RECORD = Struct("!HHIH")
"""Type, class, TTL and RDLENGTH of a record, after its owner."""
PAIR = Struct("!HH")

MAX_QUERY_BYTES = 4096
"""A longer query is a format error: no honest question needs it, and parsing it costs all pods."""
MAX_UDP_BYTES = 1232
MIN_UDP_BYTES = 512

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV = 1, 2, 5, 6, 12, 15, 16, 28, 33
OPT, RRSIG, SVCB, HTTPS, IXFR, AXFR, ANY = 41, 46, 64, 65, 251, 252, 255
IN = 1
NOTIFY, UPDATE = 4, 5


class Query(NamedTuple):
    """One parsed query. ``question`` is echoed byte for byte, ``name`` is its wire form lower-cased.

    ``rcode`` is NOERROR, or the error the query deserves whatever it asks. ``size`` is the longest
    UDP reply in octets that client and we accept. ``opt``: the query had an OPT record.
    """

    id: bytes
    flags: int
    question: bytes
    name: bytes
    qtype: int
    qclass: int
    opt: bool
    size: int
    do: bool
    rcode: int


class Options(NamedTuple):
    """What a query's OPT record says; ``rcode`` as in Query."""

    opt: bool
    size: int
    do: bool
    rcode: int


NO_OPTIONS = Options(opt=False, size=MIN_UDP_BYTES, do=False, rcode=NOERROR)
MALFORMED = NO_OPTIONS._replace(rcode=FORMERR)


def parse_query(wire: bytes) -> Query | None:
    """Read one client message; None for what must stay unanswered: responses and fragments of a header."""
    if len(wire) < 12:
        return None
    _, flags, questions, answers, authorities, additionals = HEADER.unpack_from(wire)
    if flags & 0x8000:  # answering responses would make loops
        return None
    ident = wire[:2]
    opcode = flags >> 11 & 15
    if opcode:
        return _other_opcode(wire, ident, flags, opcode)
    if questions != 1 or len(wire) > MAX_QUERY_BYTES:  # RFC 9619
        return Query(ident, flags, b"", b"", 0, 0, *MALFORMED)
    end = question_end(wire)
    if end < 0:
        return Query(ident, flags, b"", b"", 0, 0, *MALFORMED)
    qtype, qclass = PAIR.unpack_from(wire, end - 4)
    others = answers + authorities + additionals
    if not others:
        options = NO_OPTIONS if end == len(wire) else MALFORMED
    elif others == 1 and additionals and wire[end : end + 3] == b"\x00\x00\x29":
        options = _options(wire, end + 1, len(wire))
    else:
        options = _walk(wire, end, answers + authorities, additionals)
        if (answers or (authorities and qtype != IXFR)) and options.rcode == NOERROR:
            options = options._replace(rcode=FORMERR)
    return Query(ident, flags, wire[12:end], wire[12 : end - 4].lower(), qtype, qclass, *options)


def question_end(wire: bytes) -> int:
    """Offset after the first question, or -1 where it is broken, compressed or over-long."""
    at = 12
    size = len(wire)
    while at < size:
        length = wire[at]
        if not length:
            end = at + 5
            return end if end <= size and at - 12 < 255 else -1
        if length > 63:
            return -1
        at += length + 1
    return -1


def _options(wire: bytes, at: int, size: int) -> Options:
    """Read the OPT record whose type stands at ``at`` and which must end at ``size``."""
    if at + 10 > size:
        return MALFORMED
    _, udp_bytes, extension, length = RECORD.unpack_from(wire, at)
    at += 10
    if at + length != size:
        return MALFORMED
    while at < size:  # option contents are ignored; their lengths must add up
        if at + 4 > size:
            return MALFORMED
        at += 4 + PAIR.unpack_from(wire, at)[1]
    limit = min(max(udp_bytes, MIN_UDP_BYTES), MAX_UDP_BYTES)
    rcode = NOERROR if at == size else FORMERR
    if extension >> 16 & 0xFF:  # RFC 6891, 6.1.3: the version is checked before anything else
        rcode = BADVERS
    return Options(opt=True, size=limit, do=bool(extension & 0x8000), rcode=rcode)


def _walk(wire: bytes, at: int, before: int, additionals: int) -> Options:
    """Find the OPT record among others (TSIG, SIG(0), unknown ones: ignored, RFC 8906)."""
    found = NO_OPTIONS
    size = len(wire)
    for index in range(before + additionals):
        owner = at
        at = skip_name(wire, at)
        if at < 0 or at + 10 > size:
            return found._replace(rcode=FORMERR)
        kind, _, _, length = RECORD.unpack_from(wire, at)
        end = at + 10 + length
        if end > size:
            return found._replace(rcode=FORMERR)
        if kind == OPT:  # RFC 6891, 6.1.1: one, owned by the root, in the additional section
            if found.opt or index < before or wire[owner]:
                return found._replace(rcode=FORMERR)
            found = _options(wire, at, end)
        at = end
    return found if at == size or found.rcode else found._replace(rcode=FORMERR)


def skip_name(wire: bytes, at: int) -> int:
    """Offset after the possibly compressed name at ``at``, or -1 where it is broken."""
    size = len(wire)
    while at < size:
        length = wire[at]
        if not length:
            return at + 1
        if length >= 0xC0:
            return at + 2 if at + 2 <= size else -1
        if length > 63:
            return -1
        at += length + 1
    return -1


def _other_opcode(wire: bytes, ident: bytes, flags: int, opcode: int) -> Query:
    """NOTIFY and UPDATE are refused, the rest not implemented (RFC 8906, 3.1.4: header only)."""
    if opcode not in (NOTIFY, UPDATE):
        return Query(ident, flags, b"", b"", 0, 0, *NO_OPTIONS._replace(rcode=NOTIMP))
    options = NO_OPTIONS
    _, _, questions, answers, authorities, additionals = HEADER.unpack_from(wire)
    end = question_end(wire) if questions == 1 else -1
    if end > 0 and len(wire) <= MAX_QUERY_BYTES:
        options = _walk(wire, end, answers + authorities, additionals)
    rcode = options.rcode or REFUSED
    return Query(ident, flags, b"", b"", 0, 0, *options._replace(rcode=rcode))
