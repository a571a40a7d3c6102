"""nf_tables messages, byte for byte: batches of element changes, and what dumps and events say.

Pure. Owns the wire form of linux/netfilter/nf_tables.h that we use; never opens a socket.
Invariant: the order of changes to one set is kept; all of them are in one transaction, however
many messages it takes (one nested attribute holds at most 65,535 octets).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

from enforcer.elements import COMMENT_BYTES, PREFIX_SETS, Add, Change, Element, InstalledElement, Remove
from enforcer.netlink import (
    HEADER,
    NLA_NESTED,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    Message,
    attribute,
    attributes,
    text,
)
from enforcer.ways import Ended, Grant

NFPROTO_INET, NFPROTO_BRIDGE = 1, 7
SUBSYSTEM = 10
GETTABLE, DELTABLE, GETCHAIN, GETRULE, GETSET = 1, 2, 4, 7, 10
NEWSETELEM, GETSETELEM, DELSETELEM, NEWGEN, GETOBJ = 12, 13, 14, 15, 19
STRUCTURE_QUERIES: tuple[tuple[int, tuple[int, ...]], ...] = (
    (GETTABLE, (1, 2)),
    (GETCHAIN, (1, 3, 4, 5, 7)),
    (GETRULE, (1, 2, 4)),
    (GETSET, (1, 2, 3, 4, 5, 9, 11)),
)
"""Dumps that describe a table, and the attributes that matter of each: name and flags; name, hook,
policy, type; chain and expressions; name, flags, key type and length, size, timeout. Not handles,
use counts or numbers of elements."""
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_ELEM_KEY, _ELEM_FLAGS, _ELEM_TIMEOUT, _ELEM_EXPIRATION, _ELEM_USERDATA, _ELEM_KEY_END = 1, 3, 4, 5, 6, 10
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_INTERVAL_END = 1
_MARK = struct.pack(">BBH", 0, 0, SUBSYSTEM)
_NEST_BYTES = 65_000
_ATTRIBUTE = struct.Struct("=HH")
_PADDING = (b"", bytes(3), bytes(2), bytes(1))
_DATA_HEADERS = {
    (kind, size): _ATTRIBUTE.pack(8 + (size + 3 & ~3), kind | NLA_NESTED) + _ATTRIBUTE.pack(4 + size, 1)
    for kind in (_ELEM_KEY, _ELEM_KEY_END)
    for size in range(1, 65)
}
"""What comes before a key of this length: made once, a grant is on somebody's way to his answer."""
_PRINTABLE = bytes(c if 0x20 <= c < 0x7F and c != 0x22 else 0x3F for c in range(256))


_Run = tuple[str, int, list[int], list[bytes]]
"""Set, kind of message, indices of its changes, their wire form."""


class Batch(NamedTuple):
    """One transaction, ready to send. ``runs`` says which changes each message carries, in order."""

    data: bytes
    first_seq: int
    runs: tuple[tuple[int, ...], ...]

    @property
    def last_seq(self) -> int:
        """Sequence number of the message whose acknowledgement ends it."""
        return self.first_seq + len(self.runs)


def batch(table: str, changes: Sequence[Change], first_seq: int, *, renews: bool) -> Batch:
    """Encode changes as one transaction. ``renews``: this kernel honours an expiration on re-adding.

    Otherwise a renewal is add, delete, add: deleting alone fails if the element has just expired.
    """
    runs: list[_Run] = []
    latest: dict[str, int] = {}
    sizes: list[int] = []

    def put(kind: int, index: int, name: str, encoded: bytes) -> None:
        at = latest.get(name, -1)
        if at < 0 or runs[at][1] != kind or sizes[at] + len(encoded) > _NEST_BYTES:
            at = latest[name] = len(runs)
            runs.append((name, kind, [], []))
            sizes.append(0)
        runs[at][2].append(index)
        runs[at][3].append(encoded)
        sizes[at] += len(encoded)

    for index, change in enumerate(changes):
        if isinstance(change, Remove):
            put(DELSETELEM, index, change.set, _keys(change.set, change.key, change.key_end, b""))
            continue
        element = change.element
        if isinstance(change, Add) or not renews:
            put(NEWSETELEM, index, element.set, _element(element))
        if not isinstance(change, Add):
            if not renews:
                put(DELSETELEM, index, element.set, _keys(element.set, element.key, element.key_end, b""))
            expires_ms = (change.expires_ms or element.timeout_ms) if renews else 0
            put(NEWSETELEM, index, element.set, _element(element, expires_ms))
    return _frame(table, runs, first_seq)


