"""Other nodes' records as rows: from a real Redis, by friends and by strangers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import merge
from typing import Any

import pytest

from enforcer.asked import Found, Request, order
from enforcer.demo.stores import Store
from enforcer.sharing.cluster import reading, view
from enforcer.sharing.cluster.view import View
from enforcer.sharing.records.reasons import SharedReason
from enforcer.sharing.redis.credentials import Credentials
from enforcer.sharing.redis.door import Door
from enforcer.sharing.redis.troubles import Lost, Trouble
from tests.enforcer.test_inspection import BLOCKED_FIELDS, GRANT_FIELDS
from tests.sharing.loop import Visitor
from tests.sharing.others import FACTS, HERE, KEYRING, OtherNode

EVIL = "a\x1b[2Jb\u202ec\x07\u200bd"


class UnhurriedDoor:
    """The real door, with time enough for a machine that does much else."""

    def __init__(self, door: Door) -> None:
        self._door = door

    @property
    def is_up(self) -> bool:
        return self._door.is_up

    @property
    def trouble(self) -> str:
        return self._door.trouble

    def ask(self, work: Callable[[Any], Any], done: Callable[[Any], None], _deadline_s: float = 3.0) -> None:
        self._door.ask(work, done, 60.0)


class Looking:
    """A view of the cluster from node-a, over the real door; its clock stands still."""

    def __init__(self, store: Store, credentials: Credentials) -> None:
        self.store = store
        store.cli("flushall")
        self.visitor = Visitor(store.unix_url, credentials)
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.view = View(
            UnhurriedDoor(self.visitor.door),
            HERE,
            lambda: KEYRING,
            now=lambda: 0.0,
            later=lambda delay_s, call: self.timers.append((delay_s, call)),
        )

    def node(self, name: str, **more: Any) -> OtherNode:
        """Another node that lives."""
        return OtherNode(self.store, name, **more).beat()

    def find(self, command: str, addresses: tuple[str, ...] = (), **request: Any) -> Found:
        """What is found; every reading is given back, and no pause is waited for."""
        answers: list[Found] = []
        close = self.view.find(Request(command, **request), addresses, answers.append)
        assert self.visitor.loop.until(lambda: answers)
        close()
        for _, call in self.timers:
            call()
        self.timers.clear()
        return answers[0]

    def rows(self, command: str, addresses: tuple[str, ...] = (), **request: Any) -> list[dict[str, Any]]:
        """The rows, in the order in which they are shown."""
        return list(merge(*self.find(command, addresses, **request).parts, key=order(command)))


@pytest.fixture
def looking(lasting_store: Store, credentials: Credentials) -> Iterator[Looking]:
    """A view with Redis up."""
    made = Looking(lasting_store, credentials)
    with made.visitor:
        made.visitor.up()
        yield made


class TestGrants:
    """``nameward grants`` of other nodes."""

    def test_rows_have_the_same_fields_and_are_sorted(self, looking: Looking) -> None:
        """By node, pod, address; with the time that is left by Redis's clock."""
        b, c = looking.node("node-b"), looking.node("node-c")
        c.grant("c-0", "10.0.2.5")
        b.grant("b-1", "10.0.1.6", left_ms=30_000)
        b.grant("b-0", "fd00::5", "2001:db8::7")
        OtherNode(looking.store, "node-a").beat().grant("mine", "10.0.0.1")
        rows = looking.rows("grants")
        assert [list(row) for row in rows] == [GRANT_FIELDS.split()] * 3
        assert [(row["node"], row["pod"], row["podIP"], row["address"]) for row in rows] == [
            ("node-b", "b-0", "fd00::5", "2001:db8::7"),
            ("node-b", "b-1", "10.0.1.6", "203.0.113.7"),
            ("node-c", "c-0", "10.0.2.5", "203.0.113.7"),
        ]
        assert 28 < rows[1]["remainingSeconds"] <= 30
        assert (rows[0]["port"], rows[0]["policy"], rows[0]["rule"]) == (443, "mcp/web", "allow")
        assert not any(row["lost"] for row in rows)

    def test_each_reason_is_a_row(self, looking: Looking) -> None:
        """The longest lasts as long as its grant; one that is over is none."""
        more = (
            SharedReason("b.example.org", "mcp/p", "r", 20.0),
            SharedReason("over.example.org", "mcp/p", "r", 0.0),
        )
        looking.node("node-b").grant(more=more)
        assert {row["name"] for row in looking.rows("grants")} == {"api.example.com", "b.example.org"}
        assert [row["rule"] for row in looking.rows("grants", name="b.example.org")] == ["r"]

    def test_it_is_narrowed_by_what_was_asked(self, looking: Looking) -> None:
        """Node, namespace, pod, name, the pod's addresses (brackets are no pattern), the destination."""
        looking.node("node-c").grant("c-0", "10.0.2.5")
        b = looking.node("node-b")
        b.grant("b-0", "10.0.1.5")
        b.grant("b-0", "fd00::5", "2001:db8::7")
        assert {row["node"] for row in looking.rows("grants", node="node-b")} == {"node-b"}
        assert [row["pod"] for row in looking.rows("grants", pod="c-0", namespace="mcp")] == ["c-0"]
        assert looking.rows("grants", namespace="other") == []
        assert looking.rows("grants", name="other.example") == []
        assert len(looking.rows("grants", ("10.0.1.5", "fd00::5"), pod="b-0")) == 2
        (row,) = looking.rows("explain", ("fd00::5",), pod="b-0", address="2001:db8::7")
        assert row["address"] == "2001:db8::7"
        assert looking.rows("explain", ("fd00::5",), pod="b-0", address="2001:db8::8") == []

    def test_a_node_that_is_not_there_is_said(self, looking: Looking) -> None:
        """With those that are."""
        looking.node("node-b")
        found = looking.find("grants", node="node-x")
        assert found == Found(refusal="no node node-x shares its state; known besides this one: node-b")

    def test_what_a_lost_node_left_is_marked(self, looking: Looking) -> None:
        """It is never shown as live."""
        OtherNode(looking.store, "node-b").sign(before_s=42).grant()
        found = looking.find("grants")
        assert [row["lost"] for part in found.parts for row in part] == [True]
        assert found.lost == {"node-b"}

    def test_what_an_earlier_session_left_is_not_shown(self, looking: Looking) -> None:
        """A restart invalidates it; it is counted, and no alarm."""
        OtherNode(looking.store, "node-b", session="00000000").grant()
        looking.node("node-b")
        found = looking.find("grants")
        assert found == Found()
        assert looking.view.doubts == {"stale": 1}

    def test_more_rows_than_the_bound_are_cut_and_said(self, looking: Looking) -> None:
        """10,000 rows, and how to narrow."""
        b = looking.node("node-b")
        key = b.grant()
        fields = b.redis.hgetall(key)
        base = {name: value for name, value in fields.items() if name not in {b"mac", b"v"}}  # type: ignore[union-attr]
        with b.redis.pipeline(transaction=False) as pipe:
            for number in range(10_300):
                address = b"198.18.%d.%d" % divmod(number, 256)
                to = b.keys.own + b"grant:10.0.1.5:" + address + b":tcp:443"
                pipe.hset(to, mapping=b._sealed(to, base))  # type: ignore[arg-type]
                pipe.pexpire(to, 60_000)
            pipe.execute()
        found = looking.find("grants")
        assert reading.MAX_ROWS <= sum(map(len, found.parts)) < reading.MAX_ROWS + reading.BATCH
        (warning,) = found.warnings
        assert "rows of other nodes are shown; narrow with --node" in warning


