"""Changes to the sets of ``bridge nameward`` as one nf_tables transaction, octet for octet.

Pure. Owns their wire form (linux/netfilter/nf_tables.h); never opens a socket. libnftables is not asked
for them, because it reads all tables of the machine for a change of one element.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import groupby

from enforcer.bridge_sets import MAP, Entry, Turn, Value
from enforcer.layout import BRIDGE_TABLE
from enforcer.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, attribute, message, nested, text
from enforcer.transaction import DELSETELEM, NEWSETELEM, NFPROTO_BRIDGE, SUBSYSTEM, Batch

PIECE = 500
"""Elements in one message: one nested attribute holds 65,535 octets, an element 60 at most."""
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_TABLE, _SET, _ELEMENTS = 1, 2, 3
_KEY, _DATA = 1, 2
_VALUE = 1
_NAME_BYTES = 16


def messages_of(turns: Sequence[Turn]) -> int:
    """Say how many sequence numbers ``batch`` takes at most."""
    return len(turns) + 2


def batch(turns: Sequence[Turn], first_seq: int) -> Batch:
    """Encode what comes and goes, in this order; the last message is the one that is acknowledged."""
    bodies = [(comes, _elements(name, entries, with_data=comes)) for comes, name, entries in _pieces(turns)]
    mark = struct.pack(">BBH", 0, 0, SUBSYSTEM)
    parts = [message(_BATCH_BEGIN, NLM_F_REQUEST, first_seq, mark)]
    for number, (comes, body) in enumerate(bodies, 1):
        flags = NLM_F_REQUEST | (NLM_F_CREATE if comes else 0) | (NLM_F_ACK if number == len(bodies) else 0)
        kind = SUBSYSTEM << 8 | (NEWSETELEM if comes else DELSETELEM)
        parts.append(message(kind, flags, first_seq + number, body))
    parts.append(message(_BATCH_END, NLM_F_REQUEST, first_seq + len(bodies) + 1, mark))
    return Batch(b"".join(parts), first_seq, ((),) * len(bodies))


def _pieces(turns: Sequence[Turn]) -> Iterator[tuple[bool, str, list[Entry]]]:
    """Put together what one message can say."""
    for (comes, name), run in groupby(turns, lambda turn: (turn.comes, turn.set)):
        entries = [turn.entry for turn in run]
        yield from ((comes, name, entries[at : at + PIECE]) for at in range(0, len(entries), PIECE))


def _elements(name: str, entries: Sequence[Entry], *, with_data: bool) -> bytes:
    header = struct.pack(">BBH", NFPROTO_BRIDGE, 0, 0) + text(_TABLE, BRIDGE_TABLE) + text(_SET, name)
    found = b"".join(nested(1, _element(name, entry, with_data=with_data)) for entry in entries)
    return header + nested(_ELEMENTS, found)


def _element(name: str, entry: Entry, *, with_data: bool) -> bytes:
    """Encode a key, whose fields are whole words where there are several, and where it leads."""
    key, data = (entry[:-1], entry[-1:]) if name == MAP else (entry, ())
    fields = [_octets(value) for value in key]
    joined = fields[0] if len(fields) == 1 else b"".join(each + bytes(-len(each) % 4) for each in fields)
    leads = [nested(_DATA, attribute(_VALUE, _octets(value))) for value in data if with_data]
    return nested(_KEY, attribute(_VALUE, joined)) + b"".join(leads)


def _octets(value: Value) -> bytes:
    return value.encode().ljust(_NAME_BYTES, b"\0") if isinstance(value, str) else value
