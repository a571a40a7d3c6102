"""What the API server answers: objects, lists, changes, refusals; and the JSON on its streams.

Pure. Owns the decoding of lists that arrive in pieces, so that a list of any size costs the memory of
what is kept of it. Invariant: what is no JSON of the expected shape is ``ApiLost``, never another error.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar, cast

import msgspec

from policy.manifest_findings import printable

Json = dict[str, Any]
"""A JSON object as it came."""
Kind = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
T = TypeVar("T")

MAX_OBJECT_BYTES: Final = 16 * 1024 * 1024
"""etcd takes 1.5 MiB, of which JSON makes six times as much: a pod of nothing but control characters is
stored as octets, and comes as ``\\u0001``. Whoever may create pods must not hide all others of a node."""
MAX_ITEMS: Final = 500_000
MAX_RETRY_AFTER_S: Final = 300.0
_SPACE = " \t\r\n"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_CHUNK: Final = 65536


class ApiRefused(Exception):
    """The server answered, and not with what was asked for. ``message`` is printable and bounded."""

    def __init__(
        self, status: int, reason: str = "", message: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(f"{status} {reason}: {message}".strip(": "))
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s


class ApiLost(Exception):
    """No usable answer came: no connection, a time-out, no JSON. The text is a sentence."""


class Listed(NamedTuple, Generic[T]):
    """A complete list, and the version at which a watch of it begins."""

    items: list[T]
    resource_version: str


class Changed(NamedTuple):
    """One event of a watch. A bookmark's object holds nothing but its resource version."""

    kind: Kind
    object: Json


def version_of(fields: Json) -> str:
    """Return an object's or a list's resource version; "" without."""
    metadata = fields.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    return version if isinstance(version, str) else ""


def refusal(status: int, body: bytes, retry_after: str | None) -> ApiRefused:
    """Return what a status other than 2xx means; the body need not be a Status object."""
    try:
        said: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = None
    fields = said if isinstance(said, dict) else {"message": body[:200].decode("ascii", "backslashreplace")}
    wait = _seconds(retry_after)
    details = fields.get("details")
    if wait is None and isinstance(details, dict):
        wait = _seconds(details.get("retryAfterSeconds"))
    return ApiRefused(status, _text(fields.get("reason"))[:100], _text(fields.get("message")), wait)


def _text(value: object) -> str:
    return printable(value) if isinstance(value, str) else ""


def _seconds(value: object) -> float | None:
    try:
        seconds = float(cast("str", value)) if isinstance(value, str | int) else 0.0
    except ValueError:
        return None
    return min(seconds, MAX_RETRY_AFTER_S) if seconds > 0 else None


def _no_json(constant: str) -> object:
    raise ApiLost(f"the API server's answer is no JSON: it says {constant}")


def read_object(body: bytes) -> Json:
    """Decode one object. Raises ``ApiLost``."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ApiLost("the API server's answer is no JSON") from None
    if not isinstance(found, dict):
        raise ApiLost("the API server's answer is no object")
    return found


def read_event(line: bytes) -> Changed:
    """Decode one line of a watch. Raises ``ApiRefused`` for the server's own ERROR, or ``ApiLost``."""
    event = read_object(line)
    kind, fields = event.get("type"), event.get("object")
    if kind == "ERROR":
        said = fields if isinstance(fields, dict) else {}
        code = said.get("code")
        raise refusal(code if isinstance(code, int) else 500, msgspec.json.encode(said), None)
    if kind not in {"ADDED", "MODIFIED", "DELETED", "BOOKMARK"} or not isinstance(fields, dict):
        raise ApiLost("the API server's watch sent something that is no event")
    return Changed(cast("Kind", kind), fields)


def lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Split a stream into lines. Raises ``ApiLost`` for one that is longer than an object may be."""
    rest = bytearray()
    for piece in pieces:
        rest += piece
        if b"\n" in piece:
            *whole, last = rest.split(b"\n")
            for line in whole:
                if line.strip():
                    yield bytes(line)
            rest = bytearray(last)
        if len(rest) > MAX_OBJECT_BYTES:
            raise ApiLost("the API server sent an object larger than any can be")


class ListStream(Generic[T]):
    """Reads a list that arrives in pieces; only what ``keep`` returns of an item stays in memory."""

    def __init__(self, pieces: Iterable[bytes], keep: Callable[[Json], T]) -> None:
        self._pieces = iter(pieces)
        self._keep = keep
        self._text = codecs.getincrementaldecoder("utf-8")("strict")
        self._decoder = json.JSONDecoder(parse_constant=_no_json)
        self._buffer = ""
        self._at = 0
        self._ended = False
        self.items: list[T] = []
        self.fields: Json = {}
        """All of the list's fields but its items."""

    def read(self) -> None:
        """Read it all. Raises ``ApiLost``."""
        try:
            self._read()
        except (UnicodeError, RecursionError):
            raise ApiLost("the API server's answer is no JSON") from None

    def _read(self) -> None:
        self._take("{")
        while self._peek() != "}":
            key = self._value()
            self._take(":")
            if key == "items" and self._peek() == "[":
                self._read_items()
            else:
                self.fields[str(key)] = self._value()
            if self._peek() != ",":
                break
            self._take(",")
        self._take("}")

    def _read_items(self) -> None:
        self._take("[")
        while self._peek() != "]":
            item = self._value()
            if not isinstance(item, dict):
                raise ApiLost("the API server's list holds something that is no object")
            if len(self.items) >= MAX_ITEMS:
                raise ApiLost(f"the API server's list has more than {MAX_ITEMS} objects")
            self.items.append(self._keep(item))
            if self._peek() != ",":
                break
            self._take(",")
        self._take("]")

    def _peek(self) -> str:
        """Return the next character that is no space."""
        while True:
            while self._at < len(self._buffer):
                found = self._buffer[self._at]
                if found not in _SPACE:
                    return found
                self._at += 1
            if not self._more(_CHUNK):
                raise ApiLost("the API server's answer ends too early")

    def _take(self, expected: str) -> None:
        if self._peek() != expected:
            raise ApiLost("the API server's answer is no list in JSON")
        self._at += 1

    def _value(self) -> object:
        """Decode the next value; each failed attempt waits for twice as much, so that the cost is linear."""
        self._peek()
        wanted = _CHUNK
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
                if end < len(self._buffer) or self._ended:
                    if _SURROGATE.search(self._buffer, self._at, end):
                        msgspec.json.encode(value)  # UnicodeError for half a character
                    self._at = end
                    return value
            except ValueError:
                if self._ended:
                    raise ApiLost("the API server's answer is no JSON") from None
            if len(self._buffer) - self._at > MAX_OBJECT_BYTES:
                raise ApiLost("the API server sent an object larger than any can be")
            self._more(wanted)
            wanted *= 2

    def _more(self, wanted: int) -> bool:
        """Have at least so many characters more in the buffer; False at the end."""
        parts = [self._buffer[self._at :]]
        self._at = 0
        got = 0
        while got < wanted and not self._ended:
            piece = next(self._pieces, None)
            text = self._text.decode(piece or b"", piece is None)
            self._ended = piece is None
            parts.append(text)
            got += len(text)
        self._buffer = "".join(parts)
        return got > 0
