"""Which server has this node's keys now: the one named, Sentinel's master, or a Cluster's.

Owns asking Sentinels and following a Cluster's first MOVED, and the test that everything we will do
is permitted there. Invariant: the test changes nothing: it is a transaction that is discarded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from enforcer.sharing.records.resp import packed
from enforcer.sharing.redis.entries import Malformed, time_of
from enforcer.sharing.redis.fleet import moved_to
from enforcer.sharing.redis.line import Line
from enforcer.sharing.redis.troubles import Lost, RedisSaid, printable, worst
from policy.runtime.redis_url import Address, Kind, RedisPlace

Opened = Callable[[Address], Line]
_HOPS = 4
_NEVER = b"probe"
"""Ends the keys of the test; nobody ever writes them."""


def needed_commands(home: bytes, *, is_cluster: bool) -> list[tuple[bytes, ...]]:
    """Return one of each command that is ever sent, for keys beside ``home``.

    What an ACL user needs (docs/redis.md) is these, and ``ALWAYS``.
    """
    key = home + b":" + _NEVER
    other = key if is_cluster else home.split(b"{", 1)[0] + _NEVER
    return [
        (b"XADD", key, b"NOMKSTREAM", b"*", b"f", b"v"),
        (b"XADD", other, b"NOMKSTREAM", b"*", b"f", b"v"),
        (b"HSET", key, b"f", b"v"),
        (b"HSET", other, b"f", b"v"),
        (b"HDEL", other, b"f"),
        (b"COPY", key, key + b"s", b"REPLACE"),
        (b"PEXPIRE", key, b"1"),
        (b"DEL", key),
        (b"UNLINK", key),
        (b"HGETALL", key),
        (b"PTTL", key),
        (b"XLEN", key),
        (b"XRANGE", key, b"-", b"+", b"COUNT", b"1"),
        (b"XREVRANGE", key, b"+", b"-", b"COUNT", b"1"),
        (b"XREAD", b"STREAMS", key, b"0"),
        (b"SCAN", b"0", b"COUNT", b"1"),
    ]


ALWAYS = (b"TIME", b"MULTI", b"EXEC", b"DISCARD")
_AFTERWARDS = ((b"DISCARD",), (b"MULTI",), (b"EXEC",))


def write_probe(home: bytes) -> bytes:
    """Return commands that change nothing and are refused when writing is (full, a replica, ACL)."""
    probe = packed(b"XADD", home + b":" + _NEVER, b"NOMKSTREAM", b"*", b"f", b"v")
    return packed(b"TIME") + packed(b"MULTI") + probe + packed(b"DISCARD")


PROBE_REPLIES = 4


def writable_home(
    place: RedisPlace, opened: Opened, sentinels: Sentinels | None, home: bytes
) -> tuple[Line, int]:
    """Return a tested connection to whoever has ``home``, and that server's clock in ms. Raises ``Lost``."""
    if sentinels is not None:
        candidates: tuple[Address, ...] = (sentinels.master(),)
    else:
        candidates = place.addresses
    lost: Lost | None = None
    for address in candidates:
        try:
            return _follow(address, opened, home, is_cluster=place.kind is Kind.CLUSTER)
        except Lost as error:
            lost = lost or error
    raise lost or Lost("no server is named in state.redis.url: name one", "name")


def _follow(address: Address, opened: Opened, home: bytes, *, is_cluster: bool) -> tuple[Line, int]:
    """Test a server; in a Cluster go on to the one that it names."""
    for _ in range(_HOPS):
        line = opened(address)
        try:
            redis_ms = _begun(line)
            target = _tested(line, needed_commands(home, is_cluster=is_cluster), is_cluster=is_cluster)
        except Lost:
            line.close()
            raise
        if target is None:
            return line, redis_ms
        line.close()
        address = target
    raise Lost("Redis Cluster sends us from one server to another: see CLUSTER NODES", "cluster")


def _begun(line: Line) -> int:
    """Begin a transaction, alone: were it refused, nothing of what follows may be sent."""
    line.send(packed(b"TIME") + packed(b"MULTI"))
    clock, begun = line.replies(2)
    _refuse((clock, begun), line, b"TIME or MULTI")
    try:
        return time_of(clock)
    except Malformed as error:
        raise Lost(f"Redis at {line.address} does not answer as Redis does ({error})", "protocol") from None


def _tested(line: Line, commands: Sequence[tuple[bytes, ...]], *, is_cluster: bool) -> Address | None:
    """Queue one of each command and discard them; return the server that has the keys, if another does."""
    sent = (*commands, *_AFTERWARDS)
    line.send(b"".join(packed(*command) for command in sent))
    for reply, command in zip(line.replies(len(sent)), sent, strict=True):
        if is_cluster and isinstance(reply, RedisSaid):
            target = moved_to(reply, line.address)
            if target is not None:
                return target
        _refuse((reply,), line, command[0])
    return None


def _refuse(replies: Sequence[object], line: Line, command: bytes) -> None:
    for reply in replies:
        if isinstance(reply, RedisSaid):
            found = worst((reply,), str(line.address))
            if found is None:
                text = f"Redis at {line.address} refuses {command.decode()}: {printable(reply)}"
                raise Lost(text, "answer")
            raise Lost(found, found.reason)


class Sentinels:
    """The Sentinels of one master, asked in turn."""

    def __init__(self, place: RedisPlace, opened: Opened) -> None:
        self._place = place
        self._opened = opened
        self._addresses = list(place.addresses)
        self._line: Line | None = None

    def master(self) -> Address:
        """Return what the first Sentinel that answers says. Raises ``Lost``."""
        troubles: list[Lost] = []
        for _ in self._addresses:
            try:
                return self._ask()
            except Lost as error:
                troubles.append(error)
                self._turn()
        first = troubles[0].trouble
        text = (
            first.replace("passwordFile", "sentinelPasswordFile") if first.reason == "credentials" else first
        )
        raise Lost(f"no Sentinel helps: {text}", first.reason)

    def has_another(self, master: Address) -> Address | None:
        """Return the new master once two Sentinels (or the only one) name it; None while all is as it was."""
        try:
            said = self._ask()
            self._turn()
            if said == master or len(self._addresses) == 1:
                return None if said == master else said
            return said if self._ask() == said else None
        except Lost:
            self._turn()
            return None

    def close(self) -> None:
        """Let go of the connection."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _turn(self) -> None:
        self.close()
        self._addresses.append(self._addresses.pop(0))

    def _ask(self) -> Address:
        if self._line is None or not self._line.is_open:
            self._line = self._opened(self._addresses[0])
        name = self._place.master
        reply = self._line.ask(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name.encode())
        match reply:
            case [bytes() as host, bytes() as port] if port.isdigit() and 0 < int(port[:6]) < 65536:
                return Address(host.decode("ascii", "replace"), int(port))
            case RedisSaid():
                found = (
                    None if "unknown command" in reply else worst((reply,), f"Sentinel {self._line.address}")
                )
                text = found or f"the server at {self._line.address} is no Sentinel: {printable(reply)}"
                raise Lost(text, found.reason if found else "answer")
        raise Lost(
            f"Sentinel at {self._line.address} knows no master {name}: correct the name in state.redis.url",
            "name",
        )
