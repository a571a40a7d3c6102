"""What nodes write to each other through Redis: a request, its acknowledgement, a claim to an address.

Pure. Owns the fields of these stream entries; ``fields`` and ``letter_from`` are each other's inverse.
Reading checks form and size; the seal is checked before (``enforcer.sharing.records.seal``). Invariant:
whatever the octets are, reading gives a letter or raises ``NotBelieved("malformed")``, at a bounded cost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, cast

from enforcer.sharing.records.keys import address_text
from enforcer.sharing.records.seal import VERSION, Keyring, NotBelieved, octets, seal
from policy.addresses import from_packed, to_packed
from policy.authority import Outcome

MAX_ADDRESSES = 512
"""Addresses of one request to another node; an answer with more is one of a flood."""
MAX_NAME_CHARS = 1024
MAX_REASON_CHARS = 300
MAX_UID_CHARS = 256
MAX_REMAINING_S = 1_000_000.0
LARGEST = 10**17
"""No number in a letter is larger."""
PLAIN_BYTES = 512
MORE_BYTES = 64
"""An ordinary letter is no longer than the one; each of these beyond it costs as much as a letter."""

Fields = Mapping[bytes, bytes]
_NODE = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_WORD = re.compile(r"[0-9a-z]{1,32}")
_WHOLE = re.compile(r"[0-9]{1,17}")
_SECONDS = re.compile(r"[0-9]{1,7}(?:\.[0-9]{1,3})?")
_V4 = re.compile(r"(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})")
_OUTCOMES = frozenset(("realized", "denied", "limit", "failed"))


class Asked(NamedTuple):
    """A request to the node that has the pod. ``source`` is the pod's packed address."""

    id: int
    node: str
    """Who asks."""
    session: str
    seq: int
    """Grows with every letter of a session."""
    to: str
    challenge: str
    source: bytes
    uid: str
    name: str
    addresses: tuple[bytes, ...]
    ttl_s: int

    def fields(self) -> dict[bytes, bytes]:
        """Return its fields."""
        return {
            b"kind": b"grant",
            **_opening(self),
            b"id": b"%d" % self.id,
            b"podIP": address_text(self.source).strip(b"[]"),
            b"uid": octets(self.uid),
            b"name": octets(self.name),
            b"addresses": " ".join(map(from_packed, self.addresses)).encode(),
            b"ttl": b"%d" % self.ttl_s,
        }


class Acked(NamedTuple):
    """What became of a request: one outcome an address, or none where the ``challenge`` was not known."""

    id: int
    node: str
    """Who answers."""
    to: str
    session: str
    """The asker's, as it was in the request."""
    outcomes: tuple[Outcome, ...]
    remaining_s: float
    """How long what is realized lasts, from when the kernel acknowledged it."""
    generation: int
    reason: str

    def fields(self) -> dict[bytes, bytes]:
        """Return its fields."""
        return {
            b"kind": b"ack",
            b"id": b"%d" % self.id,
            b"from": octets(self.node),
            b"to": octets(self.to),
            b"session": octets(self.session),
            b"outcomes": " ".join(self.outcomes or ("challenge",)).encode(),
            b"remaining": b"%.3f" % self.remaining_s,
            b"generation": b"%d" % self.generation,
            b"reason": octets(self.reason[:MAX_REASON_CHARS]),
        }


class Claimed(NamedTuple):
    """The sender's own source and interface say that an address is there. ``source`` is packed."""

    node: str
    session: str
    seq: int
    to: str
    challenge: str
    source: bytes
    uid: str
    generation: int
    """Of the claim; grows with each new one to that address, whoever makes it."""

    def fields(self) -> dict[bytes, bytes]:
        """Return its fields."""
        return {
            b"kind": b"claim",
            **_opening(self),
            b"podIP": address_text(self.source).strip(b"[]"),
            b"uid": octets(self.uid),
            b"generation": b"%d" % self.generation,
        }


class Owner(NamedTuple):
    """The hash that says whose an address is; ``disputed``: two nodes have it."""

    node: str
    uid: str
    generation: int
    disputed: bool

    def fields(self) -> dict[bytes, bytes]:
        """Return its fields."""
        return {
            b"node": octets(self.node),
            b"uid": octets(self.uid),
            b"generation": b"%d" % self.generation,
            b"disputed": b"true" if self.disputed else b"false",
        }


OWNER_FIELDS = frozenset((b"node", b"uid", b"generation", b"disputed", b"v", b"mac"))


def written(keyring: Keyring, key: bytes, letter: Asked | Acked | Claimed | Owner) -> dict[bytes, bytes]:
    """Return the fields of an entry or a hash under this key, sealed."""
    fields = letter.fields()
    fields[b"v"] = VERSION
    fields[b"mac"] = seal(keyring, key, fields)
    return fields


def is_challenge(text: str) -> bool:
    """Say whether a letter may carry this as its challenge."""
    return _WORD.fullmatch(text) is not None