class TestStrangers:
    """Who can write to Redis, with the key of the cluster and without it."""

    def test_what_is_not_sealed_is_not_shown(self, looking: Looking) -> None:
        """A changed field, another version, a field missing, a mac of another key: counted, said once."""
        b = looking.node("node-b")
        b.grant("one", "10.0.1.1", namespace=b"other")
        b.grant("two", "10.0.1.2", v=b"2")
        b.redis.hdel(b.grant("three", "10.0.1.3"), "mac")
        moved: dict[bytes, bytes] = b.redis.hgetall(b.grant("four", "10.0.1.4"))  # type: ignore[assignment]
        b.put(b.keys.own + b"grant:10.0.1.9:203.0.113.7:tcp:443", moved, 60_000, mac=moved[b"mac"])
        found = looking.find("grants")
        assert [row["pod"] for part in found.parts for row in part] == ["four"]
        assert looking.view.doubts == {"mac": 2, "version": 1, "malformed": 1}
        (warning,) = found.warnings
        assert "4 records of other nodes are not believed" in warning

    def test_unknown_fields_are_kept_and_sealed(self, looking: Looking) -> None:
        """A newer node may say more."""
        b = looking.node("node-b")
        b.resealed(b.grant(), colour=b"blue")
        assert len(looking.rows("grants")) == 1

    def test_other_types_and_huge_values_are_passed_over(self, looking: Looking) -> None:
        """The honest record beside them is shown."""
        b = looking.node("node-b")
        b.grant("honest", "10.0.1.9")
        b.redis.set(b.keys.own + b"grant:10.0.1.1:203.0.113.7:tcp:443", b"text", px=60_000)
        b.redis.lpush(b.keys.own + b"grant:10.0.1.2:203.0.113.7:tcp:443", b"text")
        b.redis.hset(b.keys.own + b"grant:10.0.1.3:203.0.113.7:tcp:443", "reasons", "x" * (8 << 20))
        b.redis.hset(b.keys.own + b"grant:\xff\xfe", "a", "b")
        assert [row["pod"] for row in looking.rows("grants")] == ["honest"]
        b.redis.set(looking.view._keys.of("node-c").blocked, b"text")
        OtherNode(looking.store, "node-c").beat()
        b.refuse("evil.example")
        assert [row["name"] for row in looking.rows("blocked")] == ["evil.example"]

    def test_thousands_of_foreign_keys_cost_no_rows(self, looking: Looking) -> None:
        """They are looked at, within the bounds, and the answer comes."""
        b = looking.node("node-b")
        b.grant()
        with b.redis.pipeline(transaction=False) as pipe:
            for number in range(5000):
                pipe.hset(b.keys.own + b"grant:%d" % number, "a", "b")
                pipe.pexpire(b.keys.own + b"grant:%d" % number, 60_000)
                pipe.set(b"other:%d" % number, "x")
            pipe.execute()
        found = looking.find("grants")
        assert sum(map(len, found.parts)) == 1
        assert looking.view.doubts["malformed"] == 5000

    def test_texts_of_a_hijacked_node_are_short_and_whole(self, looking: Looking) -> None:
        """What it seals is shown as it is (the command line escapes it), but not at any length."""
        b = looking.node("node-b")
        b.resealed(b.grant(), pod=EVIL.encode(), namespace=b"n" * 20_000)
        b.refuse(EVIL + "x" * 5000)
        (grant,) = looking.rows("grants")
        assert grant["pod"] == EVIL
        assert len(grant["namespace"]) == 1024
        (refused,) = looking.rows("blocked")
        assert refused["name"].startswith(EVIL)
        assert len(refused["name"]) == 1024

    def test_wrong_numbers_of_a_hijacked_node_are_malformed(self, looking: Looking) -> None:
        """Not a crash, not a row."""
        b = looking.node("node-b")
        key = b.grant()
        for field, value in (
            ("generation", b"x"),
            ("reasons", b"a b c"),
            ("reasons", b"a b/c nan"),
            ("node", b"z"),
        ):
            b.grant()
            b.resealed(key, **{field: value})
            assert looking.rows("grants") == []
        assert looking.view.doubts["malformed"] == 4

    def test_a_grant_without_an_end_is_none(self, looking: Looking) -> None:
        """Every grant ends: whoever took its end away is not believed."""
        b = looking.node("node-b")
        b.redis.persist(b.grant())
        assert looking.rows("grants") == []

    def test_a_grant_that_was_made_to_last_for_ever_is_shown_with_some_end(self, looking: Looking) -> None:
        """Redis takes a life of 290 million years; no calendar does, and the reading went on."""
        b = looking.node("node-b")
        b.redis.pexpire(b.grant("one", "10.0.1.1"), 9_000_000_000_000_000_000)
        b.grant("two", "10.0.1.2")
        rows = looking.rows("grants")
        assert [row["pod"] for row in rows] == ["one", "two"]
        assert all(row["expiresAt"].startswith("20") for row in rows)


