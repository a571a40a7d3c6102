"""Domain names as text: lower-case ASCII presentation form, no trailing dot, "" for the root.

Owns the way from wire labels to text and the questions about one name. Never resolves or matches
anything. Invariant: an octet outside ``[a-z0-9_-]`` appears only as ``\\DDD`` (RFC 1035, 5.1), so
such a name matches no pattern and is safe on a terminal, in a log and in JSON.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Final

from publicsuffixlist import PublicSuffixList

MAX_NAME_CHARACTERS: Final = 253
"""Longest presentation form without escapes: 255 octets on the wire (RFC 1035, 2.3.4)."""
MAX_LABEL_OCTETS: Final = 63

_PLAIN_OCTETS: Final = b"abcdefghijklmnopqrstuvwxyz0123456789_-"
_PLAIN_NAME: Final = _PLAIN_OCTETS + b"."
_is_plain: Final = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*").fullmatch


def from_wire(labels: bytes) -> str:
    """Return the text of an uncompressed wire name (RFC 1035, 3.1), with or without its final zero.

    Raises ``ValueError`` for a label that runs past the end, a label type other than plain, octets
    after the root label and a name of more than 255 octets.
    """
    found: list[bytes] = []
    at = octets = 0
    end = len(labels)
    while at < end:
        length = labels[at]
        at += 1
        if length == 0:
            if at != end:
                raise ValueError("octets after the root label")
            break
        if length > MAX_LABEL_OCTETS:
            raise ValueError("a label that is compressed or of an unknown type")
        if at + length > end:
            raise ValueError("a label runs past the end of the name")
        found.append(labels[at : at + length])
        at += length
        octets = at
    if octets + 1 > 255:
        raise ValueError("a name of more than 255 octets")
    joined = b".".join(found).lower()
    if joined.translate(None, _PLAIN_NAME) or joined.count(b".") >= len(found) > 0:
        return ".".join([_escaped(label.lower()) for label in found])
    return joined.decode("ascii")


def _escaped(label: bytes) -> str:
    return "".join(chr(octet) if octet in _PLAIN_OCTETS else f"\\{octet:03d}" for octet in label)


def is_permittable(name: str) -> bool:
    """Say whether a permit could ever match: only ``[a-z0-9_-]``, labels and length within bounds."""
    return len(name) <= MAX_NAME_CHARACTERS and _is_plain(name) is not None


def is_under(name: str, zone: str) -> bool:
    """Say whether the name is the zone or below it; every name is under the root zone ""."""
    return not zone or name == zone or name.endswith("." + zone)


def canonical_zone(text: str) -> str:
    """Return a zone's name as settings write it in this module's form: no dots around, lower-case."""
    return text.strip().strip(".").lower()


@lru_cache(maxsize=65536)
def registrable_domain(name: str) -> str:
    """Return the public suffix plus one label; the name itself when it has no such part."""
    return _suffixes().privatesuffix(name) or name


def public_suffix(name: str) -> str:
    """Return the public suffix of a name (one label where the list knows none)."""
    return _suffixes().publicsuffix(name) or name


@cache
def _suffixes() -> PublicSuffixList:
    # 70 ms to parse: made at the first question, not at import.
    return PublicSuffixList()
