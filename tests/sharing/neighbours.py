"""Nodes of one cluster without a loop: real brains, one clock, a Redis of a few commands between them."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.task import Clock as Timers

from enforcer.desired import Fixed
from enforcer.link import LinkHub
from enforcer.sharing.nodes.remote import Remote
from enforcer.sharing.records.formats import NodeFacts, NodeRecord, PodRecord
from enforcer.sharing.records.keys import Keys
from enforcer.sharing.records.seal import VERSION, Keyring, seal
from policy.addresses import from_packed
from policy.authority import GrantAnswered, GrantRequested
from policy.pods import Pod
from policy.rules import Policy
from tests.enforcer.rig import Clock, KeptRecords, Rig, permit, policy

KEYRING = Keyring(b"the key of the cluster")
POLICY = policy(permit("*.example.org"))
HOLD_S = 1.0


class Entry(NamedTuple):
    """An entry as the door gives it."""

    id: bytes
    age_ms: int
    fields: Mapping[bytes, bytes]


class FakeRedis:
    """Hashes and streams; everything takes ``delay_s`` each way. Also what an attacker writes into."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.delay_s = 0.0
        self.hashes: dict[bytes, tuple[dict[bytes, bytes], float]] = {}
        self.streams: dict[bytes, list[tuple[float, dict[bytes, bytes]]]] = {}
        self.readers: dict[bytes, Callable[[bytes, list[Entry]], None]] = {}
        self.commands: list[tuple[bytes, ...]] = []
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        """Have something happen later."""
        heapq.heappush(self._due, (self.clock() + delay_s, next(self._order), call))

    def run(self, for_s: float = 0.0) -> None:
        """Let everything happen that happens within a time; the clock ends at its end."""
        end = self.clock() + for_s
        while self._due and self._due[0][0] <= end:
            at, _, call = heapq.heappop(self._due)
            self.clock.at = max(self.clock.at, at)
            call()
        self.clock.at = end

    def command(self, words: Sequence[bytes]) -> object:
        """Do one command."""
        self.commands.append(tuple(words))
        match words[0]:
            case b"XADD":
                at = words.index(b"*")
                pairs = words[at + 1 :]
                self.add(words[1], dict(zip(pairs[::2], pairs[1::2], strict=True)))
                return b"1-1"
            case b"HSET":
                held = self.hash(words[1])
                held.update(zip(words[2::2], words[3::2], strict=True))
                self.hashes[words[1]] = (held, float("inf"))
                return 0
            case b"PEXPIRE":
                if words[1] in self.hashes:
                    self.hashes[words[1]] = (self.hash(words[1]), self.clock() + int(words[2]) / 1000)
                return 1
            case b"UNLINK":
                self.hashes.pop(words[1], None)
                return 1
        raise AssertionError(words)

    def hash(self, key: bytes) -> dict[bytes, bytes]:
        """What a hash holds now."""
        held, until = self.hashes.get(key, ({}, 0.0))
        return dict(held) if until > self.clock() else {}

    def add(self, stream: bytes, fields: Mapping[bytes, bytes], age_s: float = 0.0) -> None:
        """Add an entry that is so old; who reads the stream gets it."""
        at = self.clock() - age_s
        self.streams.setdefault(stream, []).append((at, dict(fields)))

        def deliver() -> None:
            reader = self.readers.get(stream)
            if reader is not None:
                reader(stream, [Entry(b"1-1", round((self.clock() - at) * 1000), dict(fields))])

        self.after(self.delay_s, deliver)


class FakeDoor:
    """One node's door to it."""

    def __init__(self, redis: FakeRedis) -> None:
        self.redis = redis
        self.is_up = True

    def hashes(self, keys: Sequence[bytes]) -> list[dict[bytes, bytes]]:
        """As ``Reader``."""
        return [self.redis.hash(key) for key in keys]

    def send(
        self, key: bytes, command: Sequence[bytes], done: Callable[[object], None] | None = None
    ) -> None:
        """As ``Door``: done after both ways; lost while it is down."""
        assert command[1] == key

        def do() -> None:
            reply = self.redis.command(command) if self.is_up else None
            if done is not None:
                self.redis.after(self.redis.delay_s, lambda: done(reply if self.is_up else None))

        self.redis.after(self.redis.delay_s, do)

    def ask(self, work: Callable[[Any], Any], done: Callable[[Any], None]) -> None:
        """As ``Door``."""

        def do() -> None:
            read = work(self) if self.is_up else "Redis is lost"
            self.redis.after(self.redis.delay_s, lambda: done(read))

        self.redis.after(self.redis.delay_s, do)