class TestStatus:
    """``nameward status`` of other nodes."""

    def test_a_row_for_each_node(self, looking: Looking) -> None:
        """What it says of itself; a lost one; one whose heartbeat is forged, or of another version."""
        facts = FACTS._replace(enforcing=False, problems=("the guard table is missing",))
        OtherNode(looking.store, "node-b").beat(facts=facts)
        OtherNode(looking.store, "node-c").sign(before_s=42)
        OtherNode(looking.store, "node-d").beat(generation=b"99")
        OtherNode(looking.store, "node-e").beat(v=b"2")
        b, c, d, e = looking.rows("status")
        assert (b["node"], b["enforcing"], b["redis"], b["lost"]) == ("node-b", False, "up", False)
        assert b["problems"] == ["the guard table is missing"]
        assert b["upstreams"] == [{"address": "1.1.1.1", "healthy": True, "latencyMs": 12.5}]
        assert (c["node"], c["enforcing"], c["lost"]) == ("node-c", False, True)
        assert c["problems"][0].startswith("no heartbeat for 42 s")
        assert "wrong seal" in d["problems"][0]
        assert "another version" in e["problems"][0]
        assert list(c) == list(b)

    @pytest.mark.parametrize("said", [b"nan", b"inf", b"-inf", b"1e999"])
    def test_what_is_no_number_of_milliseconds_is_shown_as_none(self, looking: Looking, said: bytes) -> None:
        """JSON has no such number, and the table wants one."""
        b = looking.node("node-b")
        b.resealed(b.keys.heartbeat, upstreams=b"1.1.1.1 healthy " + said)
        (row,) = looking.rows("status")
        assert row["upstreams"][0]["latencyMs"] == 0.0

    def test_a_roll_that_somebody_wrote_into_is_not_believed(self, looking: Looking) -> None:
        """An invented node, a name that is none, an entry under another's name."""
        b = looking.node("node-b")
        entry = b.redis.hget(b.keys.nodes, "node-b")
        for name in ("node-z", "", "x" * 1000, EVIL):
            b.redis.hset(b.keys.nodes, name, entry)  # type: ignore[arg-type]
        b.redis.hset(b.keys.nodes, "node-y", "seen=1 mac=" + "0" * 32)
        assert [row["node"] for row in looking.rows("status")] == ["node-b"]

    def test_invented_nodes_leave_room_for_the_others(self, looking: Looking) -> None:
        """However many entries without a seal are in the roll."""
        b = looking.node("node-b")
        b.redis.delete(b.keys.nodes)
        b.redis.hset(b.keys.nodes, mapping={f"n{each}": "x" for each in range(reading.MAX_NODES + 100)})
        b.sign()
        assert [row["node"] for row in looking.rows("status")] == ["node-b"]

    def test_an_old_heartbeat_written_again_brings_no_node_back(self, looking: Looking) -> None:
        """A beat counts once; a session that has ended never comes again."""
        b = OtherNode(looking.store, "node-b", session="00000001")
        b.beat(5)
        old = b.redis.hgetall(b.keys.heartbeat)
        assert [row["lost"] for row in looking.rows("status")] == [False]
        b.beat(6)
        looking.view._status = None
        assert [row["lost"] for row in looking.rows("status")] == [False]
        b.redis.hset(b.keys.heartbeat, mapping=old)  # type: ignore[arg-type]
        looking.view._status = None
        (row,) = looking.rows("status")
        assert row["lost"]
        assert "does not go on" in row["problems"][0]
        OtherNode(looking.store, "node-b", session="00000002").beat(1)
        looking.view._status = None
        assert [row["lost"] for row in looking.rows("status")] == [False]
        b.beat(9)
        looking.view._status = None
        assert [row["lost"] for row in looking.rows("status")] == [True]

    def test_it_is_kept_for_a_second(self, looking: Looking) -> None:
        """Many who ask cost Redis one reading."""
        looking.node("node-b")
        first = looking.find("status")
        OtherNode(looking.store, "node-c").beat()
        assert looking.find("status") == first
        assert len(looking.rows("status", node="node-c")) == 1


