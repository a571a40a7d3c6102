"""The door to Redis against real servers: what it carries, and its orders."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

import pytest

from enforcer.demo.stores import CLIENT, Ring, Store, free_ports
from enforcer.sharing.nodes.peers import Streams
from enforcer.sharing.records.resp import packed
from enforcer.sharing.redis.credentials import Credentials
from enforcer.sharing.redis.door import RedisSaid, Trouble, pause_s
from tests.sharing.detour import Detour
from tests.sharing.loop import ACKS, NODE, REQUESTS, Visitor

A = b"nameward:c:{a}:x"


BIG_BYTES = 32 << 20


def put_big(store: Store, *words: str) -> None:
    """Have redis-cli send a command whose last word is 32 MB of zeros; this process holds none of them."""
    path = store.folder / "zeros"
    with path.open("wb") as file:
        file.truncate(BIG_BYTES)
    with path.open("rb") as file:
        subprocess.run([CLIENT, "-s", store.path, "-x", *words], stdin=file, check=True, capture_output=True)


def forget_peak() -> int:
    """Begin to look at the memory of this process anew; returns what it has."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes() -> int:
    """The most memory that this process had since."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


class TestCarrying:
    """Writes, sends, questions, entries."""

    def test_writes_are_done_in_their_order_and_each_gets_its_own_replies(self, store, credentials) -> None:
        """Many small writes, put without waiting: a counter shows the order of all of them."""
        with Visitor(store.unix_url, credentials) as visitor:
            visitor.up()
            heard = []
            for index in range(2000):
                visitor.door.write([packed(b"INCR", A)] * (index % 3 + 1), heard.append)
            assert visitor.door.backlog == sum(index % 3 + 1 for index in range(2000))
            assert visitor.loop.until(lambda: len(heard) == 2000)
            assert [len(replies) for replies in heard] == [index % 3 + 1 for index in range(2000)]
            assert [reply for replies in heard for reply in replies] == list(range(1, 2000 * 2))[:3999]
            assert visitor.door.backlog == 0

    def test_a_write_is_one_transaction(self, store, credentials) -> None:
        """Nobody sees its half: a reader beside never finds two keys different."""
        with Visitor(store.unix_url, credentials) as visitor:
            visitor.up()
            for index in range(300):
                value = b"%d" % index
                visitor.door.write([packed(b"SET", A, value), packed(b"SET", A + b"2", value)])
            for _ in range(50):
                one, two = store.cli("mget", A.decode(), A.decode() + "2").splitlines() or ("", "")
                assert one == two
                visitor.loop.turn(0)

    def test_an_error_about_one_command_is_its_reply(self, store, credentials) -> None:
        """WRONGTYPE is a value; the others are done, and the door stays open."""
        with Visitor(store.unix_url, credentials) as visitor:
            visitor.up()
            replies = visitor.write(
                packed(b"SET", A, b"1"), packed(b"HSET", A, b"f", b"v"), packed(b"GET", A)
            )
            assert replies[0] == b"OK"
            assert isinstance(replies[1], RedisSaid)
            assert replies[1].startswith("WRONGTYPE")
            assert replies[2] == b"1"
            assert isinstance(visitor.send(A, b"HGETALL", A), RedisSaid)
            assert visitor.said == ["up"]

    def test_what_is_sent_waits_for_no_write(self, store, credentials) -> None:
        """A command for another node's key overtakes thousands of writes."""
        with Visitor(store.unix_url, credentials) as visitor:
            visitor.up()
            order = []
            for _ in range(20):
                many = [packed(b"SET", A, b"x" * 1000)] * 1000
                visitor.door.write(many, lambda _replies: order.append("write"))
            visitor.door.send(
                REQUESTS, [b"XADD", REQUESTS, b"*", b"f", b"v"], lambda _id: order.append("send")
            )
            assert visitor.loop.until(lambda: len(order) == 21)
            assert order.index("send") < 20, "it was not the last"

    def test_entries_added_since_it_is_up_come_in_order_none_from_before(self, store, credentials) -> None:
        """A consumer that was away does not answer old requests; age is by Redis's own clock."""
        store.cli("xadd", ACKS.decode(), "*", "old", "1")
        with Visitor(store.unix_url, credentials, streams=(ACKS, REQUESTS)) as visitor:
            visitor.up()
            for index in range(500):
                stream = (ACKS, REQUESTS)[index % 2]
                visitor.door.send(stream, [b"XADD", stream, b"*", b"n", b"%d" % index])
            assert visitor.loop.until(lambda: len(visitor.entries) == 500)
            for stream, rest in ((ACKS, 0), (REQUESTS, 1)):
                numbers = [int(entry.fields[b"n"]) for key, entry in visitor.entries if key == stream]
                assert numbers == list(range(rest, 500, 2))
            assert all(0 <= entry.age_ms < 60_000 for _, entry in visitor.entries)

    def test_a_flood_of_entries_comes_whole_and_in_batches(self, store, credentials) -> None:
        """More than one batch at once loses nothing."""
        with Visitor(store.unix_url, credentials) as visitor:
            visitor.up()
            visitor.door.write([packed(b"XADD", ACKS, b"*", b"n", b"%d" % index) for index in range(1000)])
            assert visitor.loop.until(lambda: len(visitor.entries) == 1000)
            assert [int(entry.fields[b"n"]) for _, entry in visitor.entries] == list(range(1000))

    def test_questions(self, store, credentials) -> None:
        """Keys, hashes, remaining times, ranges, the clock; what is no hash is an empty one."""
        with Visitor(store.unix_url, credentials) as visitor:
            visitor.up()
            visitor.write(
                packed(b"HSET", A, b"f", b"v", b"g", b"w"),
                packed(b"PEXPIRE", A, b"60000"),
                packed(b"SET", A + b"2", b"no hash"),
                *(packed(b"XADD", ACKS, b"%d-0" % (index + 1), b"n", b"%d" % index) for index in range(9)),
            )

            def work(reader):
                return (
                    sorted(reader.scan(b"nameward:c:*", 100)),
                    len(reader.scan(b"*", 2)),
                    reader.hashes([A, A + b"2", A + b"3"]),
                    reader.pttls([A, A + b"2", A + b"3"]),
                    [entry.id for entry in reader.range(ACKS, b"3", b"5")],
                    [entry.id for entry in reader.range(ACKS, count=2, reverse=True)],
                    reader.range(A, count=2),
                    reader.time_ms(),
                )

            keys, few, hashes, lives, some, newest, wrong, clock_ms = visitor.ask(work)
            assert keys == [ACKS, A, A + b"2"]
            assert few == 2
            assert hashes == [{b"f": b"v", b"g": b"w"}, {}, {}]
            assert 0 < lives[0] <= 60_000
            assert lives[1:] == [-1, -2]
            assert some == [b"3-0", b"4-0", b"5-0"]
            assert newest == [b"9-0", b"8-0"]
            assert wrong == []
            assert clock_ms > 1_600_000_000_000

    def test_over_tcp_with_either_family(self, credentials) -> None:
        """IPv4, IPv6 in brackets, and a database of its own."""
        with Store(port=free_ports(1)[0], addresses=("127.0.0.1", "::1")) as both:
            for host in ("127.0.0.1", "[::1]", "localhost"):
                with Visitor(f"redis://{host}:{both.port}/3", credentials) as visitor:
                    visitor.up()
                    assert visitor.write(packed(b"SET", A, host.encode())) == [b"OK"]
                    assert both.cli("-n", "3", "get", A.decode()) == host

    def test_redis_time_comes_without_asking(self, store, credentials) -> None:
        """By the last TIME and our monotonic clock; None while it is lost."""
        with Visitor(store.unix_url, credentials) as visitor:
            assert visitor.door.redis_ms() is None
            visitor.up()
            seconds, micros = store.cli("time").splitlines()
            theirs_ms = int(seconds) * 1000 + int(micros) // 1000
            assert abs(visitor.door.redis_ms() - theirs_ms) < 60_000
            store.kill()
            visitor.lost("refused")
            assert visitor.door.redis_ms() is None