def grants(table: str, opened: Sequence[Grant], first_seq: int) -> Batch:
    """Encode grants as ``batch`` would their changes on a kernel that renews, without making those changes.

    A grant is on somebody's way to his answer: what both of its elements have in common is made once.
    """
    runs: list[_Run] = []
    latest: dict[str, int] = {}
    sizes: list[int] = []
    said, user = b"", b""
    for way, pair, timeout_ms, comment, is_prolonged in opened:
        if comment is not said:
            said, user = comment, _user_data(comment)
        key = pair + way.tail
        kind = _DATA_HEADERS[_ELEM_KEY, len(key)] + key  # its fields are whole words: no padding
        body = kind + _time(timeout_ms, timeout_ms if is_prolonged else 0) + user
        for name, encoded in ((way.grants, body), (way.live, kind + user)):
            at = latest.get(name, -1)
            if at < 0 or sizes[at] + len(encoded) + 4 > _NEST_BYTES:
                at = latest[name] = len(runs)
                runs.append((name, NEWSETELEM, [], []))
                sizes.append(0)
            runs[at][3].append(_ELEMENT_HEADERS[len(encoded)])
            runs[at][3].append(encoded)
            sizes[at] += 4 + len(encoded)
            if is_prolonged:
                break
    return _frame(table, runs, first_seq)


def ends(table: str, ended: Sequence[Ended], first_seq: int) -> Batch:
    """Encode that elements are gone of which ``plan.absence`` says the same: each is added, then deleted."""
    runs: list[_Run] = []
    latest: dict[str, int] = {}
    sizes: list[int] = []
    for way, pair in ended:
        key = pair + way.tail
        encoded = _DATA_HEADERS[_ELEM_KEY, len(key)] + key
        at = latest.get(way.live, -1)
        if at < 0 or sizes[at] + len(encoded) + 4 > _NEST_BYTES:
            at = latest[way.live] = len(runs)
            runs.append((way.live, NEWSETELEM, [], []))
            sizes.append(0)
        runs[at][3].append(_ELEMENT_HEADERS[len(encoded)])
        runs[at][3].append(encoded)
        sizes[at] += 4 + len(encoded)
    return _frame(
        table, [*runs, *((name, DELSETELEM, none, same) for name, _, none, same in runs)], first_seq
    )


_ELEMENT_HEADERS = [_ATTRIBUTE.pack(4 + size, 1 | NLA_NESTED) for size in range(512)]
"""What comes before an element of so many octets; a grant's has 328 at most."""


def _user_data(comment: bytes) -> bytes:
    if not comment:
        return b""
    said = comment[:COMMENT_BYTES].translate(_PRINTABLE) + b"\0"
    return attribute(_ELEM_USERDATA, bytes((0, len(said))) + said)


def _frame(table: str, runs: list[_Run], first_seq: int) -> Batch:
    last = len(runs)
    parts = [HEADER.pack(20, _BATCH_BEGIN, NLM_F_REQUEST, first_seq, 0), _MARK]
    for number, (name, kind, _, encoded) in enumerate(runs, 1):
        flags = NLM_F_REQUEST | NLM_F_CREATE if kind == NEWSETELEM else NLM_F_REQUEST
        if number == last:
            flags |= NLM_F_ACK
        header = list_header(table, name)
        size = 4 + sum(map(len, encoded))  # each is padded already
        parts += (
            HEADER.pack(16 + len(header) + size, SUBSYSTEM << 8 | kind, flags, first_seq + number, 0),
            header,
            _ATTRIBUTE.pack(size, _LIST_ELEMENTS | NLA_NESTED),
            *encoded,
        )
    parts += (HEADER.pack(20, _BATCH_END, NLM_F_REQUEST, first_seq + last + 1, 0), _MARK)
    return Batch(b"".join(parts), first_seq, tuple(tuple(indices) for _, _, indices, _ in runs))


@cache
def list_header(table: str, name: str) -> bytes:
    """Family, table and set: what every element message begins with."""
    return struct.pack(">BBH", NFPROTO_INET, 0, 0) + text(_LIST_TABLE, table) + text(_LIST_SET, name)


def table_header(table: str, family: int = NFPROTO_INET) -> bytes:
    """Family and table: what a query about a table's parts begins with."""
    return struct.pack(">BBH", family, 0, 0) + text(1, table)


def structure_parts(
    table: str, kind: int, kept: tuple[int, ...], found: Sequence[Message], family: int = NFPROTO_INET
) -> Iterator[bytes]:
    """Keep what matters of a dump, and only of this table (dumps of chains hold all tables')."""
    name = table.encode() + b"\0"
    for answer in found:
        fields = dict(attributes(answer.payload, 4))
        if answer.payload[0] == family and fields.get(1) == name:
            yield bytes((kind,)) + b"".join(attribute(k, fields[k]) for k in kept if k in fields)


@lru_cache(4096)
def _time(timeout_ms: int, expires_ms: int) -> bytes:
    encoded = attribute(_ELEM_TIMEOUT, struct.pack(">Q", timeout_ms)) if timeout_ms else b""
    return encoded + (attribute(_ELEM_EXPIRATION, struct.pack(">Q", expires_ms)) if expires_ms else b"")


