"""The connections of one thread: one to a single server, one to each master of a Cluster.

Owns which key is asked where, and following MOVED. Never waits without a time-out, belongs to one
thread. Invariant: replies come in the order of what was asked, whichever server gave them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from enforcer.sharing.redis.line import LARGEST_REPLY_BYTES, TIMEOUT_S, Line, Reply, slot_of
from enforcer.sharing.redis.troubles import Lost, RedisSaid
from policy.runtime.redis_url import Address

_HOPS = 4
_MOVED = re.compile(r"MOVED (\d{1,5}) (.*):(\d{1,5})")


def moved_to(said: str, asked: Address) -> Address | None:
    """Return where a MOVED reply points, None if it is something else. An empty host is the one asked."""
    found = _MOVED.fullmatch(said)
    if found is None or not 0 < int(found[3]) < 65536:
        return None
    return Address(found[2].strip("[]") or asked.host, int(found[3]))


class Fleet:
    """Connections by address; ``opened`` connects one (and raises ``Lost``)."""

    def __init__(self, home: Address, opened: Callable[[Address], Line], *, is_cluster: bool) -> None:
        self._home = home
        self._opened = opened
        self._is_cluster = is_cluster
        self._lines: dict[Address, Line] = {}
        self._where: dict[int, Address] = {}

    def line(self, address: Address) -> Line:
        """Return the connection to a server, opening it if need be. Raises ``Lost``."""
        line = self._lines.get(address)
        if line is None or not line.is_open:
            line = self._lines[address] = self._opened(address)
        return line

    def line_for(self, key: bytes) -> Line:
        """Return the connection to whoever has this key, as far as is known. Raises ``Lost``."""
        if not self._is_cluster:
            return self.line(self._home)
        return self.line(self._where.get(slot_of(key), self._home))

    def replies(
        self,
        asked: Sequence[tuple[bytes, bytes]],
        limit_bytes: int = LARGEST_REPLY_BYTES,
        timeout_s: float = TIMEOUT_S,
    ) -> list[Reply]:
        """Send (key, packed command) pairs together and return their replies in order. Raises ``Lost``."""
        found: list[Reply] = [None] * len(asked)
        waiting = list(range(len(asked)))
        for _ in range(_HOPS):
            by_line: dict[Address, list[int]] = {}
            for index in waiting:
                by_line.setdefault(self.line_for(asked[index][0]).address, []).append(index)
            for address, indexes in by_line.items():
                self.line(address).send(b"".join(asked[index][1] for index in indexes))
            for address, indexes in by_line.items():
                replies = self.line(address).replies(len(indexes), limit_bytes, timeout_s)
                for index, reply in zip(indexes, replies, strict=True):
                    found[index] = reply
            waiting = [index for index in waiting if self._learned(asked[index][0], found[index])]
            if not waiting:
                return found
        raise Lost("Redis Cluster sends us from one server to another: see CLUSTER NODES", "cluster")

    def _learned(self, key: bytes, reply: Reply) -> bool:
        """Note where a key is, if the reply says so."""
        if not self._is_cluster or not isinstance(reply, RedisSaid):
            return False
        to = moved_to(reply, self.line_for(key).address)
        if to is None:
            return False
        self._where[slot_of(key)] = to
        return True

    def masters(self) -> list[Address]:
        """Return every server that has keys. Raises ``Lost``."""
        if not self._is_cluster:
            return [self._home]
        line = self.line(self._home)
        reply = line.ask(b"CLUSTER", b"SLOTS")
        if isinstance(reply, RedisSaid):
            raise Lost(
                f"Redis Cluster does not say which servers it has ({reply:.80}): allow +cluster|slots",
                "cluster",
            )
        found: dict[Address, None] = {}
        for part in reply if isinstance(reply, list) else ():
            match part:
                case [int(), int(), [host, int() as port, *_], *_] if 0 < port < 65536:
                    name = host.decode("ascii", "replace") if isinstance(host, bytes) else ""
                    found[Address(name if name and name != "?" else line.address.host, port)] = None
        return list(found) or [self._home]

    def drop_broken(self) -> None:
        """After a ``Lost``: let go of every connection, because replies nobody waits for may be in them."""
        self.close()

    def close(self) -> None:
        """Let go of every connection."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()
