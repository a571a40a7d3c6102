"""Entries of streams, as Redis sends them.

Owns reading their form, and their age by Redis's own clock. Believes nothing that is in them: who
wrote an entry is for its MAC to say. Invariant: a malformed reply is ``Malformed``, never a guess.
"""

from __future__ import annotations

from typing import NamedTuple

LAST_IN_MS = b"18446744073709551615"
_MOST_DIGITS = 10
"""Of seconds since 1970, or of microseconds: until the year 2286."""


class Malformed(ValueError):
    """A server's reply has not the form that Redis gives it."""


class Entry(NamedTuple):
    """One entry. ``age_ms``: by Redis's clock, from its id to when it was sent to us; negative for
    an id that a writer chose in the future."""

    id: bytes
    age_ms: int
    fields: dict[bytes, bytes]

    @property
    def at_ms(self) -> int:
        """When it was added, by Redis's clock, in milliseconds since 1970."""
        return instant_of(self.id)


def instant_of(entry_id: bytes) -> int:
    """Return the milliseconds since 1970 in an entry's id. Raises ``Malformed``."""
    ms, dash, number = entry_id.partition(b"-")
    if not (dash and ms.isdigit() and number.isdigit()) or len(entry_id) > 42:
        raise Malformed("an entry's id")
    return int(ms)


def after(instant_ms: int) -> bytes:
    """Return the id after which come all entries of this instant and later."""
    return b"%d-%b" % (max(instant_ms - 1, 0), LAST_IN_MS)


def time_of(reply: object) -> int:
    """Return Redis's clock from a reply to TIME, in milliseconds. Raises ``Malformed``."""
    match reply:
        case [bytes() as seconds, bytes() as micros] if _is_count(seconds) and _is_count(micros):
            return int(seconds) * 1000 + int(micros) // 1000
    raise Malformed("the reply to TIME")


def _is_count(said: bytes) -> bool:
    return said.isdigit() and len(said) <= _MOST_DIGITS


def entries_of(reply: object, now_ms: int) -> list[Entry]:
    """Return the entries of a reply to XRANGE, or of one stream of XREAD. Raises ``Malformed``."""
    if not isinstance(reply, list):
        raise Malformed("entries")
    found = []
    for part in reply:
        match part:
            case [bytes() as entry_id, list() as flat] if len(flat) % 2 == 0:
                if not all(isinstance(text, bytes) for text in flat):
                    raise Malformed("an entry's fields")
                fields = dict(zip(flat[::2], flat[1::2], strict=True))
                found.append(Entry(entry_id, now_ms - instant_of(entry_id), fields))
            case _:
                raise Malformed("an entry")
    return found


def streams_of(reply: object, now_ms: int) -> list[tuple[bytes, list[Entry]]]:
    """Return what XREAD sent: (stream, entries), in the order it came. Raises ``Malformed``."""
    if reply is None:
        return []
    if not isinstance(reply, list):
        raise Malformed("streams")
    found = []
    for part in reply:
        match part:
            case [bytes() as stream, list() as entries]:
                found.append((stream, entries_of(entries, now_ms)))
            case _:
                raise Malformed("a stream")
    return found


def hash_of(reply: object) -> dict[bytes, bytes]:
    """Return the fields of a reply to HGETALL. Raises ``Malformed``."""
    if not isinstance(reply, list) or len(reply) % 2 or not all(isinstance(part, bytes) for part in reply):
        raise Malformed("a hash")
    return dict(zip(reply[::2], reply[1::2], strict=True))