class TestBlocked:
    """``nameward blocked`` of other nodes."""

    def test_equal_refusals_are_one_row(self, looking: Looking) -> None:
        """With their count, first and last seen by Redis's clock; each alone with raw."""
        b = looking.node("node-b")
        b.refuse("evil.example")
        b.refuse("evil.example")
        b.refuse("evil.example", pod="b-1")
        rows = looking.rows("blocked")
        assert [list(row) for row in rows] == [BLOCKED_FIELDS.split()] * 2
        assert sorted((row["pod"], row["count"]) for row in rows) == [("b-0", 4), ("b-1", 2)]
        assert len(looking.rows("blocked", raw=True)) == 3
        assert [row["count"] for row in looking.rows("blocked", pod="b-1")] == [2]

    @pytest.mark.parametrize("since_s", [1e308, -1e308, 1e-320])
    def test_any_number_of_seconds_may_be_asked_for(self, looking: Looking, since_s: float) -> None:
        """Whoever may open the socket may write any: it is a number, not the end of the enforcer."""
        looking.node("node-b").refuse("evil.example")
        assert looking.find("blocked", since_s=since_s).refusal == ""

    def test_since_goes_by_redis_clock(self, looking: Looking) -> None:
        """Whatever the nodes' clocks say."""
        b = looking.node("node-b")
        hour_ago = int(looking.store.cli("time").split()[0]) * 1000 - 3_600_000
        b.refuse("old.example", at=f"{hour_ago}-0")
        b.refuse("new.example")
        assert [row["name"] for row in looking.rows("blocked", since_s=60.0)] == ["new.example"]
        ages = {row["name"]: row["lastSeen"] for row in looking.rows("blocked")}
        assert ages["old.example"] < ages["new.example"]

    def test_a_copy_of_an_old_entry_is_not_shown(self, looking: Looking) -> None:
        """Its number has been there."""
        b = looking.node("node-b")
        b.refuse("one.example")
        b.refuse("two.example")
        b.refuse("one.example", seq=1)
        rows = looking.rows("blocked", raw=True)
        assert [row["name"] for row in rows] == ["one.example", "two.example"]
        assert looking.view.doubts == {"stale": 1}

    def test_a_lost_nodes_evidence_stays_and_is_marked(self, looking: Looking) -> None:
        """For a day, as its stream lives."""
        OtherNode(looking.store, "node-b").sign(before_s=60).refuse("evil.example")
        assert [row["lost"] for row in looking.rows("blocked")] == [True]

    def test_a_noisy_node_leaves_room_for_the_others(self, looking: Looking) -> None:
        """Each has its share, and what is left out is said."""
        b = looking.node("node-b")
        for number in range(40):
            looking.node(f"quiet-{number}").refuse("quiet.example")
        for number in range(300):
            b.refuse(f"n{number}.example")
        found = looking.find("blocked", raw=True)
        rows = [row for part in found.parts for row in part]
        assert sum(row["name"] == "quiet.example" for row in rows) == 40
        noisy = [row["name"] for row in rows if row["node"] == "node-b"]
        assert len(noisy) == reading.MAX_ROWS // 41
        assert noisy[-1] == "n299.example"
        assert any("narrow with --since or --node" in warning for warning in found.warnings)


