"""Two nodes over a real Redis: every request is answered, at a steady 500 a second, and how fast."""

from __future__ import annotations

import secrets
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from enforcer.demo.stores import Store
from enforcer.desired import Fixed
from enforcer.link import LinkHub
from enforcer.sharing.nodes.remote import Remote
from enforcer.sharing.records.formats import NodeRecord
from enforcer.sharing.records.keys import Keys
from enforcer.sharing.records.resp import hset, pexpire
from enforcer.sharing.records.seal import VERSION, Keyring, seal
from enforcer.sharing.redis.credentials import Credentials
from enforcer.sharing.redis.door import Door, Entry
from policy.authority import GrantAnswered
from policy.pods import Pod
from policy.runtime.clock import now
from policy.runtime.redis_url import parse_redis_url
from tests.enforcer.rig import API, KeptRecords, Rig
from tests.fakes import FakeKernel
from tests.sharing.neighbours import FACTS, POLICY

A = Pod(namespace="mcp", name="a", uid="uid-a", addresses=("100.64.0.2", "2a00:1::2"), node="node-a")
RATE = 500
REQUESTS = 1000
UNDER_WAY = 200
"""A machine that cannot keep that rate is asked as fast as it answers: fewer than a node's queue holds."""
HOLD_S, DEADLINE_S = 60.0, 120.0
"""Nothing here is about time: a slow machine takes longer."""
KEY = "a key of the cluster in a file"


class _Node:
    """One node's hub, authority and door on a shared loop; its kernel is a fake."""

    def __init__(self, reactor: EPollReactor, store: Store, folder: Path, name: str, cluster: str) -> None:
        folder.mkdir()
        (folder / "key").write_text(KEY + "\n")
        self.rig = Rig(folder, (FakeKernel(now), now))  # type: ignore[arg-type]
        self.rig.reconciler.fixed = Fixed(name, "boot-1")
        self.keys, self.keyring = Keys(cluster, name), Keyring(KEY.encode())
        self.session, self.challenges = secrets.token_hex(4), [secrets.token_hex(8)]
        self.bugs: list[object] = []
        self.hub = LinkHub(
            reactor=reactor,
            authority=self.rig.authority,
            reports=None,  # type: ignore[arg-type]
            records=KeptRecords(),
            uids=frozenset(),
            sockets={},
            version="1",
            granted=self.rig.journal.flush,
            turn_done=lambda: None,
        )
        credentials = Credentials(hmac_key_file=str(folder / "key"))
        credentials.refresh()
        self.door = Door(
            place=parse_redis_url(store.unix_url),
            credentials=credentials,
            home=self.keys.heartbeat,
            streams=(self.keys.requests, self.keys.acks),
            events=self,
            reactor=reactor,  # type: ignore[arg-type]
            failed=self.bugs.append,
        )
        self.remote = Remote(
            keys=self.keys,
            session=self.session,
            keyring=lambda: self.keyring,
            door=self.door,
            challenges=lambda: self.challenges,
            snapshot=lambda: self.rig.authority.snapshot,
            held=dict,
            look_again=lambda: None,
            hold_timeout_s=lambda: HOLD_S,
            now=now,
            came=self.hub.came,
        )
        self.hub.elsewhere = self.remote
        self.rig.settled_with(POLICY, pods=(A,))
        self.door.start()

    def redis_up(self) -> None:
        """As the door's events; a heartbeat that lasts for the test."""
        record = NodeRecord(self.keys.node, self.session, 1, self.challenges[-1], "", FACTS)
        fields = {**record.fields(), b"v": VERSION}
        fields[b"mac"] = seal(self.keyring, self.keys.heartbeat, fields)
        key = self.keys.heartbeat
        self.door.write([hset(key, fields), pexpire(key, 600_000)])
        self.remote.redis_up()

    def redis_lost(self, trouble: object) -> None:
        """As the door's events."""
        self.remote.redis_lost()

    def entries_came(self, stream: bytes, entries: Sequence[Entry]) -> None:
        """As the door's events."""
        self.remote.entries_came(stream, entries)

    def keys_changed(self) -> None:
        """As the door's events."""


