"""The one door to netlink sockets: frames, attributes, requests with their answers.

Owns AF_NETLINK. Knows no table, route or connection: what the bytes mean is said by
``enforcer.transaction``, ``conntrack``, ``routes`` and ``nflog``. Never blocks longer than
``TIMEOUT_S``. Invariant: a request is over only when the kernel acknowledged or refused it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
TIMEOUT_S = 10
DATAGRAM_BYTES = 1 << 18
"""Room for one datagram of the kernel, kept: to ask for so much anew costs more than a transaction."""

NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK, NLM_F_DUMP_INTR = 0x01, 0x02, 0x04, 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLM_F_ACK_TLVS = 0x200
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ACK = struct.Struct("=IHHIIiIHHII")
_SOL_NETLINK = 270
_ADD_MEMBERSHIP, _NO_ENOBUFS, _CAP_ACK, _EXT_ACK, _GET_STRICT_CHK = 1, 5, 10, 11, 12
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE, _SO_ATTACH_FILTER = 32, 33, 26
_DUMP_ATTEMPTS = 5


class NetlinkRefused(OSError):
    """The kernel's negative answer: ``errno``, its own words if any, and where in the request."""

    def __init__(self, number: int, words: str = "", seq: int = 0, offset: int = -1) -> None:
        """``seq`` and ``offset`` (octets from the message's start, or -1) say what it refused."""
        super().__init__(number, words or os.strerror(number))
        self.seq = seq
        self.offset = offset


class Message(NamedTuple):
    """One netlink message without its header; ``portid`` of a notification is its originator's."""

    type: int
    flags: int
    seq: int
    portid: int
    payload: bytes


def attribute(kind: int, payload: bytes) -> bytes:
    """Encode one attribute, padded to 4 octets."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def nested(kind: int, payload: bytes) -> bytes:
    """Encode one attribute that holds attributes."""
    return attribute(kind | NLA_NESTED, payload)


def text(kind: int, value: str) -> bytes:
    """Encode a NUL-terminated string attribute."""
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Walk attributes: (type without flags, payload); ends at the first broken length."""
    end = len(data)
    while start + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < 4 or start + length > end:
            return
        yield kind & NLA_TYPE_MASK, data[start + 4 : start + length]
        start += (length + 3) & ~3


def message(kind: int, flags: int, seq: int, payload: bytes) -> bytes:
    """Encode one message with its header."""
    return HEADER.pack(16 + len(payload), kind, flags, seq, 0) + payload


def messages(data: bytes) -> Iterator[Message]:
    """Walk the messages of one datagram."""
    start = 0
    while start + 16 <= len(data):
        length, kind, flags, seq, portid = HEADER.unpack_from(data, start)
        if length < 16 or start + length > len(data):
            return
        yield Message(kind, flags, seq, portid, data[start + 16 : start + length])
        start += (length + 3) & ~3


def refusal(answer: Message) -> NetlinkRefused | None:
    """Read an NLMSG_ERROR: None is an acknowledgement."""
    number = -struct.unpack_from("=i", answer.payload)[0]
    if number == 0:
        return None
    words, offset = "", -1
    if answer.flags & NLM_F_ACK_TLVS:
        for kind, value in attributes(answer.payload, 20):
            if kind == 1:
                words = value.rstrip(b"\0").decode("ascii", "replace")
            elif kind == 2 and len(value) == 4:
                offset = struct.unpack("=I", value)[0]
    return NetlinkRefused(number, words, answer.seq, offset)