def test_pods_of_other_nodes_with_their_addresses(looking: Looking) -> None:
    """One row a pod; covered or not; lost where the node is."""
    b = looking.node("node-b")
    b.pod("b-0", "10.0.1.5")
    b.pod("b-0", "fd00::5")
    b.pod("b-1", "10.0.1.6", policies=())
    OtherNode(looking.store, "node-c").sign(before_s=60).pod("c-0", "10.0.2.5")
    rows = looking.rows("inventory")
    assert [(row["pod"], row["node"], row["state"], row["lost"]) for row in rows] == [
        ("b-0", "node-b", "covered", False),
        ("b-1", "node-b", "default-denied", False),
        ("c-0", "node-c", "covered", True),
    ]
    assert sorted(rows[0]["podIPs"]) == ["10.0.1.5", "fd00::5"]
    assert rows[0]["smartGroups"] == ["mcp/web/db"]
    assert [row["pod"] for row in looking.rows("inventory", ("10.0.1.6",), namespace="mcp", pod="b-1")] == [
        "b-1"
    ]


class TestRedisAway:
    """What an asker hears when Redis does not answer."""

    def test_lost_is_said_at_once(self, store: Store, credentials: Credentials) -> None:
        """And this node's own rows are all there is."""
        looking = Looking(store, credentials)
        with looking.visitor:
            looking.visitor.up()
            store.kill()
            looking.visitor.loop.until(lambda: not looking.visitor.door.is_up)
            found = looking.find("grants")
            of_b = {command: looking.find(command, node="node-b") for command in ("grants", "inventory")}
        assert found.parts == ()
        assert found.warnings[0].startswith("Redis is lost (")
        assert found.warnings[0].endswith("only this node is shown")
        assert of_b["grants"].refusal.endswith("nothing can be said of node-b"), "no rows are no answer"
        assert (of_b["inventory"].refusal, len(of_b["inventory"].warnings)) == ("", 1)

    def test_frozen_in_the_middle_of_it(self, store: Store, credentials: Credentials) -> None:
        """The answer comes all the same."""
        looking = Looking(store, credentials)
        with looking.visitor:
            looking.visitor.up()
            looking.node("node-b").grant()
            store.freeze()
            found = looking.find("grants")
            store.thaw()
        assert found.parts == ()
        assert "Redis" in found.warnings[0]
        assert "missing" in found.warnings[0] or "only this node" in found.warnings[0]


