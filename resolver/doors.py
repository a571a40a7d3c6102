"""The node's DNS sockets in this process: taken over from the enforcer, kept when it goes.

Owns each adopted descriptor and what reads it. Never opens a socket. Invariant: one kernel socket is
read once, however often its descriptor arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.python.failure import Failure

from policy.runtime.clock import MonotonicReactor
from resolver import transport
from resolver.effects import Client
from resolver.listener import Hit, Received, UdpListener
from resolver.queues import Owner
from resolver.stream_listener import StreamListener


class Doors:
    """All sockets by name; ``udp4 udp6 tcp4 tcp6`` and those of ``dns.listen``."""

    def __init__(
        self,
        reactor: MonotonicReactor,
        streams: StreamListener,
        *,
        hit: Hit,
        received: Received,
        owner: Callable[[bytes], Owner],
        broken: Callable[[Failure], None],
    ) -> None:
        self._reactor = reactor
        self._streams = streams
        self._hit = hit
        self._received = received
        self._owner = owner
        self._broken = broken
        self._socks: dict[str, transport.Socket] = {}
        self._udp: dict[int, UdpListener] = {}
        self._udp_index: dict[str, int] = {}
        self._listening: dict[str, transport.Socket] = {}
        self._last_index = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sockets that are being read."""
        return tuple(self._socks)

    def adopt(self, names: Sequence[str], descriptors: Sequence[int]) -> None:
        """Read these sockets from now on; those that are read already stay as they are."""
        for name, descriptor in zip(names, descriptors, strict=True):
            sock = transport.adopt(descriptor)
            known = self._socks.get(name)
            if known is not None and transport.same_socket(known, sock):
                sock.close()
                continue
            before = self._udp_index.get(name)
            if before is not None:
                self._udp[before].doRead()  # what waits in the old one has no other reader
            if known is not None:
                self._close(name)
            self._socks[name] = sock
            if transport.is_datagram(sock):
                self._read_datagrams(name, sock, before)
            else:
                self._streams.listen(sock)
                self._listening[name] = sock

    def reply(self, wire: bytes, client: Client) -> None:
        """Send a reply through the socket or connection its query came by, if that is still there.

        It leaves with the next ``flush``, if not before.
        """
        if client.transport == "tcp":
            self._streams.reply(wire, client)
        elif (listener := self._udp.get(client.via)) is not None:
            listener.reply(wire, client)

    def flush(self) -> None:
        """Send the replies; call after each read of the loop."""
        for listener in self._udp.values():
            listener.flush()
        self._streams.flush()

    def mute(self, sources: frozenset[bytes]) -> None:
        """Have the kernel drop the datagrams of these addresses, at every socket."""
        for index in self._udp_index.values():
            self._udp[index].mute(sources)

    def take_drops(self) -> int:
        """Return, and forget, how many datagrams the kernel has dropped, muted or for want of room."""
        return sum(self._udp[index].take_drops() for index in self._udp_index.values())

    def stop_reading(self) -> None:
        """Take no further query; replies can still be sent."""
        for listener in self._udp.values():
            listener.stop()
        for sock in self._listening.values():
            self._streams.leave(sock)
        self._listening.clear()
        self._streams.stop_reading()

    def give_up(self) -> None:
        """Read none of the sockets any more; connections that are open may end."""
        for name in self.names:
            self._close(name)

    def close(self) -> None:
        """Give every socket and connection up."""
        self.give_up()
        self._streams.close()

    def _read_datagrams(self, name: str, sock: transport.Socket, index: int | None) -> None:
        if index is None:  # else what came through the old one is answered through this one
            index = self._last_index = self._last_index + 1
        listener = UdpListener(
            self._reactor,
            sock,
            index,
            hit=self._hit,
            received=self._received,
            owner=self._owner,
            broken=self._broken,
        )
        self._udp[index] = listener
        self._udp_index[name] = index
        listener.start()

    def _close(self, name: str) -> None:
        index = self._udp_index.pop(name, None)
        if index is not None:
            self._udp.pop(index).stop()
        if name in self._listening:
            self._streams.leave(self._listening.pop(name))
        self._socks.pop(name).close()
