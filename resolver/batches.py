"""Many datagrams a system call: recvmmsg and sendmmsg on flat buffers, by ctypes.

Owns those buffers and the layout of the kernel's structures in them. Knows nothing of DNS. Invariants: each
reply leaves from the address that its query was sent to, to the address and port that it came from; a reply
that the kernel does not take costs no other; each has a place of its own until it has left, which is before
anything else is read.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Callable

from resolver.transport import Socket, reply_from

MOST = 64
"""Datagrams a call."""
_MSG_DONTWAIT = 0x40
_HEADER = 64
"""struct mmsghdr with pointers of 8 octets: name, namelen, iov, iovlen, control, controllen, flags, len."""
_NAME, _NAME_SIZE, _IOV, _IOV_COUNT, _CONTROL, _CONTROL_SIZE = range(6)
_LENGTH = 14
"""Of its 16 words of 4 octets, the number of octets that came."""
_NAME_BYTES, _CONTROL_BYTES, _REPLY_BYTES = 28, 64, 2048
_CMSG = struct.Struct("=QII")

Hit = Callable[[bytes, bytes, float], bytes | None]
Missed = Callable[[bytes, bytes, int, bytes], None]
"""What came, the packed source and port, and the packed address that was aimed at."""


class _Calls:
    def __init__(self) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        number, pointer = ctypes.c_int, ctypes.c_void_p
        self.receive = library.recvmmsg
        self.receive.argtypes = [number, pointer, ctypes.c_uint, number, pointer]
        self.send = library.sendmmsg
        self.send.argtypes = [number, pointer, ctypes.c_uint, number]


class Batch:
    """The buffers of one wildcard socket, whose datagrams come with PKTINFO."""

    def __init__(self, sock: Socket, calls: _Calls, longest: int) -> None:
        self._sock = sock  # for its descriptor now: closed, its number may be another's
        self._calls = calls
        is_v6 = sock.family.name == "AF_INET6"
        self._family = int(sock.family).to_bytes(2, sys.byteorder)
        self._address = (8, 24) if is_v6 else (4, 8)
        self._aimed = (16, 32) if is_v6 else (24, 28)
        self._longest = longest
        self.unsent = 0
        """Replies the kernel did not take."""
        self._wires = (ctypes.c_char * (MOST * longest))()
        self._names = (ctypes.c_char * (MOST * _NAME_BYTES))()
        self._controls = (ctypes.c_char * (MOST * _CONTROL_BYTES))()
        self._replies = (ctypes.c_char * (MOST * _REPLY_BYTES))()
        self._reply_names = (ctypes.c_char * (MOST * _NAME_BYTES))()
        self._reply_controls = (ctypes.c_char * (MOST * _CONTROL_BYTES))()
        self._vectors = (ctypes.c_uint64 * (4 * MOST))()
        self._received = (ctypes.c_uint64 * (MOST * _HEADER // 8))()
        self._sent = (ctypes.c_uint64 * (MOST * _HEADER // 8))()
        self._aims = [b""] * MOST
        self._put = 0
        """Replies that wait for ``flush``."""
        self._lay_out()
        self._words = memoryview(self._received).cast("B").cast("I")
        self._views = tuple(
            memoryview(each).cast("B")
            for each in (self._wires, self._names, self._controls, self._replies, self._reply_names)
        )
        self._quads = tuple(
            memoryview(each).cast("B").cast("Q") for each in (self._received, self._sent, self._vectors)
        )
        self._first = ctypes.addressof(self._received)
        self._first_name = ctypes.addressof(self._reply_names)
        self._first_sent = ctypes.addressof(self._sent)

    def _lay_out(self) -> None:
        at = ctypes.addressof
        vectors, received, sent = self._vectors, self._received, self._sent
        for number in range(MOST):
            word = number * _HEADER // 8
            vectors[2 * number] = at(self._wires) + number * self._longest
            vectors[2 * number + 1] = self._longest
            vectors[2 * (MOST + number)] = at(self._replies) + number * _REPLY_BYTES
            received[word + _NAME] = at(self._names) + number * _NAME_BYTES
            received[word + _NAME_SIZE] = _NAME_BYTES
            received[word + _IOV] = at(vectors) + 16 * number
            received[word + _CONTROL] = at(self._controls) + number * _CONTROL_BYTES
            received[word + _CONTROL_SIZE] = _CONTROL_BYTES
            sent[word + _NAME_SIZE] = 28 if self._address[0] == 8 else 16
            sent[word + _IOV] = at(vectors) + 16 * (MOST + number)
            sent[word + _CONTROL] = at(self._reply_controls) + number * _CONTROL_BYTES
            received[word + _IOV_COUNT] = sent[word + _IOV_COUNT] = 1

    def serve(self, hit: Hit, missed: Missed, now: float, heard: dict[bytes, int] | None) -> int:
        """Read once and answer what ``hit`` answers; return how many came, 0 if none did, -1 for an error.

        ``heard`` is where to count how often each source was.
        """
        if self._put:  # their places are needed
            self.flush()
        count: int = self._calls.receive(self._sock.fileno(), self._first, MOST, _MSG_DONTWAIT, None)
        if count <= 0:
            return 0 if ctypes.get_errno() in (0, 11) else -1
        words = self._words
        wires, names, controls, replies, _ = self._views
        received, sent, vectors = self._quads
        source_at, source_end = self._address
        aimed_at, aimed_end = self._aimed
        for number in range(count):
            at = number * self._longest
            wire = bytes(wires[at : at + words[number * 16 + _LENGTH]])
            name, control = number * _NAME_BYTES, number * _CONTROL_BYTES
            source = bytes(names[name + source_at : name + source_end])
            aimed = bytes(controls[control + aimed_at : control + aimed_end])
            received[8 * number + _NAME_SIZE] = _NAME_BYTES
            received[8 * number + _CONTROL_SIZE] = _CONTROL_BYTES
            if heard is not None:
                heard[source] = heard.get(source, 0) + 1
            reply = hit(wire, source, now)
            if reply is None or len(reply) > _REPLY_BYTES:
                missed(wire, source, names[name + 2] << 8 | names[name + 3], aimed)
                continue
            if self._put == MOST:
                self.flush()
            ready = self._put  # behind what ``missed`` put meanwhile
            place = ready * _REPLY_BYTES
            replies[place : place + len(reply)] = reply
            vectors[2 * (MOST + ready) + 1] = len(reply)
            sent[8 * ready + _NAME] = received[8 * number + _NAME]
            if self._aims[ready] != aimed:
                self._aim(ready, aimed)
            self._put = ready + 1
        self.flush()
        return count

    def put(self, wire: bytes, source: bytes, port: int, aimed: bytes) -> bool:
        """Take a reply that leaves with the next ``flush`` or ``serve``; False: it fits in no place."""
        address_at, address_end = self._address
        if len(wire) > _REPLY_BYTES or len(source) != address_end - address_at:
            return False
        if self._put == MOST:
            self.flush()
        number = self._put
        _, _, _, replies, names = self._views
        _, sent, vectors = self._quads
        place, name = number * _REPLY_BYTES, number * _NAME_BYTES
        names[name : name + 4] = self._family + port.to_bytes(2, "big")
        names[name + address_at : name + address_end] = source
        replies[place : place + len(wire)] = wire
        vectors[2 * (MOST + number) + 1] = len(wire)
        sent[8 * number + _NAME] = self._first_name + name
        if self._aims[number] != aimed:
            self._aim(number, aimed)
        self._put = number + 1
        return True

    def flush(self) -> None:
        """Send the replies that were put, in their order."""
        count, self._put = self._put, 0
        self._send(count)

    def _aim(self, number: int, aimed: bytes) -> None:
        """Have the reply of that place leave from ``aimed``."""
        level, kind, data = reply_from(aimed)[0]
        control = _CMSG.pack(_CMSG.size + len(data), level, kind) + data
        place = number * _CONTROL_BYTES
        memoryview(self._reply_controls).cast("B")[place : place + len(control)] = control
        self._sent[8 * number + _CONTROL_SIZE] = len(control)
        self._aims[number] = aimed

    def _send(self, count: int) -> None:
        """Send so many replies; one that is not taken is skipped."""
        at = 0
        while at < count:
            first = self._first_sent + at * _HEADER
            taken = self._calls.send(self._sock.fileno(), first, count - at, _MSG_DONTWAIT)
            if taken > 0:
                at += taken
            else:
                at += 1
                self.unsent += 1


def batch_of(sock: Socket, longest: int) -> Batch | None:
    """Return the batch of a socket; None where the C library or the machine is another kind."""
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    try:
        return Batch(sock, _Calls(), longest)
    except (AttributeError, OSError):
        return None