class TestRefusing:
    """What the door itself refuses, and what it never does."""

    def test_before_it_is_up_everything_is_answered_with_none(self, store, credentials) -> None:
        """On a later turn, never within the call."""
        visitor = Visitor(store.unix_url, credentials)
        heard = []
        visitor.door.write([packed(b"INCR", A)], heard.append)
        visitor.door.send(A, [b"INCR", A], heard.append)
        visitor.door.ask(lambda reader: reader.time_ms(), heard.append)
        assert heard == []
        visitor.loop.turn(0)
        assert heard[:2] == [None, None]
        assert isinstance(heard[2], Trouble)

    def test_what_waits_is_bounded(self, store, credentials) -> None:
        """A Redis that does not keep up is lost; what waited is answered with None before."""
        with Visitor(store.unix_url, credentials) as visitor:
            visitor.up()
            heard = []
            store.freeze()
            for _ in range(201):
                visitor.door.write([packed(b"INCR", A)] * 1000, heard.append)
            assert visitor.door.backlog <= 200_000
            assert visitor.loop.until(lambda: "busy" in visitor.said)
            assert heard == [None] * 201
            assert "does not keep up" in visitor.troubles[0]
            store.thaw()
            visitor.up()
            assert visitor.send(A, b"EXISTS", A) == 0, "nothing of before was sent again"

    def test_questions_are_bounded(self, store, credentials) -> None:
        """Many at once wait for few threads; beyond that, and beyond their time, a sentence says so."""
        with Visitor(store.unix_url, credentials) as visitor:
            visitor.up()
            gate = threading.Event()
            heard = []
            for _ in range(40):
                visitor.door.ask(lambda _reader: gate.wait(20), heard.append)
            assert visitor.loop.until(lambda: len(heard) == 8)
            assert {trouble.reason for trouble in heard} == {"busy"}
            gate.set()
            assert visitor.loop.until(lambda: len(heard) == 40)
            late = visitor.ask(lambda reader: [reader.scan(b"x", 5) for _ in range(10**9)], deadline_s=0.2)
            assert isinstance(late, Trouble)
            assert late.reason == "timeout"
            assert visitor.said == ["up"], "a question's trouble is its own"

    def test_a_bug_in_a_question_is_not_swallowed(self, store, credentials) -> None:
        """It reaches ``failed``, which ends the process in the enforcer."""
        hook, threading.excepthook = threading.excepthook, lambda _args: None
        try:
            with Visitor(store.unix_url, credentials) as visitor:
                visitor.up()
                visitor.door.ask(lambda reader: reader.no_such_thing, lambda _found: None)
                assert visitor.loop.until(lambda: visitor.bugs)
                assert visitor.bugs.pop().check(AttributeError)
        finally:
            threading.excepthook = hook

    def test_stop_waits_for_no_frozen_redis_and_nothing_is_heard_after_it(self, store, credentials) -> None:
        """Threads come to their end by themselves; what could still be written was."""
        before = threading.active_count()
        with Visitor(store.unix_url, credentials) as visitor:
            visitor.up()
            for _ in range(100):
                visitor.door.write([packed(b"INCR", A)])
        assert store.cli("get", A.decode()) == "100"
        with Visitor(store.unix_url, credentials) as visitor:
            visitor.up()
            store.freeze()
            heard = []
            visitor.door.write([packed(b"INCR", A)], heard.append)
        store.thaw()
        limit_at = time.monotonic() + 60
        while threading.active_count() > before and time.monotonic() < limit_at:
            visitor.loop.turn()
        assert threading.active_count() == before
        visitor.loop.turn(0)
        assert heard == []
        assert visitor.said == ["up"]

    def test_hundreds_of_reconnections_leave_no_descriptor_and_no_thread(self, store, credentials) -> None:
        """As many as before, after 150 times."""
        fds = Path("/proc/self/fd")
        with Visitor(store.unix_url, credentials, pause_s=0.001) as visitor:
            visitor.up()
            visitor.ask(lambda reader: reader.time_ms())
            before, threads = len(list(fds.iterdir())), threading.active_count()
            for times in range(1, 151):
                store.cli("client", "kill", "type", "normal")
                assert visitor.loop.until(lambda: visitor.said.count("up") > times and visitor.door.is_up)  # noqa: B023
            visitor.ask(lambda reader: reader.time_ms())
            settled = lambda: (  # noqa: E731
                len(list(fds.iterdir())) <= before + 2 and threading.active_count() <= threads + 1
            )
            assert visitor.loop.until(settled), (before, len(list(fds.iterdir())))

    def test_pauses_grow_and_half_of_each_is_chance(self) -> None:
        """From 50 ms to 2 s; no two nodes come back together."""
        assert [pause_s(attempt, 2.0, 1.0) for attempt in (0, 1, 2, 3, 4, 5, 6, 50)] == [
            0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0,
        ]  # fmt: skip
        assert pause_s(50, 2.0, 0.0) == 1.0


