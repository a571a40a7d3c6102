"""The seal of shared records: who has no key can neither write one nor change a letter of one.

Pure. Owns the MAC: HMAC-SHA-256 over the key and the sorted pairs of field and value, each part with
its length, cut to 16 octets. It says that a node of the cluster wrote this under this key; never which
one, never when. Invariant: no field of a record is outside of it but the MAC itself.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Literal

from enforcer.sharing.records.resp import bulk

VERSION = b"1"
MAC_CHARS = 32
MAX_FIELDS = 64
MAX_RECORD_BYTES = 65536
"""Octets of all names and values of one record; what is larger is not looked at."""

Doubt = Literal["mac", "version", "malformed"]


class NotBelieved(Exception):
    """A record that counts for nothing; ``reason`` is for a counter."""

    def __init__(self, reason: Doubt) -> None:
        super().__init__(reason)
        self.reason: Doubt = reason


class Keyring:
    """The key that seals, and one more that is believed while keys are changed."""

    __slots__ = ("_current", "_inner", "_outer", "_previous")

    def __init__(self, current: bytes, previous: bytes | None = None) -> None:
        self._current = current
        self._previous = previous
        block = (hashlib.sha256(current).digest() if len(current) > 64 else current).ljust(64, b"\0")
        self._inner = hashlib.sha256(block.translate(_INNER))
        self._outer = hashlib.sha256(block.translate(_OUTER))

    def __eq__(self, other: object) -> bool:
        """Say whether both seal and believe the same."""
        return isinstance(other, Keyring) and (self._current, self._previous) == (
            other._current,
            other._previous,
        )

    def __hash__(self) -> int:
        """Agree with equality."""
        return hash((self._current, self._previous))

    def mac(self, said: bytes) -> bytes:
        """Return the MAC of the octets, by the current key (half the time that ``hmac.digest`` takes)."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(said)
        outer.update(inner.digest())
        return outer.hexdigest()[:MAC_CHARS].encode()

    def knows(self, said: bytes, mac: bytes) -> bool:
        """Say whether one of the keys made this MAC of the octets."""
        if hmac.compare_digest(self.mac(said), mac):
            return True
        return self._previous is not None and hmac.compare_digest(
            hmac.digest(self._previous, said, "sha256").hex()[:MAC_CHARS].encode(), mac
        )


_INNER = bytes(each ^ 0x36 for each in range(256))
_OUTER = bytes(each ^ 0x5C for each in range(256))


def sealed_octets(key: bytes, fields: Mapping[bytes, bytes]) -> bytes:
    """Return what the MAC is made over; a field ``mac`` is left out."""
    parts = [bulk(key)]
    for name in sorted(fields):
        if name != b"mac":
            parts += (bulk(name), bulk(fields[name]))
    return b"".join(parts)


def seal(keyring: Keyring, key: bytes, fields: Mapping[bytes, bytes]) -> bytes:
    """Return the MAC of a record: 32 hexadecimal digits."""
    return keyring.mac(sealed_octets(key, fields))


def check(keyring: Keyring, key: bytes, fields: Mapping[bytes, bytes]) -> None:
    """Raise ``NotBelieved`` unless a node of the cluster wrote exactly this under this key.

    What has another version is of a newer or older program, and not looked at further.
    """
    if len(fields) > MAX_FIELDS or sum(map(len, fields)) + sum(map(len, fields.values())) > MAX_RECORD_BYTES:
        raise NotBelieved("malformed")
    mac, version = fields.get(b"mac"), fields.get(b"v")
    if mac is None or version is None or len(mac) != MAC_CHARS:
        raise NotBelieved("malformed")
    if version != VERSION:
        raise NotBelieved("version")
    if not keyring.knows(sealed_octets(key, fields), mac):
        raise NotBelieved("mac")


def sealed(keyring: Keyring, key: bytes, fields: Mapping[str, str]) -> dict[bytes, bytes]:
    """Return a record ready to be written: the fields with ``v`` and ``mac``."""
    record = {name.encode(): octets(value) for name, value in fields.items()}
    record[b"v"] = VERSION
    record[b"mac"] = seal(keyring, key, record)
    return record


def believed(keyring: Keyring, key: bytes, fields: Mapping[bytes, bytes]) -> dict[str, str]:
    """Return the fields of a record as text, after ``check``; unknown ones are kept."""
    check(keyring, key, fields)
    try:
        return {name.decode(): value.decode() for name, value in fields.items()}
    except UnicodeDecodeError:
        raise NotBelieved("malformed") from None


def octets(text: str) -> bytes:
    """Return a text as UTF-8; what has no form there (a lone surrogate) becomes a question mark."""
    return text.encode("utf-8", "replace")
