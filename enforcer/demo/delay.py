"""A wire to Redis on which every octet takes its time, both ways.

Owns one listener, its connections and a thread. Never changes what passes, nor its order.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

from enforcer.demo.processes import LONG_S
from enforcer.demo.spaces import Space

_PIECE_BYTES = 65536


class Delay:
    """Listens at ``here`` in ``space`` and passes on to ``there``; ``each_way_s`` may change at any time."""

    def __init__(self, space: Space, here: tuple[str, int], there: tuple[str, int]) -> None:
        self.each_way_s = 0.0
        self._space = space
        self._there = there
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener = space.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(here)
        self._thread = threading.Thread(target=self._loop.run_forever, name="delay", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._loop.run_until_complete(asyncio.start_server(self._joined, sock=self._listener))
        self._thread.start()

    def stop(self) -> None:
        """End every connection and the thread."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end_tasks(), self._loop).result(LONG_S)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(LONG_S)
        self._listener.close()
        if not self._loop.is_running():
            self._loop.close()

    async def _end_tasks(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.01)  # the transports let go of their sockets

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = self._space.socket(socket.AF_INET, socket.SOCK_STREAM)
        onward.setblocking(False)  # noqa: FBT003 (the socket's own call)
        try:
            await self._loop.sock_connect(onward, self._there)
        except OSError:
            onward.close()
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection(sock=onward)
        try:
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
            await asyncio.sleep(self.each_way_s)  # what is under way arrives
        finally:
            writer.transport.abort()
            far_writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_PIECE_BYTES):
                self._loop.call_later(self.each_way_s, _written, writer, data)
        self._loop.call_later(self.each_way_s, writer.close)


def _written(writer: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        writer.write(data)