class NetlinkSocket:
    """One socket of one netlink family, used by one thread at a time.

    ``groups`` are multicast groups to join. ``silent_about`` are port ids whose notifications the
    kernel should not deliver to it.
    """

    def __init__(self, family: int, groups: Sequence[int] = (), *, receive_bytes: int = 1 << 20) -> None:
        """OSError if the kernel lacks the family, or the caller the right."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_bytes)
        for option in (_CAP_ACK, _EXT_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))
        self.portid: int = self._socket.getsockname()[0]
        for group in groups:
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", TIMEOUT_S, 0))
        self._seq = 1
        self._send_bytes = 0
        self._datagram = bytearray(DATAGRAM_BYTES)
        self._read = memoryview(self._datagram)

    def fileno(self) -> int:
        """Descriptor for a reactor's reader."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close it; what the kernel ties to its life (owned tables) goes with it."""
        self._socket.close()

    def check_strictly(self) -> None:
        """Have dumps filtered as their headers say (another namespace's need it); OSError before 4.20."""
        self._socket.setsockopt(_SOL_NETLINK, _GET_STRICT_CHK, 1)

    def next_seq(self, count: int = 1) -> int:
        """Reserve ``count`` sequence numbers and return the first."""
        first = self._seq
        self._seq = (self._seq + count) & 0x7FFFFFFF or 1
        return first

    def send(self, data: bytes) -> None:
        """Send one datagram of any size (the send buffer grows to hold it)."""
        if len(data) > self._send_bytes:
            self._send_bytes = max(1 << 18, 2 * len(data))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, self._send_bytes)
        self._socket.send(data)

    def receive(self) -> list[Message]:
        """Wait for one datagram of the kernel and return its messages; OSError ENOBUFS if some were lost."""
        try:
            return list(messages(self._receive(0)))
        except BlockingIOError:
            raise TimeoutError(errno.ETIMEDOUT, "the kernel did not answer on netlink") from None

    def receive_answers(self, seq: int) -> list[Message] | None:
        """As ``receive``; None if all that came is the acknowledgement of message ``seq``."""
        try:
            data = self._receive(0)
        except BlockingIOError:
            raise TimeoutError(errno.ETIMEDOUT, "the kernel did not answer on netlink") from None
        if len(data) == _ACK.size:
            _, kind, _, answers, _, number, *_ = _ACK.unpack(data)
            if kind == NLMSG_ERROR and number == 0 and answers == seq:
                return None
        return list(messages(data))

    def receive_pending(self) -> list[Message] | None:
        """As ``receive`` without waiting: None when nothing is there."""
        try:
            return list(messages(self._receive(socket.MSG_DONTWAIT)))
        except BlockingIOError:
            return None

    def _receive(self, flags: int) -> bytes:
        while True:
            size, sender = self._socket.recvfrom_into(self._datagram, 0, flags)
            if sender[0] == 0:  # anybody may send to our port id; only the kernel is 0
                return bytes(self._read[:size])

    def request(self, kind: int, flags: int, payload: bytes) -> None:
        """Send one request and wait for its acknowledgement; NetlinkRefused if it is negative."""
        seq = self.next_seq()
        self.send(message(kind, flags | NLM_F_REQUEST | NLM_F_ACK, seq, payload))
        while True:
            for answer in self.receive():
                if answer.seq == seq and answer.type == NLMSG_ERROR:
                    if refused := refusal(answer):
                        raise refused
                    return

    def get(self, kind: int, payload: bytes) -> Message:
        """Send one query and return its one answer; NetlinkRefused if there is none."""
        seq = self.next_seq()
        self.send(message(kind, NLM_F_REQUEST, seq, payload))
        while True:
            for answer in self.receive():
                if answer.seq != seq:
                    continue
                if answer.type == NLMSG_ERROR and (refused := refusal(answer)):
                    raise refused
                return answer

    def dump(self, kind: int, payload: bytes) -> list[Message]:
        """Return all messages of a dump, asked again when the kernel says it changed meanwhile."""
        for _ in range(_DUMP_ATTEMPTS):
            found, whole = self._dump_once(kind, payload)
            if whole:
                return found
        raise NetlinkRefused(errno.EINTR, "the dump changed while it was read, each time")

    def _dump_once(self, kind: int, payload: bytes) -> tuple[list[Message], bool]:
        seq = self.next_seq()
        self.send(message(kind, NLM_F_REQUEST | NLM_F_DUMP, seq, payload))
        found: list[Message] = []
        whole = True
        while True:
            for answer in self.receive():
                if answer.seq != seq:
                    continue
                whole = whole and not answer.flags & NLM_F_DUMP_INTR
                if answer.type == NLMSG_ERROR and (refused := refusal(answer)):
                    raise refused
                if answer.type == NLMSG_DONE:
                    number = -struct.unpack_from("=i", answer.payload)[0] if len(answer.payload) >= 4 else 0
                    if number > 0:
                        raise NetlinkRefused(number)
                    return found, whole
                found.append(answer)

    def ignore_portid(self, portid: int) -> None:
        """Have the kernel drop notifications that ``portid`` caused, before they wake anybody.

        Classic BPF on the header's nlmsg_pid (octet 12, host order; BPF loads big-endian). The
        messages of one transaction share a datagram and an originator.
        """
        value = socket.htonl(portid)
        program = [(0x20, 0, 0, 12), (0x15, 0, 1, value), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF)]
        code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
        buffer = ctypes.create_string_buffer(code)
        filter_program = struct.pack("@HP", len(program), ctypes.addressof(buffer))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_program)
