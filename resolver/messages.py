"""Queries from clients, read by offset: header, question, OPT record.

Owns what a query is and which malformed ones get which error. Never builds a message object,
never decides about names. Invariant: any bytes give a Query or None, never an exception.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

HEADER: Final = Struct("!6H")
RECORD: Final = Struct("!HHIH")
"""Type, class, TTL and RDLENGTH of a record, after its owner."""
PAIR: Final = Struct("!HH")

MAX_QUERY_BYTES: Final = 4096
"""A longer query is a format error: no honest question needs it, and parsing it costs all pods."""
MAX_UDP_BYTES: Final = 1232
MIN_UDP_BYTES: Final = 512

NOERROR: Final = 0
FORMERR: Final = 1
SERVFAIL: Final = 2
NXDOMAIN: Final = 3
NOTIMP: Final = 4
REFUSED: Final = 5
BADVERS: Final = 16
A: Final = 1
NS: Final = 2
CNAME: Final = 5
SOA: Final = 6
PTR: Final = 12
MX: Final = 15
TXT: Final = 16
AAAA: Final = 28
SRV: Final = 33
OPT: Final = 41
RRSIG: Final = 46
SVCB: Final = 64
HTTPS: Final = 65
IXFR: Final = 251
ANY: Final = 255
IN: Final = 1
NOTIFY: Final = 4
UPDATE: Final = 5


class Query:
    """One parsed query. ``question`` is echoed byte for byte, ``name`` is its wire form lower-cased.

    ``rcode`` is NOERROR, or the error the query deserves whatever it asks. ``size`` is the longest
    UDP reply in octets that client and we accept. ``opt``: the query had an OPT record.
    """

    __slots__ = ("do", "flags", "id", "name", "opt", "qclass", "qtype", "question", "rcode", "size")

    def __init__(
        self, ident: bytes, flags: int, question: bytes, options: Options, *, qtype: int = 0, qclass: int = 0
    ) -> None:
        self.id = ident
        self.flags = flags
        self.question = question
        self.name = question[:-4].lower()
        self.qtype = qtype
        self.qclass = qclass
        self.opt = options.opt
        self.size = options.size
        self.do = options.do
        self.rcode = options.rcode


class Options:
    """What a query's OPT record says; ``rcode`` as in Query."""

    __slots__ = ("do", "opt", "rcode", "size")

    def __init__(
        self, *, opt: bool = False, size: int = MIN_UDP_BYTES, do: bool = False, rcode: int = NOERROR
    ) -> None:
        self.opt = opt
        self.size = size
        self.do = do
        self.rcode = rcode

    def failing(self, rcode: int) -> Options:
        """Return the same with another code."""
        return Options(opt=self.opt, size=self.size, do=self.do, rcode=rcode)


NO_OPTIONS: Final = Options()
MALFORMED: Final = Options(rcode=FORMERR)
_ONE_QUESTION: Final = b"\x00\x01\x00\x00\x00\x00\x00"
"""The counts of nearly every query, but for the last octet: one question, perhaps an OPT record."""


def parse_query(wire: bytes) -> Query | None:
    """Read one client message; None for what must stay unanswered: responses and fragments of a header."""
    if len(wire) < 12:
        return None
    flags = wire[2] << 8 | wire[3]
    if flags & 0x8000:  # answering responses would make loops
        return None
    ident = wire[:2]
    if flags & 0x7800:
        return _other_opcode(wire, ident, flags)
    answers = authorities = 0
    additionals = wire[11]
    is_usual = wire[4:11] == _ONE_QUESTION
    if not is_usual:
        _, _, questions, answers, authorities, additionals = HEADER.unpack_from(wire)
        if questions != 1:  # RFC 9619
            return Query(ident, flags, b"", MALFORMED)
    end = question_end(wire) if len(wire) <= MAX_QUERY_BYTES else -1
    if end < 0:
        return Query(ident, flags, b"", MALFORMED)
    qtype = wire[end - 4] << 8 | wire[end - 3]
    qclass = wire[end - 2] << 8 | wire[end - 1]
    if is_usual and not additionals:
        options = NO_OPTIONS if end == len(wire) else MALFORMED
    elif is_usual and additionals == 1 and wire[end : end + 3] == b"\x00\x00\x29":
        options = _options(wire, end + 1, len(wire))
    else:
        options = _walk(wire, end, answers + authorities, additionals)
        if (answers or (authorities and qtype != IXFR)) and options.rcode == NOERROR:
            options = options.failing(FORMERR)
    return Query(ident, flags, wire[12:end], options, qtype=qtype, qclass=qclass)


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
    limit = MAX_UDP_BYTES if udp_bytes > MAX_UDP_BYTES else udp_bytes
    limit = max(limit, MIN_UDP_BYTES)
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
            return found.failing(FORMERR)
        kind, _, _, length = RECORD.unpack_from(wire, at)
        end = at + 10 + length
        if end > size:
            return found.failing(FORMERR)
        if kind == OPT:  # RFC 6891, 6.1.1: one, owned by the root, in the additional section
            if found.opt or index < before or wire[owner]:
                return found.failing(FORMERR)
            found = _options(wire, at, end)
        at = end
    return found if at == size or found.rcode else found.failing(FORMERR)


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


def is_within(name: bytes, zone: bytes) -> bool:
    """Say whether a wire-form name is ``zone`` or under it, on label borders."""
    at = len(name) - len(zone)
    if at < 0 or name[at:] != zone:
        return False
    index = 0
    while index < at:
        index += name[index] + 1
    return index == at


def _other_opcode(wire: bytes, ident: bytes, flags: int) -> Query:
    """NOTIFY and UPDATE are refused, the rest not implemented (RFC 8906, 3.1.4: header only)."""
    if flags >> 11 & 15 not in (NOTIFY, UPDATE):
        return Query(ident, flags, b"", NO_OPTIONS.failing(NOTIMP))
    options = NO_OPTIONS
    _, _, questions, answers, authorities, additionals = HEADER.unpack_from(wire)
    end = question_end(wire) if questions == 1 else -1
    if end > 0 and len(wire) <= MAX_QUERY_BYTES:
        options = _walk(wire, end, answers + authorities, additionals)
    return Query(ident, flags, b"", options.failing(options.rcode or REFUSED))
