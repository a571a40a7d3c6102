"""A node that shares, without a loop: a door that executes commands on a real Redis, a clock tests turn."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import redis
from redis.exceptions import ResponseError

from enforcer.blocked import BlockedRecords
from enforcer.demo.stores import Store
from enforcer.elements import grant_keys
from enforcer.identity import Identity
from enforcer.ledger import Account, ElementKey, Opening, opening_of
from enforcer.sharing.publishing.ledger import RedisLedger
from enforcer.sharing.publishing.outbox import Outbox
from enforcer.sharing.publishing.pods import PodFacts
from enforcer.sharing.publishing.publisher import Publisher
from enforcer.sharing.records.formats import GrantRecord, NodeFacts, grant_from
from enforcer.sharing.records.keys import Keys
from enforcer.sharing.records.reasons import reasons_left
from enforcer.sharing.records.resp import packed
from enforcer.sharing.records.seal import Keyring, check
from enforcer.sharing.redis.troubles import Trouble
from policy.addresses import from_packed, to_packed
from policy.decision import Permit
from policy.grants import Reason

SESSION = "0123abcd"
A4, A6, B4 = (to_packed(text) for text in ("10.0.0.1", "2a00:1::2", "10.0.0.2"))
FACTS = NodeFacts("1", 3, "hash", 2, 0, "t", True, 1, 0, 0, "", (), ())  # noqa: FBT003
GONE = Trouble("Redis is gone", "closed")


def identity(source: bytes, uid: str = "uid-a", pod: str = "mcp/a") -> Identity:
    """An identity of a pod at an address."""
    return Identity(source, f"veth{source[-1]}", uid, "boot-1", pod)


def tuple_of(
    source: bytes, destination: bytes, protocol: str = "tcp", first: int = 443, last: int = 0
) -> tuple[ElementKey, ...]:
    """The keys of the elements that open a destination."""
    return grant_keys(source, destination, Permit(protocol, first, last or first, "", ""))  # type: ignore[arg-type]


def opening(
    account: Account, destination: bytes, until: float, reason: Reason | str = "api.example.com", **ports: Any
) -> list[Opening]:
    """What an acknowledged request makes."""
    why = reason if isinstance(reason, Reason) else Reason(reason, "mcp/web", "allow")
    keys = tuple_of(account.identity.source, destination, **ports)
    return [opening_of(account, key, why, until) for key in keys]


class Timers:
    """Virtual monotonic time, and what is to happen in it."""

    def __init__(self, at: float = 1000.0) -> None:
        self.at = at
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def __call__(self) -> float:
        return self.at

    def later(self, after_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._calls, (self.at + after_s, next(self._order), call))

    def run(self, seconds: float, between: Callable[[], None]) -> None:
        """Let time pass; ``between`` is called after each call that was due."""
        until = self.at + seconds
        while self._calls and self._calls[0][0] <= until:
            due, _, call = heapq.heappop(self._calls)
            self.at = max(self.at, due)
            call()
            between()
        self.at = until
        between()


class NearDoor:
    """Executes what is written on a Redis whose keys expire by the test's clock."""

    def __init__(self, store: Store, clock: Timers) -> None:
        self.redis = redis.Redis(unix_socket_path=str(store.path))
        self._connection = redis.UnixDomainSocketConnection(path=str(store.path))
        self._clock = clock
        self._began_ms = int(self.redis.time()[0]) * 1000 - int(clock() * 1000)  # type: ignore[index]
        self._written: list[tuple[list[bytes], Callable[[Any], None] | None]] = []
        self._express: list[tuple[bytes, Callable[[Any], None] | None]] = []
        self._asked: list[tuple[Callable[[Any], Any], Callable[[Any], None]]] = []
        self.ends: dict[bytes, float] = {}
        self.is_up = False
        self.is_slow = False
        """Nothing is executed while it is."""
        self.refuses = False
        """Every command is answered with an error while it does."""
        self.commands: list[tuple[bytes, ...]] = []
        self.largest = self.transactions = 0

    @property
    def backlog(self) -> int:
        return sum(len(commands) for commands, _ in self._written) + len(self._express)

    def write(self, commands: Sequence[bytes], done: Callable[[Any], None] | None = None) -> None:
        self._written.append((list(commands), done))

    def send(self, key: bytes, command: Sequence[bytes], done: Callable[[Any], None] | None = None) -> None:
        self._express.append((packed(*command), done))

    def ask(self, work: Callable[[Any], Any], done: Callable[[Any], None], deadline_s: float = 3.0) -> None:
        self._asked.append((work, done))

    def redis_ms(self) -> int | None:
        return self._began_ms + int(self._clock() * 1000) if self.is_up else None

    # --- what Reader is ----------------------------------------------------------------------------

    def scan(self, pattern: bytes, limit: int, _limit_bytes: int) -> list[bytes]:
        return list(itertools.islice(self.redis.scan_iter(pattern), limit))

    def hashes(self, keys: Sequence[bytes], limit_bytes: int) -> list[dict[bytes, bytes]]:
        """As ``Reader``: what is far too large is taken for none."""
        found: list[dict[bytes, bytes]] = [self.redis.hgetall(key) for key in keys]  # type: ignore[misc]
        return [each if sum(map(len, each.values())) <= limit_bytes else {} for each in found]

    # --- what tests do -----------------------------------------------------------------------------

    def close(self) -> None:
        self.redis.close()
        self._connection.disconnect()

    def pump(self) -> None:
        """Execute what waits, and what follows from it; let expire what is over."""
        while not self.is_slow and (self._written or self._express or self._asked):
            written, self._written = self._written, []
            for commands, done in written:
                self.largest = max(self.largest, len(commands))
                self.transactions += 1
                replies = self._executed(commands) if self.is_up else None
                if done is not None:
                    done(replies)
            express, self._express = self._express, []
            for command, done in express:
                answer = self._executed([command])[0] if self.is_up else None
                if done is not None:
                    done(answer)
            asked, self._asked = self._asked, []
            for work, told in asked:
                told(work(self) if self.is_up else GONE)
        self.expire()

    def expire(self) -> None:
        over = [key for key, at in self.ends.items() if at <= self._clock()]
        for key in over:
            del self.ends[key]
        if over:
            self.redis.delete(*over)

    def drop(self, *, executed: bool) -> None:
        """Lose the connection with what waits, executed or not; nobody knows."""
        written, self._written = self._written, []
        for commands, _ in written:
            if executed:
                self._executed(commands)
        self.is_up = False
        for _, done in written:
            if done is not None:
                done(None)

    def _executed(self, commands: list[bytes]) -> list[Any]:
        if self.refuses or not commands:
            return [ResponseError("ERR no")] * len(commands)
        wire = self._connection
        wire.send_packed_command([packed(b"MULTI"), *map(unhurried, commands), packed(b"EXEC")])
        for _ in range(len(commands) + 1):
            wire.read_response()
        replies: list[Any] = list(wire.read_response())  # type: ignore[arg-type]
        for command, reply in zip(commands, replies, strict=True):
            self._note(parts_of(command), reply)
        return replies

    def _note(self, parts: tuple[bytes, ...], reply: object) -> None:
        self.commands.append(parts)
        if parts[0] == b"PEXPIRE" and reply == 1:
            self.ends[parts[1]] = self._clock() + int(parts[2]) / 1000
        elif parts[0] == b"UNLINK":
            self.ends.pop(parts[1], None)


