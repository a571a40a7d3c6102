"""A pod of the lab: a namespace with a cable, and the things a program in it would do.

Owns the pod's side of every conversation: lookups, connections, transfers. Decides nothing; it
reports what the kernel told it.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct
import threading
import time
from typing import NamedTuple

from enforcer.demo import network, places
from enforcer.demo.places import NodePlace
from enforcer.demo.processes import LONG_S, wait_until
from enforcer.demo.spaces import Space
from enforcer.demo.stub import Stub

_TOTAL_RETRANS = 100
"""Offset of ``tcpi_total_retrans`` in the kernel's ``struct tcp_info`` (linux/tcp.h)."""


_SPEAKS_S = 0.1
"""How long a transfer waits for something to come before it says something itself."""
_REFUSED, _PROHIBITED = "refused", "prohibited"


class Attempt(NamedTuple):
    """One try to talk. ``error`` is empty when it worked; ``resent`` counts repeated SYNs."""

    ok: bool
    took_s: float
    error: str = ""
    said: str = ""
    resent: int = 0

    @property
    def is_refused(self) -> bool:
        """Say whether the pod was told so: a program goes on at once, and waits for no time-out."""
        return self.error in {_REFUSED, _PROHIBITED}

    @property
    def outcome(self) -> str:
        """Say in a word or two what happened."""
        return "answered" if self.ok else self.error


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Pod:
    """One pod, declared in a manifest or not, at ``place``'s ``index``-th address or at ``addresses``."""

    def __init__(
        self,
        node: Space,
        name: str,
        index: int,
        place: NodePlace = places.HOME,
        addresses: tuple[str, str] | None = None,
    ) -> None:
        self.name = name
        self.index = index
        self.addresses = addresses or place.pod_addresses(index)
        self.space = Space(name)
        self._node = node
        network.connect_pod(node, self.space, index, self.addresses, place.gateways)
        self.stub = Stub(self.space)
        self.transfers: list[Transfer] = []

    def connect(self, address: str, port: int = 443, wait_s: float = LONG_S, source_port: int = 0) -> Attempt:
        """Open a TCP connection, ask which server answers, close. ``source_port`` 0: any."""
        started_at = time.monotonic()
        with self.space.socket(_family(address), socket.SOCK_STREAM) as opened:
            opened.settimeout(wait_s)
            try:
                if source_port:
                    opened.bind(("", source_port))
                opened.connect((address, port))
                info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                resent = int(struct.unpack_from("=I", info, _TOTAL_RETRANS)[0])
                opened.sendall(b"GET / HTTP/1.0\r\n\r\n")
                with opened.makefile("rb") as stream:
                    said = stream.read().decode().rpartition("\r\n\r\n")[2].strip()
            except OSError as error:
                return Attempt(ok=False, took_s=time.monotonic() - started_at, error=_word(error))
        return Attempt(ok=True, took_s=time.monotonic() - started_at, said=said, resent=resent)

    def echo(self, address: str, port: int = 443, wait_s: float = LONG_S) -> Attempt:
        """Send one datagram and wait for it to come back."""
        started_at = time.monotonic()
        with self.space.socket(_family(address), socket.SOCK_DGRAM) as opened:
            opened.settimeout(wait_s)
            try:
                opened.connect((address, port))
                opened.send(b"ping")
                said = opened.recv(512)
            except OSError as error:
                return Attempt(ok=False, took_s=time.monotonic() - started_at, error=_word(error))
        return Attempt(ok=said == b"ping", took_s=time.monotonic() - started_at)

    def transfer(self, address: str, port: int = 443) -> Transfer:
        """Start a transfer that only its end ends. Raises OSError when it cannot be opened."""
        started = Transfer(self.space, address, port)
        self.transfers.append(started)
        return started

    def close(self) -> None:
        """End the pod: its transfers, its cable, its namespace."""
        for transfer in self.transfers:
            transfer.close()
        network.disconnect_pod(self._node, self.index)
        self.space.close()


def _word(error: OSError) -> str:
    """Name an error as a person would: reset, prohibited, no answer."""
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, ConnectionRefusedError | ConnectionResetError):
        return _REFUSED
    if error.errno in {113, 101, 13, 1}:  # EHOSTUNREACH, ENETUNREACH, EACCES, EPERM
        return _PROHIBITED
    return error.strerror or type(error).__name__


class Transfer:
    """A download and an upload on one TCP connection, in a thread of its own.

    It goes on speaking where nothing comes: who has been cut hears of it with the next packet of his own.
    """

    def __init__(self, space: Space, address: str, port: int) -> None:
        self.name = secrets.token_hex(8)
        self._opened = space.socket(_family(address), socket.SOCK_STREAM)
        self._opened.settimeout(LONG_S)
        try:
            self._opened.connect((address, port))
            self._opened.sendall(f"GET /stream/{self.name} HTTP/1.0\r\n\r\n".encode())
        except OSError:
            self._opened.close()
            raise
        self.port = int(self._opened.getsockname()[1])
        self.received = 0
        self.error = ""
        self.ended_at: float | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._opened.settimeout(_SPEAKS_S)
        heard_at = time.monotonic()
        try:
            while (data := self._heard()) != b"":
                if data is not None:
                    self.received += len(data)
                    heard_at = time.monotonic()
                elif time.monotonic() - heard_at > LONG_S:
                    raise TimeoutError
                self._opened.send(b"y" * 64)
            self.error = "closed by the server"
        except OSError as error:
            self.error = _word(error)
        self.ended_at = time.monotonic()

    def _heard(self) -> bytes | None:
        """Return what has come, None if nothing did for a while, b"" at the end."""
        try:
            return self._opened.recv(65536)
        except TimeoutError:
            return None

    @property
    def running(self) -> bool:
        """Say whether nothing has ended it yet."""
        return self.ended_at is None

    def grows(self, within_s: float = LONG_S) -> bool:
        """Say whether more octets arrive within ``within_s`` seconds."""
        before = self.received
        return wait_until(lambda: self.received > before or not self.running, within_s) and self.running

    def ends(self, within_s: float) -> bool:
        """Say whether it ends within ``within_s`` seconds."""
        return wait_until(lambda: not self.running, within_s, 0.002)

    def close(self) -> None:
        """End it from the pod's side."""
        with contextlib.suppress(OSError):
            self._opened.shutdown(socket.SHUT_RDWR)
        self._thread.join(LONG_S)
        self._opened.close()