def _element(element: Element, expires_ms: int = 0) -> bytes:
    rest = _time(element.timeout_ms, expires_ms) + _user_data(element.comment)
    return _keys(element.set, element.key, element.key_end, rest)


def _keys(name: str, key: bytes, key_end: bytes, rest: bytes) -> bytes:
    """Encode one element (two for a one-field interval: its start, and what follows its end)."""
    if not key_end:
        return _wrap(_data(_ELEM_KEY, key) + rest)
    if name not in PREFIX_SETS:
        return _wrap(_data(_ELEM_KEY, key) + _data(_ELEM_KEY_END, key_end) + rest)
    start = _wrap(_data(_ELEM_KEY, key) + rest)
    after = int.from_bytes(key_end, "big") + 1
    if after >> (8 * len(key)):
        return start
    flags = attribute(_ELEM_FLAGS, struct.pack(">I", _INTERVAL_END))
    return start + _wrap(_data(_ELEM_KEY, after.to_bytes(len(key), "big")) + flags)


def _data(kind: int, value: bytes) -> bytes:
    return _DATA_HEADERS[kind, len(value)] + value + _PADDING[len(value) & 3]


def _wrap(body: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(body), 1 | NLA_NESTED) + body


def refused_change(sent: Batch, seq: int, offset: int) -> int:
    """Say which change a refusal means: the kernel's offset points at one element of one message."""
    number = seq - sent.first_seq - 1
    if not 0 <= number < len(sent.runs):
        return -1
    start = 0
    for _ in range(number + 1):
        start += (struct.unpack_from("=I", sent.data, start)[0] + 3) & ~3
    length = struct.unpack_from("=I", sent.data, start)[0]
    body = sent.data[start : start + length]
    at, position = 16 + 4, 0
    for kind, value in attributes(body, at):
        if kind == _LIST_ELEMENTS:
            at += 4
            for _, inner in attributes(value):
                at += 4 + len(inner)
                if offset < at:
                    break
                position += 1
            break
        at += (4 + len(value) + 3) & ~3
    run = sent.runs[number]
    if not run:
        return -1
    return run[min(position, len(run) - 1)] if offset >= 0 else run[0]


def installed(name: str, found: Sequence[Message]) -> Iterator[InstalledElement]:
    """Read the elements of a dump; one-field intervals are put together from their ends."""
    raw = [_installed(body) for answer in found for body in _bodies(answer)]
    if name not in PREFIX_SETS:
        yield from (element for element, _ in raw)
        return
    start: InstalledElement | None = None
    for element, ends in sorted(raw, key=lambda pair: (pair[0].key, not pair[1])):
        if start is not None and ends:
            last = (int.from_bytes(element.key, "big") - 1).to_bytes(len(element.key), "big")
            yield start._replace(key_end=last)
        start = None if ends else element
    if start is not None:
        yield start._replace(key_end=b"\xff" * len(start.key))


def _bodies(answer: Message) -> Iterator[bytes]:
    for kind, value in attributes(answer.payload, 4):
        if kind == _LIST_ELEMENTS:
            for _, body in attributes(value):
                yield body


def _installed(body: bytes) -> tuple[InstalledElement, bool]:
    key = key_end = comment = b""
    expires: int | None = None
    ends = False
    for kind, value in attributes(body):
        if kind == _ELEM_KEY:
            key = value[4 : struct.unpack_from("=H", value)[0]]
        elif kind == _ELEM_KEY_END:
            key_end = value[4 : struct.unpack_from("=H", value)[0]]
        elif kind == _ELEM_EXPIRATION:
            expires = struct.unpack(">Q", value)[0]
        elif kind == _ELEM_USERDATA and len(value) > 2 and value[0] == 0:
            comment = value[2 : 2 + value[1]].rstrip(b"\0")
        elif kind == _ELEM_FLAGS:
            ends = bool(struct.unpack(">I", value)[0] & _INTERVAL_END)
    return InstalledElement(key, key_end, expires, comment), ends


def counters(found: Sequence[Message]) -> dict[str, tuple[int, int]]:
    """Read a dump of named counters: name → (packets, octets)."""
    read: dict[str, tuple[int, int]] = {}
    for answer in found:
        fields = dict(attributes(answer.payload, 4))
        data = dict(attributes(fields.get(4, b"")))
        if 2 in fields and 1 in data and 2 in data:
            octets, packets = struct.unpack(">Q", data[1])[0], struct.unpack(">Q", data[2])[0]
            read[fields[2].rstrip(b"\0").decode()] = (packets, octets)
    return read


def counters_query(table: str) -> bytes:
    """Ask for all named counters of a table (NFT_OBJECT_COUNTER is 1)."""
    return struct.pack(">BBH", NFPROTO_INET, 0, 0) + text(1, table) + attribute(3, struct.pack(">I", 1))
