"""What one Redis carries: a cluster of simulated nodes with real records on one server.

Run: ``python -m benchmarks.shared_size [NODES]`` (default 50; 500 is the size aimed at, and needs a
gigabyte and minutes). Starts a redis-server of its own, on a socket. Owns the measurement and the arithmetic
from there to 500 nodes; a cost is Redis's own CPU, which is the bound: it runs on one core.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import hiredis

from benchmarks.shared_records import BLOCKED_ENTRIES, RING, SimulatedNode
from enforcer.sharing.publishing.grants import WALKED
from enforcer.sharing.records.resp import packed
from enforcer.sharing.records.seal import check
from enforcer.sharing.redis import session

NODES, PODS, GRANTS = 500, 110, 20
"""Nodes, pods a node, live grants a pod that one Redis is to carry."""
RENEWED_EVERY_S, GIVEN_UP_AFTER_S = 60, 600
"""A name in use is asked again once a TTL; a destination is given up after ten minutes."""
CONNECTIONS_A_NODE = 4
AT_ONCE = 300
GRANTS_AT_ONCE = max(session._MOST_COMMANDS // 3 // WALKED, 1) * WALKED
"""What the door puts into one transaction when everything is written again."""
TURNS = 4
SAMPLE = 100_000


class Server:
    """A redis-server as docs/redis.md configures it, and one connection to it."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "redis.sock")
        argv = ["redis-server", "--port", "0", "--unixsocket", self.path, "--dir", str(folder)]
        argv += ["--save", "", "--appendonly", "no", "--maxclients", "4000"]
        self._process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not Path(self.path).exists():
            if time.monotonic() > deadline:
                raise SystemExit("redis-server did not start")
            time.sleep(0.05)
        self._connection = self.connect()
        self._reader = hiredis.Reader()

    def connect(self) -> socket.socket:
        """Open one more connection."""
        opened = socket.socket(socket.AF_UNIX)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 19)  # a transaction goes out at once
        opened.connect(self.path)
        return opened

    def cpu_s(self) -> float:
        """Return the CPU seconds that the server's main thread has used."""
        stat = Path(f"/proc/{self._process.pid}/schedstat").read_text()
        return int(stat.split()[0]) / 1e9

    def info(self, field: str) -> int:
        """Return one number of INFO."""
        text = self.said([packed(b"INFO")])[0].decode()
        return next(int(line.split(":")[1]) for line in text.splitlines() if line.startswith(f"{field}:"))

    def said(self, commands: list[bytes]) -> list[Any]:
        """Send commands at once and return the replies."""
        self._connection.sendall(b"".join(commands))
        replies: list[Any] = []
        while len(replies) < len(commands):
            reply = self._reader.gets()
            if reply is False:
                self._reader.feed(self._connection.recv(1 << 18))
            elif isinstance(reply, hiredis.ReplyError):
                raise SystemExit(f"Redis said: {reply}")
            else:
                replies.append(reply)
        return replies

    def send(self, commands: Iterable[bytes]) -> int:
        """Send commands, ``AT_ONCE`` on the way; returns how many they were."""
        rest, total = iter(commands), 0
        while batch := list(islice(rest, AT_ONCE)):
            self.said(batch)
            total += len(batch)
        return total

    def stop(self) -> None:
        """End it."""
        self._connection.close()
        self._process.kill()
        self._process.wait()


@contextmanager
def server() -> Iterator[Server]:
    """Run a server; it and its folder are gone afterwards."""
    with tempfile.TemporaryDirectory() as name:
        running = Server(Path(name))
        try:
            yield running
        finally:
            running.stop()


def cpu_us(redis: Server, what: list[bytes], count: int) -> float:
    """Return Redis's CPU microseconds a thing, of ``count`` things that these commands are."""
    before_s = redis.cpu_s()
    redis.send(what)
    return (redis.cpu_s() - before_s) / count * 1e6