def weight(fields: Fields) -> float:
    """Return how many ordinary letters an entry costs to look at, whoever wrote it; before that is done."""
    size = sum(map(len, fields.values())) + sum(map(len, fields))
    return 1.0 + max(size - PLAIN_BYTES, 0) / MORE_BYTES


def letter_from(fields: Fields) -> Asked | Acked | Claimed:
    """Read an entry whose seal was checked."""
    match fields.get(b"kind"):
        case b"grant":
            return _asked(fields)
        case b"ack":
            return _acked(fields)
        case b"claim":
            return _claimed(fields)
    raise NotBelieved("malformed")


def owner_from(fields: Fields) -> Owner:
    """Read the hash of an address whose seal was checked."""
    return Owner(
        node=_node(fields, b"node"),
        uid=_text(fields, b"uid", MAX_UID_CHARS),
        generation=_number(fields, b"generation"),
        disputed=_text(fields, b"disputed", 5) == "true",
    )


def _opening(letter: Asked | Claimed) -> dict[bytes, bytes]:
    return {
        b"from": octets(letter.node),
        b"session": octets(letter.session),
        b"seq": b"%d" % letter.seq,
        b"to": octets(letter.to),
        b"challenge": octets(letter.challenge),
    }


def _asked(fields: Fields) -> Asked:
    words = _text(fields, b"addresses", MAX_ADDRESSES * 46).split(" ")
    ttl_s = _number(fields, b"ttl")
    if len(words) > MAX_ADDRESSES or not 1 <= ttl_s <= 86400:
        raise NotBelieved("malformed")
    return Asked(
        id=_number(fields, b"id"),
        node=_node(fields, b"from"),
        session=_word(fields, b"session"),
        seq=_number(fields, b"seq"),
        to=_node(fields, b"to"),
        challenge=_word(fields, b"challenge"),
        source=_packed(_text(fields, b"podIP", 45)),
        uid=_text(fields, b"uid", MAX_UID_CHARS),
        name=_text(fields, b"name", MAX_NAME_CHARS),
        addresses=tuple(map(_packed, words)),
        ttl_s=ttl_s,
    )


def _acked(fields: Fields) -> Acked:
    words = _text(fields, b"outcomes", MAX_ADDRESSES * 9).split(" ")
    if words == ["challenge"]:
        words = []
    remaining = _text(fields, b"remaining", 16)
    if len(words) > MAX_ADDRESSES or not _OUTCOMES.issuperset(words) or not _SECONDS.fullmatch(remaining):
        raise NotBelieved("malformed")
    return Acked(
        id=_number(fields, b"id"),
        node=_node(fields, b"from"),
        to=_node(fields, b"to"),
        session=_word(fields, b"session"),
        outcomes=cast("tuple[Outcome, ...]", tuple(words)),
        remaining_s=min(float(remaining), MAX_REMAINING_S),
        generation=_number(fields, b"generation"),
        reason=_text(fields, b"reason", MAX_REASON_CHARS),
    )


def _claimed(fields: Fields) -> Claimed:
    return Claimed(
        node=_node(fields, b"from"),
        session=_word(fields, b"session"),
        seq=_number(fields, b"seq"),
        to=_node(fields, b"to"),
        challenge=_word(fields, b"challenge"),
        source=_packed(_text(fields, b"podIP", 45)),
        uid=_text(fields, b"uid", MAX_UID_CHARS),
        generation=_number(fields, b"generation"),
    )


def _text(fields: Fields, name: bytes, most_chars: int) -> str:
    said = fields.get(name)
    if said is None or len(said) > 4 * most_chars:
        raise NotBelieved("malformed")
    try:
        text = said.decode()
    except UnicodeDecodeError:
        raise NotBelieved("malformed") from None
    if len(text) > most_chars:
        raise NotBelieved("malformed")
    return text


def _number(fields: Fields, name: bytes) -> int:
    said = _text(fields, name, 17)
    if not _WHOLE.fullmatch(said) or not said.isascii():
        raise NotBelieved("malformed")
    return int(said)


def _word(fields: Fields, name: bytes) -> str:
    said = _text(fields, name, 32)
    if not _WORD.fullmatch(said):
        raise NotBelieved("malformed")
    return said


def _node(fields: Fields, name: bytes) -> str:
    said = _text(fields, name, 253)
    if not _NODE.fullmatch(said):
        raise NotBelieved("malformed")
    return said


def _packed(text: str) -> bytes:
    """Read an address without a zone, as nodes write it."""
    try:
        parts = _V4.fullmatch(text)
        if parts is not None:
            return bytes(map(int, parts.groups()))  # a fifth of the time of what follows
        packed = to_packed(text)
    except ValueError:
        raise NotBelieved("malformed") from None
    if from_packed(packed) != text:
        raise NotBelieved("malformed")
    return packed