SLOWED = 1000
"""Redis's own clock must not end what the test's clock has not: its lives are so many times longer."""


def unhurried(command: bytes) -> bytes:
    """A command as the test's Redis gets it."""
    parts = parts_of(command)
    if parts[0] != b"PEXPIRE":
        return command
    return packed(b"PEXPIRE", parts[1], b"%d" % (int(parts[2]) * SLOWED))


def parts_of(command: bytes) -> tuple[bytes, ...]:
    """Read a packed command."""
    parts = []
    rest = command.partition(b"\r\n")[2]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        parts.append(rest[: int(size[1:])])
        rest = rest[int(size[1:]) + 2 :]
    return tuple(parts)


CLOSE_S = 0.2
"""Instants so close are the same: texts are rounded, and a write takes a turn or two."""


class Shown(NamedTuple):
    """What is said of one grant; instants are the test's."""

    pod: str
    uid: str
    pod_ip: str
    address: str
    session: str
    until: float
    reasons: dict[Reason, float]

    def is_like(self, other: Shown, now: float) -> bool:
        """Say whether both say the same, rounding apart."""
        ends = {each: (self.reasons.get(each, now), other.reasons.get(each, now))
                for each in {**self.reasons, **other.reasons}}  # fmt: skip
        return (
            self[:5] == other[:5]
            and abs(self.until - other.until) < CLOSE_S
            and all(abs(max(one, now) - max(two, now)) < CLOSE_S for one, two in ends.values())
        )