class PatientDoor:
    """A door whose answers a test gives; ``asked`` are the works that wait."""

    is_up = True
    trouble = ""

    def __init__(self) -> None:
        self.asked: list[tuple[Callable[[Any], Any], Callable[[Any], None]]] = []

    def ask(self, work: Callable[[Any], Any], done: Callable[[Any], None], _deadline_s: float = 3.0) -> None:
        self.asked.append((work, done))


class EmptyReader:
    """A Redis with nothing in it; ``fails_at`` says at which call it is lost."""

    def __init__(self, fails_at: int = 1000) -> None:
        self.calls = 0
        self._fails_at = fails_at

    def _call(self) -> None:
        self.calls += 1
        if self.calls >= self._fails_at:
            raise Lost("Redis has closed the connection", "closed")

    def hashes(self, keys: list[bytes], _limit_bytes: int = 0) -> list[dict[bytes, bytes]]:
        self._call()
        return [{} for _ in keys]

    def pttls(self, keys: list[bytes]) -> list[int]:
        self._call()
        return [-2 for _ in keys]

    def pages(self, _pattern: bytes) -> Iterator[list[bytes]]:
        self._call()
        yield [
            b"nameward:default:{node-b}:grant:10.0.1.%d:192.0.2.1:tcp:443" % number for number in range(256)
        ]

    def time_ms(self) -> int:
        return 1