class TestStrangers:
    """Somebody else writes to Redis, or something else answers there."""

    def test_a_hash_too_large_is_stepped_over_and_does_not_fill_memory(self, store, credentials) -> None:
        """32 MB in one field: the question goes on without it."""
        store.cli("hset", "n:1", "f", "v")
        store.cli("hset", "n:3", "f", "v")
        put_big(store, "hset", "n:2", "f")
        with Visitor(store.unix_url, credentials) as visitor:
            visitor.up()
            before = forget_peak()
            found = visitor.ask(lambda reader: (reader.hashes([b"n:1", b"n:2", b"n:3"]), reader.skipped))
            assert found == ([{b"f": b"v"}, {}, {b"f": b"v"}], 1)
            assert peak_bytes() - before < BIG_BYTES / 4
            assert visitor.said == ["up"]

    def test_entries_too_large_are_stepped_over_and_counted(self, store, credentials) -> None:
        """The door stays open, and hears what is added afterwards."""
        with Visitor(store.unix_url, credentials) as visitor:
            visitor.up()
            before = forget_peak()
            put_big(store, "xadd", ACKS.decode(), "*", "f")
            assert visitor.loop.until(lambda: visitor.door.oversized == 1)
            assert peak_bytes() - before < BIG_BYTES / 4
            heard = lambda: any(entry.fields.get(b"n") == b"1" for _, entry in visitor.entries)  # noqa: E731

            def add_until_heard() -> bool:
                visitor.send(ACKS, b"XADD", ACKS, b"*", b"n", b"1")
                return heard()

            assert visitor.loop.until(add_until_heard)
            assert all(b"f" not in entry.fields for _, entry in visitor.entries)
            assert visitor.said == ["up"]

    def test_a_stream_made_deaf_hears_again(self, store, credentials) -> None:
        """Ids far in the future, or a key that is no stream: ours is removed, and begun anew."""
        with Visitor(store.unix_url, credentials) as visitor:
            visitor.up()
            store.cli("xadd", ACKS.decode(), "18446744073709551615-18446744073709551615", "f", "v")
            assert visitor.loop.until(lambda: len(visitor.entries) == 1)
            assert visitor.entries[0][1].age_ms < 0

            def heard(word: bytes) -> bool:
                visitor.send(ACKS, b"XADD", ACKS, b"*", b"n", word)
                return any(entry.fields.get(b"n") == word for _, entry in visitor.entries)

            assert visitor.loop.until(lambda: heard(b"1"))
            store.cli("set", ACKS.decode(), "no stream")
            assert visitor.loop.until(lambda: heard(b"2"))
            assert visitor.said == ["up"]

    def test_too_large_and_far_in_the_future_is_met_once(self, store, credentials) -> None:
        """It is not met again and again: it goes, and what comes after it is heard."""
        with Visitor(store.unix_url, credentials, streams=(ACKS, REQUESTS)) as visitor:
            visitor.up()
            put_big(store, "xadd", ACKS.decode(), "9999999999999-0", "f")
            assert visitor.loop.until(lambda: visitor.door.oversized)

            def heard(word: bytes) -> bool:
                visitor.send(ACKS, b"XADD", ACKS, b"*", b"n", word)
                return any(entry.fields.get(b"n") == word for _, entry in visitor.entries)

            assert visitor.loop.until(lambda: heard(b"1"))
            assert visitor.door.oversized == 1
            assert visitor.said == ["up"]

    def test_a_stream_that_takes_nothing_is_removed_by_who_writes_to_it(self, store, credentials) -> None:
        """It has no entry that its reader could see, and would live on as long as anybody tries."""
        for how in ("exhausted", "string"):
            if how == "string":
                store.cli("set", REQUESTS.decode(), "no stream")
            else:
                store.cli("xadd", REQUESTS.decode(), "1-1", "f", "v")
                store.cli("xsetid", REQUESTS.decode(), "18446744073709551615-18446744073709551615")
            with Visitor(store.unix_url, credentials) as visitor:
                visitor.up()
                streams, heard = Streams(visitor.door), []
                for _ in range(2):
                    streams.add(REQUESTS, {b"f": b"v"}, time.monotonic(), heard.append)
                    assert visitor.loop.until(lambda: not visitor.door.backlog)
                refused, added = heard
                assert isinstance(refused, RedisSaid)
                assert isinstance(added, bytes)

    def test_slow_by_200_ms_it_is_up_and_works(self, store, credentials) -> None:
        """Each reply takes its time, nothing is lost, and many writes share one way."""
        with Detour(store.path, 0.2) as way, Visitor(way.url, credentials) as visitor:
            visitor.up()
            heard = []
            for _ in range(500):
                visitor.door.write([packed(b"INCR", A)], heard.append)
            assert visitor.loop.until(lambda: len(heard) == 500)
            assert heard[-1] == [500]
            assert visitor.send(ACKS, b"XADD", ACKS, b"*", b"f", b"v")
            assert visitor.loop.until(lambda: visitor.entries)
            assert visitor.ask(lambda reader: reader.hashes([NODE])) == [{}]
            assert visitor.said == ["up"]