def fill(redis: Server, nodes: list[SimulatedNode]) -> dict[str, float]:
    """Write everything of every node into the empty server."""
    empty, before_s, began = redis.info("used_memory"), redis.cpu_s(), time.monotonic()
    for node in nodes:
        redis.send(node.resync())
    grants = sum(node.grants for node in nodes)
    return {
        "grants": grants,
        "keys": redis.said([packed(b"DBSIZE")])[0],
        "bytes_a_grant": round((redis.info("used_memory") - empty) / grants, 1),
        "memory_mb": round(redis.info("used_memory") / 1e6, 1),
        "rss_mb": round(redis.info("used_memory_rss") / 1e6, 1),
        "resync_us_a_grant": round((redis.cpu_s() - before_s) / grants * 1e6, 2),
        "resync_wall_s": round(time.monotonic() - began, 1),
    }


def transactions(node: SimulatedNode, count: int) -> list[bytes]:
    """Return a node's first transactions after Redis is back, as its door sends them."""
    begin, end = packed(b"TIME") + packed(b"MULTI"), packed(b"EXEC")
    pieces = (range(part * GRANTS_AT_ONCE, (part + 1) * GRANTS_AT_ONCE) for part in range(count))
    return [b"".join((begin, *node.replaced(piece), end)) for piece in pieces]


