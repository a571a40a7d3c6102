"""Redis commands as octets: what the wire carries is what the MAC is made over.

Pure. Owns the request form of RESP (arrays of bulk strings), the same in versions 2 and 3. Never
reads replies. Invariant: every part is preceded by its length, so that no content can end a part.
"""

from __future__ import annotations

from collections.abc import Mapping


def bulk(part: bytes) -> bytes:
    """Return one part as a bulk string: its length, then itself."""
    return b"$%d\r\n%b\r\n" % (len(part), part)


def packed(*parts: bytes) -> bytes:
    """Return one command."""
    return b"*%d\r\n" % len(parts) + b"".join(map(bulk, parts))


def hset(key: bytes, fields: Mapping[bytes, bytes]) -> bytes:
    """Return the command that sets these fields of a hash."""
    return packed(b"HSET", key, *(part for pair in fields.items() for part in pair))


def xadd(key: bytes, fields: Mapping[bytes, bytes], about: int) -> bytes:
    """Return the command that adds an entry to a stream kept at ``about`` so many."""
    return packed(*xadd_parts(key, fields, about))


def xadd_parts(key: bytes, fields: Mapping[bytes, bytes], about: int) -> tuple[bytes, ...]:
    """Return the parts of ``xadd``."""
    pairs = (part for pair in fields.items() for part in pair)
    return (b"XADD", key, b"MAXLEN", b"~", b"%d" % about, b"*", *pairs)


def pexpire(key: bytes, life_ms: int) -> bytes:
    """Return the command that lets a key live so much longer, from now on Redis's clock."""
    return packed(b"PEXPIRE", key, b"%d" % life_ms)


def unlink(key: bytes) -> bytes:
    """Return the command that removes a key of whatever type; large content goes in the background."""
    return packed(b"UNLINK", key)