class TestCluster:
    """A Redis Cluster of three masters."""

    def test_own_slot_others_slots_and_keys_of_all_servers(self, credentials) -> None:
        """MOVED is followed, whichever server is named; a scan asks every master."""
        with Ring() as ring:
            for server in ring.servers:
                url = f"redis+cluster://127.0.0.1:{server.port}"
                with Visitor(url, credentials, streams=(ACKS, REQUESTS)) as visitor:
                    visitor.up()
                    assert visitor.write(packed(b"SET", A, b"1"), packed(b"GET", A)) == [b"OK", b"1"]
                    keys = [b"nameward:c:{node-%d}:requests" % index for index in range(30)]
                    for key in keys:
                        assert visitor.send(key, b"HSET", key, b"f", key) in (0, 1)
                    assert visitor.send(REQUESTS, b"XADD", REQUESTS, b"*", b"f", b"v")
                    assert visitor.loop.until(lambda: visitor.entries)
                    hashes = visitor.ask(lambda reader: reader.hashes(keys))  # noqa: B023
                    assert hashes == [{b"f": key} for key in keys]
                    found = visitor.ask(lambda reader: reader.scan(b"nameward:c:{node-*", 1000))
                    assert sorted(found) == sorted(keys)
                    assert visitor.said == ["up"]

    def test_a_cluster_named_as_one_server_says_what_to_write(self, credentials) -> None:
        """Unless that server happens to have our keys."""
        with Ring() as ring:
            said = []
            for server in ring.servers:
                with Visitor(server.url, credentials) as visitor:
                    assert visitor.loop.until(lambda: visitor.said)
                    said += [str(trouble) for trouble in visitor.troubles]
            assert len(said) >= 2
            assert all("redis+cluster://" in text for text in said)


