"""Frames of the authority socket: a 4-byte big-endian length, then one MessagePack message.

Owns the bytes between the two processes, not their meaning (``policy.authority``). Never trusts
a length or a type that the other side wrote: whatever is wrong ends in ``FramingError``, which
names it, and the connection it came from is to be closed. Holds at most one unfinished frame.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar, cast

import msgspec

from policy.authority import ToEnforcer, ToResolver

MAX_TO_RESOLVER_BYTES = 64 * 1024 * 1024
"""Largest frame to the resolver: a snapshot's world."""
MAX_TO_ENFORCER_BYTES = 256 * 1024
"""Largest frame to the enforcer: the untrusted side gets no more memory than a request needs."""

_LENGTH_BYTES = 4
_encoder = msgspec.msgpack.Encoder()

Message = TypeVar("Message")


class FramingError(ValueError):
    """The other side sent what is no frame or no message; the text says what was wrong."""


def encode(message: ToResolver | ToEnforcer) -> bytes:
    """Return the message as one frame; ``FramingError`` if it exceeds any receiver's limit."""
    payload = _encoder.encode(message)
    if len(payload) > MAX_TO_RESOLVER_BYTES:
        raise FramingError(f"a {type(message).__name__} of {len(payload)} bytes fits no frame")
    return len(payload).to_bytes(_LENGTH_BYTES, "big") + payload


class Decoder(Generic[Message]):
    """Turns a stream of bytes into messages, whatever pieces it comes in."""

    def __init__(self, kind: Any, max_frame_bytes: int) -> None:
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._max_frame_bytes = max_frame_bytes
        self._pending = bytearray()
        self._needed_bytes = 0
        """So many make what is pending worth another look: its length, or its whole frame."""

    @property
    def pending_bytes(self) -> int:
        """Bytes held of an unfinished frame."""
        return len(self._pending)

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that ``data`` completes, in order.

        Raises ``FramingError`` on a frame that is empty, too long or no message of this
        direction; the decoder is of no further use then, and messages before it in ``data`` are lost.
        """
        pending = self._pending
        if pending:
            pending += data
            if len(pending) < self._needed_bytes:
                return []
            data = bytes(pending)
            pending.clear()
        messages: list[Message] = []
        start, size = 0, len(data)
        while size - start >= _LENGTH_BYTES:
            body = start + _LENGTH_BYTES
            length = int.from_bytes(data[start:body], "big")
            if not 0 < length <= self._max_frame_bytes:
                raise FramingError(f"a frame of {length} bytes; 1 to {self._max_frame_bytes} are permitted")
            end = body + length
            if size < end:
                self._needed_bytes = _LENGTH_BYTES + length
                break
            messages.append(self._message(data[body:end]))
            start = end
        else:
            self._needed_bytes = _LENGTH_BYTES
        if start < size:
            pending += data[start:]
        return messages

    def _message(self, payload: bytes) -> Message:
        try:
            return cast(Message, self._decode(payload))
        except msgspec.MsgspecError as error:
            raise FramingError(f"a frame that is no message of this direction: {error}") from error
        except (RecursionError, UnicodeDecodeError, OverflowError) as error:
            raise FramingError(f"a frame that cannot be decoded: {type(error).__name__}") from error


def resolver_decoder() -> Decoder[ToResolver]:
    """Return a decoder for what the resolver receives."""
    return Decoder(ToResolver, MAX_TO_RESOLVER_BYTES)


def enforcer_decoder() -> Decoder[ToEnforcer]:
    """Return a decoder for what the enforcer receives from the untrusted side."""
    return Decoder(ToEnforcer, MAX_TO_ENFORCER_BYTES)