class _Pair:
    """node-a has the pod, node-b asks; one loop, turned by hand."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.reactor = EPollReactor()  # type: ignore[no-untyped-call]
        cluster = f"c{secrets.token_hex(4)}"
        self.a, self.b = (_Node(self.reactor, store, folder / n, f"node-{n}", cluster) for n in "ab")
        self.until(lambda: self.a.door.is_up and self.b.door.is_up and not self.a.door.backlog)

    def until(self, what: Callable[[], bool], for_s: float = DEADLINE_S) -> None:
        """Turn the loop until something holds."""
        deadline = now() + for_s
        while not what():
            assert now() < deadline
            self.reactor.runUntilCurrent()
            self.reactor.doIteration(min(0.01, self.reactor.timeout() or 0.01))

    def close(self) -> None:
        """End both doors and the loop."""
        for node in (self.a, self.b):
            node.hub.stop()
            node.door.stop()
            assert node.bugs == []
        for internal in list(self.reactor._internalReaders):
            internal.connectionLost(Failure(ConnectionDone()))
        self.reactor._poller.close()


@pytest.fixture
def pair(store: Store, tmp_path: Path) -> Iterator[_Pair]:
    """Two nodes and a Redis."""
    made = _Pair(store, tmp_path)
    yield made
    made.close()


def percentile(values: list[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def test_a_steady_load_is_answered(pair: _Pair, record_property: Callable[[str, object], None]) -> None:
    """500 a second if the machine can, each realized in the owner's kernel; latencies are for the report."""
    answers: list[GrantAnswered] = []
    took_s: list[float] = []
    begun = now()
    sent = 0

    def done_at(asked_at: float) -> Callable[[GrantAnswered], None]:
        def done(answer: GrantAnswered) -> None:
            answers.append(answer)
            took_s.append(now() - asked_at)

        return done

    def step() -> bool:
        nonlocal sent
        while sent < REQUESTS and now() - begun >= sent / RATE and sent - len(answers) < UNDER_WAY:
            request = pair.b.rig.request(f"h{sent % 40}.example.org", API, pod=A)
            pair.b.remote.ask(request, A, done_at(now()))
            sent += 1
            pair.reactor.callLater(max(0.0, begun + sent / RATE - now()), lambda: None)
        return len(answers) == REQUESTS

    pair.until(step)
    assert {each.outcomes for each in answers} == {("realized",)}
    figures = {
        "p50_ms": round(statistics.median(took_s) * 1000, 2),
        "p99_ms": round(percentile(took_s, 0.99) * 1000, 2),
        "longest_ms": round(max(took_s) * 1000, 2),
    }
    print(figures)
    for name, value in figures.items():
        record_property(name, value)
    assert pair.b.remote.counts["asked"] == REQUESTS
    assert pair.a.remote.counts["answered"] == REQUESTS


def test_both_families_over_a_real_redis(pair: _Pair) -> None:
    """IPv4 and IPv6 addresses of one pod; streams end by themselves when nobody writes."""
    got: list[GrantAnswered] = []
    for address in (API, "2606:2800::1"):
        pair.b.remote.ask(pair.b.rig.request("api.example.org", address, pod=A), A, got.append)
    pair.until(lambda: len(got) == 2)
    assert {each.outcomes for each in got} == {("realized",)}
    opened = pair.a.rig.open_now()
    assert {name for name, _ in opened} == {"grants4", "grants6"}


def test_streams_expire(pair: _Pair, store: Store) -> None:
    """What was written for a node that never comes back goes by itself."""
    got: list[GrantAnswered] = []
    pair.b.remote.ask(pair.b.rig.request("api.example.org", API, pod=A), A, got.append)
    pair.until(lambda: len(got) == 1)
    for stream in (pair.a.keys.requests, pair.b.keys.acks):
        pair.until(lambda key=stream: int(store.cli("PTTL", key.decode())) > 0)  # type: ignore[misc]
        assert int(store.cli("PTTL", stream.decode())) <= 60_000