@pytest.mark.parametrize("path", ["door", "session", "line", "lane", "askers", "fleet", "reader", "finding"])
def test_nothing_of_the_door_logs(path: str) -> None:
    """What could hold a password is never given to a log."""
    text = (Path(__file__).parents[2] / "enforcer" / "sharing" / "redis" / f"{path}.py").read_text()
    assert "enforcer.records" not in text
    assert "print(" not in text


def test_a_frozen_redis_never_blocks_the_loop(
    store: Store, credentials: Credentials, record_property
) -> None:
    """While it is frozen the loop turns on, whatever is asked of the door."""
    with Visitor(store.unix_url, credentials) as visitor:
        visitor.up()
        store.freeze()
        turns, longest_s, last_at = 0, 0.0, time.monotonic()
        while visitor.door.is_up:
            visitor.door.write([packed(b"INCR", A)] * 10)
            visitor.door.send(A, [b"INCR", A])
            visitor.loop.turn(0.001)
            at = time.monotonic()
            longest_s, last_at, turns = max(longest_s, at - last_at), at, turns + 1
        record_property("longest_pause_ms", round(longest_s * 1000, 1))
        print(f"longest pause of the loop while Redis was frozen: {longest_s * 1000:.1f} ms in {turns} turns")
        assert turns > 20, "it turned on while the door waited a second for an answer"
        assert "gave no answer" in visitor.door.trouble
        store.thaw()