class Node:
    """One node: a rig whose requests and grants are real, heartbeats by hand."""

    _sessions = itertools.count(1)

    def __init__(self, cluster: Cluster, name: str, folder: Path) -> None:
        self.cluster, self.name, self.folder = cluster, name, folder
        self.keys = Keys("test", name)
        self.keyring = KEYRING
        self.door = FakeDoor(cluster.redis)
        self.hold_s = HOLD_S
        self.looked = 0
        self.look_again: Callable[[], None] = lambda: None
        self.is_alive = True
        self.start()

    def start(self) -> None:
        """Begin anew with what the folder and the kernel hold."""
        number = next(self._sessions)
        self.session = f"{number:08x}"
        self.challenges: list[str] = []
        self.beats = 0
        clock = self.cluster.clock
        found = (self.rig.kernel, clock) if hasattr(self, "rig") else None
        self.rig = Rig(self.folder, found)
        self.rig.clock = clock
        if found is None:
            self.rig = _rig_with(clock, self.folder)
        self.rig.reconciler.fixed = Fixed(self.name, "boot-1")
        self.timers = Timers()
        self.timers.seconds = clock  # type: ignore[method-assign]
        self.hub = LinkHub(
            reactor=self.timers,
            authority=self.rig.authority,
            reports=None,  # type: ignore[arg-type]
            records=KeptRecords(),
            uids=frozenset(),
            sockets={},
            version="1",
            granted=lambda: None,
            turn_done=lambda: None,
        )
        self.remote = Remote(
            keys=self.keys,
            session=self.session,
            keyring=lambda: self.keyring,
            door=self.door,
            challenges=lambda: self.challenges[-8:],
            snapshot=lambda: self.rig.authority.snapshot,
            held=lambda: {
                source: account.identity.uid for source, account in self.rig.ledger.accounts.items()
            },
            look_again=self._looked,
            hold_timeout_s=lambda: self.hold_s,
            now=clock,
            came=self.hub.came,
        )
        self.hub.elsewhere = self.remote
        for stream in (self.keys.requests, self.keys.acks):
            self.cluster.redis.readers[stream] = self._came

    def _came(self, stream: bytes, entries: list[Entry]) -> None:
        if self.door.is_up and self.is_alive:
            self.remote.entries_came(stream, entries)

    def _looked(self) -> None:
        self.looked += 1
        self.look_again()

    def settle(self, *policies: Policy, pods: tuple[Pod, ...]) -> Node:
        """Bring a world into force and admit its pods."""
        if self.rig.authority.snapshot is None:
            self.rig.begin()
        self.rig.apply(*(policies or (POLICY,)), pods=pods)
        self.rig.run_threads()
        self.remote.pods_changed()
        return self

    def beat(self) -> None:
        """Write a heartbeat, and the records of this node's pods."""
        self.beats += 1
        self.challenges.append(f"{self.session}{self.beats:08x}")
        redis = self.cluster.redis
        record = NodeRecord(self.name, self.session, self.beats, self.challenges[-1], "", FACTS)
        redis.hashes[self.keys.heartbeat] = (
            self.sealed(self.keys.heartbeat, record.fields()),
            self.cluster.clock() + 10,
        )
        for source, account in self.rig.ledger.accounts.items():
            key, who = self.keys.pod(source), account.identity
            pod = PodRecord(
                from_packed(source), who.namespace, who.pod, who.uid, self.name, (), (), self.session
            )
            redis.hashes[key] = (self.sealed(key, pod.fields()), self.cluster.clock() + 600)

    def sealed(self, key: bytes, fields: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Fields as who has the key writes them."""
        record = {**fields, b"v": VERSION}
        record[b"mac"] = seal(self.keyring, key, record)
        return record

    def ask(self, request: GrantRequested, pod: Pod) -> list[GrantAnswered]:
        """Ask for a pod; the list gets the answer when there is one."""
        got: list[GrantAnswered] = []
        self.remote.ask(request, pod, got.append)
        return got

    def turn(self) -> None:
        """Let the hub's timers happen."""
        self.timers.advance(0)


def _rig_with(clock: Clock, folder: Path) -> Rig:
    from tests.fakes import FakeKernel

    return Rig(folder, (FakeKernel(clock), clock))


FACTS = NodeFacts(
    version="1",
    generation=1,
    policy_hash="",
    pods=0,
    grants=0,
    started_at="",
    enforcing=True,
    policies=1,
    rejected_policies=0,
    pending=0,
    last_realized_at="",
    problems=(),
    upstreams=(),
)


class Cluster:
    """Nodes by name."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.clock = Clock()
        self.redis = FakeRedis(self.clock)
        self.nodes: dict[str, Node] = {}
        for name in names:
            (folder / name).mkdir()
            self.nodes[name] = Node(self, name, folder / name)

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def settle(self, *policies: Policy, pods: tuple[Pod, ...]) -> Cluster:
        """The same world on every node; heartbeats."""
        for node in self.nodes.values():
            node.settle(*policies, pods=pods)
        self.beat()
        self.redis.run()
        return self

    def beat(self) -> None:
        """A heartbeat of every living node."""
        for node in self.nodes.values():
            if node.is_alive and node.door.is_up:
                node.beat()

    def run(self, for_s: float = 0.0, step_s: float = 0.1) -> None:
        """Let time pass: letters, heartbeats each second, ticks, timers."""
        end = self.clock() + for_s
        self.redis.run()
        while self.clock() < end - 1e-9:
            before = int(self.clock())
            self.redis.run(min(step_s, end - self.clock()))
            if int(self.clock()) != before:
                self.beat()
            for node in self.nodes.values():
                if node.is_alive:
                    node.remote.tick()
                    node.turn()
            self.redis.run()