class SharingNode:
    """Ledger, publisher and door, joined."""

    def __init__(self, store: Store, *, limit: int = 100_000, session: str = SESSION) -> None:
        self.clock = Timers()
        self.door = NearDoor(store, self.clock)
        self.keys = Keys("default", "node-a")
        self.keyring = Keyring(b"the key of the cluster")
        self.ledger = RedisLedger(Outbox(limit, self.clock))
        self.blocked = BlockedRecords(1000)
        self.pods = [PodFacts("mcp", "a", "uid-a", (A4, A6), ("default/web",), ("mcp/web",))]
        self.generation = 3
        self.session = session
        self._random = itertools.count(1)
        self.publisher = Publisher(
            door=self.door,
            keys=self.keys,
            keyring=lambda: self.keyring,
            ledger=self.ledger,
            facts=lambda: FACTS,
            pods=lambda: self.pods,
            blocked=self.blocked,
            session=session,
            generation=lambda: self.generation,
            now=self.clock,
            ago=lambda before_s: f"at {self.clock() - before_s:.3f}",
            later=self.clock.later,
            randomness=lambda count: next(self._random).to_bytes(count, "big"),
        )
        self.publisher.start()

    def up(self) -> None:
        """Redis is there."""
        self.door.is_up = True
        self.publisher.redis_up()

    def lose(self, *, executed: bool = True) -> None:
        """Redis is lost, and what is on its way with it."""
        self.door.drop(executed=executed)
        self.publisher.redis_lost()

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.run(seconds, self.door.pump)

    def close(self) -> None:
        """Let go of Redis."""
        self.publisher.stop()
        self.door.close()

    # --- comparison --------------------------------------------------------------------------------

    def wanted(self) -> dict[bytes, Shown]:
        """What Redis should say of each live grant."""
        now = self.clock()
        found: dict[bytes, Shown] = {}
        for account in self.ledger.accounts.values():
            for holding in account.holdings():
                if holding.until > now:
                    opens = holding.opens
                    found[self.keys.grant(holding.key[0], holding.key[1])] = Shown(
                        account.identity.key,
                        account.identity.uid,
                        from_packed(opens.pod),
                        from_packed(opens.destination),
                        self.session,
                        holding.until,
                        {reason: min(until, holding.until) for reason, until in holding.reasons.items()},
                    )
        return found

    def shared(self) -> dict[bytes, Shown]:
        """What Redis says, each record with a sound seal."""
        now = self.clock()
        found: dict[bytes, Shown] = {}
        for key in self.door.redis.scan_iter(self.keys.pattern("grant")):
            record = self.record(key)
            reasons = reasons_left(record.reasons, self.door.ends[key] - now)
            found[key] = Shown(
                f"{record.namespace}/{record.pod}",
                record.uid,
                record.pod_ip,
                record.address,
                record.session,
                self.door.ends[key],
                {Reason(*each[:3]): now + each.remaining_s for each in reasons},
            )
        return found

    def differences(self) -> dict[bytes, tuple[Shown | None, Shown | None]]:
        """Where Redis and the ledger are apart, but for what ends just now."""
        now = self.clock()
        shared, wanted = self.shared(), self.wanted()
        found: dict[bytes, tuple[Shown | None, Shown | None]] = {}
        for key in {**shared, **wanted}:
            one, other = shared.get(key), wanted.get(key)
            until = max(each.until for each in (one, other) if each is not None)
            if until > now + CLOSE_S and not (one and other and one.is_like(other, now)):
                found[key] = one, other
        return found

    def record(self, key: bytes) -> GrantRecord:
        """One grant's record, believed."""
        fields: dict[bytes, bytes] = self.door.redis.hgetall(key)  # type: ignore[assignment]
        check(self.keyring, key, fields)
        return grant_from(key, fields)
