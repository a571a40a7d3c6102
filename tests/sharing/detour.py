"""A way to a server that can be slow, silent or cut: what a network does, without a network.

Owns one listening socket and a thread that carries octets. Never looks into them. Invariant: they
arrive whole and in order, or their connection ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path

_CHUNK_BYTES = 1 << 16
_CHUNKS_ON_THE_WAY = 256
_LOOK_S = 0.02


class Detour:
    """A TCP port of loopback that leads to a Unix socket.

    ``delay_s`` is added to every reply; ``is_cut`` keeps whatever is sent from arriving, both ways.
    """

    def __init__(self, target: Path, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.is_cut = False
        self.port = 0
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="detour", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it listens, as a URL of Redis."""
        return f"redis://127.0.0.1:{self.port}"

    def __enter__(self) -> Detour:
        """Listen on a free port."""
        self._server = self._loop.run_until_complete(asyncio.start_server(self._came, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """End every connection and the thread."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        while others := [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]:
            for task in others:
                task.cancel()
            await asyncio.wait(others)

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._join(reader, writer)
        writer.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self._target)
        carried = [
            asyncio.ensure_future(self._carry(reader, back, slow=False)),
            asyncio.ensure_future(self._carry(there, writer, slow=True)),
        ]
        try:
            await asyncio.wait(carried, return_when=asyncio.FIRST_COMPLETED)
        finally:
            back.close()
            for task in carried:
                task.cancel()
            await asyncio.gather(*carried, return_exceptions=True)

    async def _carry(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, *, slow: bool) -> None:
        way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_ON_THE_WAY)
        taking = asyncio.ensure_future(self._take(source, way, slow=slow))
        try:
            while True:
                due_at, data = await way.get()
                await asyncio.sleep(due_at - self._loop.time())
                while self.is_cut:
                    await asyncio.sleep(_LOOK_S)
                if not data:
                    return
                to.write(data)
                await to.drain()
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

    async def _take(
        self, source: asyncio.StreamReader, way: asyncio.Queue[tuple[float, bytes]], *, slow: bool
    ) -> None:
        data = b"start"
        while data:
            try:
                data = await source.read(_CHUNK_BYTES)
            except OSError:
                data = b""
            await way.put((self._loop.time() + (self.delay_s if slow else 0.0), data))
