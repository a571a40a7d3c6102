"""The outside world's programs: web, echo and the attacker's name server.

Owns their sockets, all opened in the world's namespace, and one thread that runs them. Answers
for every address of the world; whatever arrives is written down. Never speaks first.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
import threading
from collections.abc import Callable
from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.rrset

from enforcer.demo import places
from enforcer.demo.processes import LONG_S
from enforcer.demo.spaces import Space

CHUNK = b"x" * 4096
CHUNK_PAUSE_S = 0.01
_WEB_PORTS = (80, 443, 853)
_BACKLOG = 4096


class Arrival(NamedTuple):
    """One thing that reached the world: ``kind`` is tcp, udp or dns; ``text`` its first words."""

    kind: str
    local: str
    port: int
    peer: str
    text: str


class Servers:
    """All servers of the world on one event loop in one thread."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="world", daemon=True)
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.arrivals: list[Arrival] = []
        self.uploaded: dict[str, int] = {}
        """Octets that each transfer's client sent, by the name the client gave the transfer."""

    def start(self) -> None:
        """Open every socket, then serve until ``stop``."""
        for port in _WEB_PORTS:
            for family in (socket.AF_INET, socket.AF_INET6):
                listener = self._bound(family, socket.SOCK_STREAM, "", port)
                self._loop.run_until_complete(asyncio.start_server(self._web, sock=listener))
        for family in (socket.AF_INET, socket.AF_INET6):
            self._serve_udp(self._bound(family, socket.SOCK_DGRAM, "", 443), self._echo)
            sink = self._bound(family, socket.SOCK_STREAM, "", places.SINK_PORT)
            self._loop.add_reader(sink, _drain, sink)
        for family, address in (
            (socket.AF_INET, places.ATTACKER_DNS4),
            (socket.AF_INET6, places.ATTACKER_DNS6),
        ):
            self._serve_udp(self._bound(family, socket.SOCK_DGRAM, address, 53), self._lure)
            listener = self._bound(family, socket.SOCK_STREAM, address, 53)
            self._loop.run_until_complete(asyncio.start_server(self._lure_tcp, sock=listener))
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close every socket."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end_tasks(), self._loop).result(LONG_S)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(LONG_S)
        for opened in self._sockets:
            opened.close()
        if not self._loop.is_running():
            self._loop.close()

    async def _end_tasks(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _bound(self, family: int, kind: int, address: str, port: int) -> socket.socket:
        opened = self._space.socket(family, kind)
        self._sockets.append(opened)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((address, port))
        if kind == socket.SOCK_STREAM:
            opened.listen(_BACKLOG)
        opened.settimeout(0)
        return opened

    def _note(self, kind: str, local: str, port: int, peer: str, data: bytes | str) -> None:
        text = data if isinstance(data, str) else data[:80].decode("ascii", "replace")
        self.arrivals.append(Arrival(kind, local, port, peer, text))

    async def _web(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak enough HTTP: ``/stream/NAME`` sends for ever, anything else says which address answered."""
        local, port = writer.get_extra_info("sockname")[:2]
        peer = writer.get_extra_info("peername")[0]
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                self._note("tcp", local, port, peer, head)
                writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n")
                if head.startswith(b"GET /stream/"):
                    await self._stream(reader, writer, head.split()[1][8:].decode())
                else:
                    writer.write(f"{local} port {port} answers {peer}\n".encode())
                    await writer.drain()
            finally:
                writer.close()

    async def _stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, transfer: str
    ) -> None:
        async def count() -> None:
            with contextlib.suppress(OSError):
                while data := await reader.read(65536):
                    self.uploaded[transfer] = self.uploaded.get(transfer, 0) + len(data)

        counting = asyncio.create_task(count())
        try:
            while not counting.done():
                writer.write(CHUNK)
                await writer.drain()
                await asyncio.sleep(CHUNK_PAUSE_S)
        finally:
            counting.cancel()

    def _serve_udp(self, opened: socket.socket, answer: Callable[[bytes, str, str], bytes]) -> None:
        """Answer datagrams from the address they were sent to (RFC 3542 section 4 packet information)."""
        v4 = opened.family == socket.AF_INET
        level, option = (socket.IPPROTO_IP, 8) if v4 else (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)
        opened.setsockopt(level, 8 if v4 else socket.IPV6_RECVPKTINFO, 1)

        def readable() -> None:
            with contextlib.suppress(BlockingIOError):
                data, control, _flags, peer = opened.recvmsg(65535, 256)
                info = next(item[2] for item in control if item[:2] == (level, option))
                local = info[8:12] if v4 else info[:16]
                reply = answer(data, str(ipaddress.ip_address(local)), peer[0])
                back = struct.pack("=I4s4s", 0, local, b"") if v4 else local + bytes(4)
                with contextlib.suppress(OSError):
                    opened.sendmsg([reply], [(level, option, back)], 0, peer)

        self._loop.add_reader(opened, readable)

    def _echo(self, data: bytes, local: str, peer: str) -> bytes:
        self._note("udp", local, 443, peer, data)
        return data

    def _lure(self, data: bytes, local: str, peer: str) -> bytes:
        """Answer every question with the attacker's address: whoever believes it, talks to him."""
        try:
            query = dns.message.from_wire(data)
        except dns.exception.DNSException:
            self._note("dns", local, 53, peer, data)
            return data
        asked = query.question[0]
        self._note("dns", local, 53, peer, asked.name.to_text())
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        values = {"A": places.ATTACKER4, "AAAA": places.ATTACKER6, "TXT": '"welcome"'}
        kind = dns.rdatatype.to_text(asked.rdtype)
        if kind in values:
            reply.answer.append(dns.rrset.from_text(asked.name, 60, "IN", kind, values[kind]))
        return reply.to_wire()

    async def _lure_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        local, peer = writer.get_extra_info("sockname")[0], writer.get_extra_info("peername")[0]
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            try:
                size = int.from_bytes(await reader.readexactly(2), "big")
                reply = self._lure(await reader.readexactly(size), local, peer)
                writer.write(len(reply).to_bytes(2, "big") + reply)
                await writer.drain()
            finally:
                writer.close()


def _drain(listener: socket.socket) -> None:
    """Accept whoever waits, and let go of him."""
    with contextlib.suppress(OSError):
        while True:
            listener.accept()[0].close()