def together(redis: Server, nodes: list[SimulatedNode]) -> dict[str, float]:
    """Have all nodes write at once, each its next transaction when the one before was answered.

    Returns how long a node waits for the replies to one: beyond a second it takes Redis for lost.
    """
    waits_s: list[float] = []
    replies = 3 + 3 * GRANTS_AT_ONCE
    with selectors.DefaultSelector() as ready:
        for node in nodes:
            connection = redis.connect()
            turns = iter(transactions(node, TURNS))
            ready.register(connection, selectors.EVENT_READ, _Writer(connection, turns, hiredis.Reader()))
        writers = [key.data for key in list(ready.get_map().values())]
        for writer in writers:
            writer.next()
        while ready.get_map():
            for key, _ in ready.select():
                if key.data.came(replies):
                    waits_s.append(time.monotonic() - key.data.sent_at)
                    if not key.data.next():
                        ready.unregister(key.fileobj)
    waits_s.sort()
    return {
        "together_p50_ms": round(waits_s[len(waits_s) // 2] * 1000),
        "together_max_ms": round(waits_s[-1] * 1000),
    }


class _Writer:
    """One node's connection while it writes everything."""

    def __init__(self, connection: socket.socket, turns: Iterator[bytes], reader: hiredis.Reader) -> None:
        self._connection, self._turns, self._reader = connection, turns, reader
        self._got = 0
        self.sent_at = 0.0

    def next(self) -> bool:
        """Send the next transaction; False: there is none."""
        payload = next(self._turns, None)
        if payload is not None:
            self._got, self.sent_at = 0, time.monotonic()
            self._connection.sendall(payload)
        return payload is not None

    def came(self, replies: int) -> bool:
        """Read what came; True: all replies are there."""
        self._reader.feed(self._connection.recv(1 << 18))
        while self._reader.gets() is not False:
            self._got += 1
        return self._got >= replies


def life(redis: Server, nodes: list[SimulatedNode]) -> dict[str, float]:
    """Measure each thing that nodes write while they live, one kind after the other."""
    a_node = SAMPLE // len(nodes)
    renewals = [node.renewed(index) for node in nodes for index in range(min(a_node, node.grants))]
    heartbeats = [
        command for beat in range(2, 2 + SAMPLE // 1000) for node in nodes for command in node.heartbeat(beat)
    ]
    new = [
        command
        for node in nodes
        for index in range(node.grants, node.grants + a_node // 5)
        for command in node.opened(index)
    ]
    return {
        "renewal_us": round(cpu_us(redis, renewals, len(renewals)), 2),
        "heartbeat_us": round(cpu_us(redis, heartbeats, len(heartbeats) // 3), 2),
        "new_grant_us": round(cpu_us(redis, new, len(new) // 2), 2),
    }


def listing(redis: Server) -> dict[str, float]:
    """Read every grant of the cluster as a listing does: SCAN, HGETALL, seal checked."""
    began, before_s, cursor, keys, scan_s = time.monotonic(), redis.cpu_s(), b"0", 0, 0.0
    pattern = b"nameward:prod:{*}:grant:*"
    while True:
        scan_from = redis.cpu_s()
        cursor, found = redis.said([packed(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"1000")])[0]
        scan_s += redis.cpu_s() - scan_from
        for key, flat in zip(found, redis.said([packed(b"HGETALL", key) for key in found]), strict=True):
            check(RING, key, dict(zip(flat[::2], flat[1::2], strict=True)))
        keys += len(found)
        if cursor == b"0":
            break
    return {
        "listed": keys,
        "listing_wall_s": round(time.monotonic() - began, 1),
        "listing_us_a_grant": round((redis.cpu_s() - before_s) / keys * 1e6, 2),
        "scan_us_a_grant": round(scan_s / keys * 1e6, 2),
    }


def others(redis: Server, node: SimulatedNode) -> dict[str, float]:
    """Measure a full stream of refusals, and what connections cost."""
    before = redis.info("used_memory")
    blocked_us = cpu_us(redis, [node.refusal(number) for number in range(BLOCKED_ENTRIES)], BLOCKED_ENTRIES)
    stream = redis.info("used_memory") - before
    before = redis.info("used_memory")
    opened = [redis.connect() for _ in range(CONNECTIONS_A_NODE * NODES)]
    redis.said([packed(b"PING")])
    connection = (redis.info("used_memory") - before) / len(opened)
    for each in opened:
        each.close()
    return {
        "blocked_us": round(blocked_us, 2),
        "blocked_stream_mb": round(stream / 1e6, 2),
        "connection_bytes": round(connection),
    }


def at_the_aim(measured: dict[str, float]) -> dict[str, float]:
    """Return what 500 nodes of 110 pods of 20 grants come to, by arithmetic."""
    grants = NODES * PODS * GRANTS
    renewals, new = grants / RENEWED_EVERY_S, grants / GIVEN_UP_AFTER_S
    load_us = (
        renewals * measured["renewal_us"] + new * measured["new_grant_us"] + NODES * measured["heartbeat_us"]
    )
    return {
        "grants": grants,
        "memory_mb": round(grants * measured["bytes_a_grant"] / 1e6),
        "full_blocked_streams_mb": round(NODES * measured["blocked_stream_mb"]),
        "connections": NODES * CONNECTIONS_A_NODE,
        "connections_mb": round(NODES * CONNECTIONS_A_NODE * measured["connection_bytes"] / 1e6),
        "renewals_a_second": round(renewals),
        "new_grants_a_second": round(new),
        "heartbeats_a_second": NODES,
        "commands_a_second": round(renewals + 2 * new + 3 * NODES),
        "busy_percent": round(load_us / 1e4, 1),
        "full_resync_s": round(grants * measured["resync_us_a_grant"] / 1e6, 1),
        "listing_s_of_redis": round(grants * measured["listing_us_a_grant"] / 1e6, 1),
    }


def main() -> int:
    """Measure, then say what the size aimed at comes to."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    nodes = [SimulatedNode(number, PODS, GRANTS) for number in range(count)]
    with server() as redis:
        measured: dict[str, float] = {"nodes": count, "load": round(os.getloadavg()[0], 2)}

        def emptied() -> dict[str, float]:
            redis.said([packed(b"FLUSHALL")])
            return {}

        parts: tuple[Callable[[], dict[str, float]], ...] = (
            lambda: together(redis, nodes),
            emptied,
            lambda: fill(redis, nodes),
            lambda: listing(redis),
            lambda: life(redis, nodes),
        )
        for part in parts:
            measured |= part()
            print(json.dumps(measured), file=sys.stderr, flush=True)
        measured |= others(redis, nodes[0])
    print(json.dumps({"measured": measured, "500 nodes": at_the_aim(measured)}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
