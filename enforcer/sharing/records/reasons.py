"""The reasons of a shared grant as text, such as ``api.example.com mcp/web/allow 59.9``.

Pure. Owns that text and what it means later: seconds remaining when it was written, of which the grant's
own remaining time says how many are over. Invariant: the reason that lasts longest comes first, and it
lasts as long as its grant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote, unquote

from enforcer.sharing.records.seal import NotBelieved

MAX_REASONS_BYTES = 4000
COMPACT_BYTES = 64
"""Redis keeps a hash in half the memory while no value is longer (``hash-max-listpack-value``)."""
_PLAIN = re.compile(r"[!-$&-:<-~]*").fullmatch
"""Printable ASCII but space, percent sign and semicolon."""
_KEPT = "".join(map(chr, range(0x21, 0x7F))).translate({ord("%"): None, ord(";"): None})
_REMAINING = re.compile(r"[0-9]{1,9}\.[0-9]")
_MORE = re.compile(r"\+([0-9]{1,9})")


class SharedReason(NamedTuple):
    """A name, the rule that permits it, and how long it does from the instant of writing (seconds)."""

    name: str
    policy: str
    rule: str
    remaining_s: float


def escape(text: str) -> str:
    """Return a text without spaces, semicolons or anything unprintable: these as ``%XX``."""
    return text if _PLAIN(text) else quote(text, _KEPT, errors="replace")


def unescape(text: str) -> str:
    """Undo ``escape``; ``NotBelieved`` if it cannot have been written."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise NotBelieved("malformed") from None


def permission(policy: str, rule: str) -> str:
    """Return ``POLICY/RULE``; a slash in the rule is escaped, for a policy has some."""
    return f"{escape(policy)}/{escape(rule).replace('/', '%2F')}"


def reasons_octets(reasons: Iterable[SharedReason], more: int = 0) -> bytes:
    """Return the field: as many reasons as fit, the longest lasting first, and how many do not."""
    parts: list[bytes] = []
    size = 0
    for name, policy, rule, remaining_s in sorted(reasons, key=lambda each: (-each[3], each)):
        part = f"{escape(name)} {permission(policy, rule)} {remaining_s:.1f}".encode()
        size += len(part) + 2
        if size > MAX_REASONS_BYTES:
            more += 1
        else:
            parts.append(part)
    if more:
        parts.append(b"+%d" % more)
    return b"; ".join(parts)


def reasons_from(said: str) -> tuple[tuple[SharedReason, ...], int]:
    """Read the field: the reasons, and how many more there are."""
    reasons: list[SharedReason] = []
    for part in said.split("; ") if said else ():
        more = _MORE.fullmatch(part)
        if more:
            return tuple(reasons), int(more[1])
        words = part.split(" ")
        if len(words) != 3 or not _REMAINING.fullmatch(words[2]):
            raise NotBelieved("malformed")
        policy, _, rule = words[1].rpartition("/")
        reasons.append(SharedReason(unescape(words[0]), unescape(policy), unescape(rule), float(words[2])))
    return tuple(reasons), 0


def in_two(said: bytes) -> tuple[bytes, bytes]:
    """Return the fields ``reasons`` and ``reasons2``: a text that is not compact is cut after the name."""
    if len(said) <= COMPACT_BYTES:
        return said, b""
    name, _, rest = said.partition(b" ")
    return name, rest


def in_one(reasons: str, reasons2: str) -> str:
    """Undo ``in_two``."""
    return f"{reasons} {reasons2}" if reasons2 else reasons


def reasons_left(reasons: Iterable[SharedReason], remaining_s: float) -> list[SharedReason]:
    """Return the reasons that still hold where their grant has so much left (Redis's PTTL in seconds).

    The longest lasting one is what the grant's own time is, renewed or not; the others ran meanwhile.
    """
    listed = list(reasons)
    passed_s = max((each.remaining_s for each in listed), default=0.0) - remaining_s
    left = [each._replace(remaining_s=each.remaining_s - passed_s) for each in listed]
    return [each for each in left if each.remaining_s > 0]