class Turns:
    """A view over a patient door, with a clock and timers that a test turns."""

    def __init__(self) -> None:
        self.door = PatientDoor()
        self.at = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.view = View(
            self.door,
            HERE,
            lambda: KEYRING,
            now=lambda: self.at,
            later=lambda delay_s, call: self.timers.append((self.at + delay_s, call)),
        )

    def find(self, command: str = "grants") -> tuple[list[Found], Callable[[], None]]:
        """Ask; returns where the answer comes, and what ends it."""
        answers: list[Found] = []
        return answers, self.view.find(Request(command), (), answers.append)

    def read(self, reader: Any = None) -> None:
        """Let one work happen."""
        work, done = self.door.asked.pop(0)
        done(work(reader or EmptyReader()))

    def turn(self, seconds: float) -> None:
        """Let time pass."""
        self.at += seconds
        due = [call for at, call in self.timers if at <= self.at]
        self.timers = [timer for timer in self.timers if timer[0] > self.at]
        for call in due:
            call()


class TestTurns:
    """How much one enforcer makes Redis work, whoever asks."""

    def test_one_reading_at_a_time_with_a_pause_as_long(self) -> None:
        """The next begins when the pause is over."""
        turns = Turns()
        first, _ = turns.find()
        second, _ = turns.find()
        assert len(turns.door.asked) == 1
        turns.at += 0.2
        turns.read()
        assert len(first) == 1
        assert turns.door.asked == []
        turns.turn(0.1)
        assert turns.door.asked == []
        turns.turn(0.2)
        turns.read()
        assert len(second) == 1

    def test_beyond_the_bound_only_this_node_answers(self) -> None:
        """Until somebody has read to the end."""
        turns = Turns()
        held = [turns.find() for _ in range(view.MAX_HELD)]
        busy, _ = turns.find()
        assert busy == [Found(warnings=(f"{view.BUSY}: only this node is shown",))]
        held[0][1]()
        later, _ = turns.find()
        assert later == []

    def test_nobody_waits_for_ever(self) -> None:
        """A thread that does not come back costs its turn, not the answer."""
        turns = Turns()
        first, _ = turns.find()
        second, _ = turns.find()
        turns.turn(view.ANSWER_WITHIN_S)
        assert first == second == [Found(warnings=(f"{view.SLOW}: only this node is shown",))]
        turns.read()
        assert len(first) == 1

    def test_who_has_gone_is_not_read_for(self) -> None:
        """What has begun stops at the next batch; what waits is not begun."""
        turns = Turns()
        answers, end = turns.find()
        _, end_second = turns.find()
        end()
        end_second()
        reader = EmptyReader()
        turns.read(reader)
        assert reader.calls == 2
        assert answers == []
        turns.turn(1.0)
        assert turns.door.asked == []

    def test_time_is_up(self) -> None:
        """What was read by then is shown, and that there is more."""
        turns = Turns()
        answers, _ = turns.find()
        turns.at += view.READ_FOR_S
        turns.read()
        assert "time is up" in answers[0].warnings[0]

    def test_lost_in_the_middle(self) -> None:
        """What was read by then is shown, with what is missing; and the next one asks again."""
        turns = Turns()
        answers, _ = turns.find()
        turns.read(EmptyReader(fails_at=3))
        assert answers[0].warnings == ("rows of other nodes are missing: Redis has closed the connection",)
        turns.turn(1.0)
        again, _ = turns.find()
        _, done = turns.door.asked.pop()
        done(Trouble("too many questions to Redis at once: ask again", "busy"))
        assert again[0].warnings[0].startswith("too many questions to Redis at once")
