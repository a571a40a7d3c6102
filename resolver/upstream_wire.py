"""Questions to upstream servers and whether a message answers one, as bytes.

Owns the wire form of a question, built afresh: name, type, IN, RD=1, CD=0, our own OPT, nothing of
the client's. Never looks beyond the question section of an answer: the rest is hostile and the
core's to judge. Invariant: what matches was sent by someone who saw the question.
"""

from __future__ import annotations

import struct
from typing import Protocol

UDP_PAYLOAD_BYTES = 1232
"""What our OPT says we take by UDP: no fragment can carry part of an answer (DNS flag day 2020)."""

_LETTERS = bytes(0x20 if 0x61 <= octet <= 0x7A else 0 for octet in range(256))
_FLAGS_AND_COUNTS = struct.pack("!HHHHH", 0x0100, 1, 0, 0, 1)
_OPT = b"\0" + struct.pack("!HHIH", 41, UDP_PAYLOAD_BYTES, 0, 0)
_OPT_DO = b"\0" + struct.pack("!HHIH", 41, UDP_PAYLOAD_BYTES, 0x8000, 0)


class Randomness(Protocol):
    """Where ids and letter case come from: ``upstream_io.KernelBits`` outside of tests."""

    def getrandbits(self, k: int, /) -> int:
        """Return ``k`` random bits."""


def question_section(name: bytes, qtype: int, random: Randomness) -> bytes:
    """Return name, type and class IN, each letter of the name in random case (0x20).

    ``name`` is in wire form and lower-case; a label's length octet is at most 63 and so is never
    taken for a letter.
    """
    size = len(name)
    letters = int.from_bytes(name.translate(_LETTERS), "big")
    upper = letters & random.getrandbits(8 * size)
    cased = int.from_bytes(name, "big") ^ upper
    return (cased << 32 | qtype << 16 | 1).to_bytes(size + 4, "big")


def query(message_id: int, question: bytes, *, dnssec: bool) -> bytes:
    """Return the message that asks ``question``; ``dnssec`` sets the DO bit (RFC 3225)."""
    opt = _OPT_DO if dnssec else _OPT
    return b"".join((message_id.to_bytes(2, "big"), _FLAGS_AND_COUNTS, question, opt))


def message_id(wire: bytes) -> int | None:
    """Return the id of a message, None if it has no whole header."""
    return (wire[0] << 8 | wire[1]) if len(wire) >= 12 else None


def answers(wire: bytes, expected_id: int, question: bytes) -> bool:
    """Say whether it is a response (QR, opcode QUERY) with this id to exactly this question.

    Every octet counts, the case of the letters too (draft-vixie-dnsext-dns0x20; RFC 5452, 9.1).
    """
    return (
        wire[2:3] != b""
        and wire[2] & 0xF8 == 0x80
        and wire[0] << 8 | wire[1] == expected_id
        and wire[4:6] == b"\0\1"
        and wire[12 : 12 + len(question)] == question
    )


def answers_in_any_case(wire: bytes, expected_id: int, question: bytes) -> bool:
    """As ``answers``, for streams: who can write into one needs no guessing, so case is no proof."""
    end = 12 + len(question) - 4
    return (
        wire[2:3] != b""
        and wire[2] & 0xF8 == 0x80
        and wire[0] << 8 | wire[1] == expected_id
        and wire[4:6] == b"\0\1"
        and wire[12:end].lower() == question[:-4].lower()
        and wire[end : end + 4] == question[-4:]
    )


def is_truncated(wire: bytes) -> bool:
    """Say whether TC is set."""
    return bool(wire[2] & 0x02)


def rcode(wire: bytes) -> int:
    """Return the header's RCODE (without EDNS's upper bits)."""
    return wire[3] & 0x0F


def in_lower_case(wire: bytes, question: bytes) -> bytes:
    """Return the message with its question's name in lower case, as the core asked for it."""
    end = 12 + len(question) - 4
    return wire[:12] + wire[12:end].lower() + wire[end:]
