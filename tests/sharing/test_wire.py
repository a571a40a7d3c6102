"""What the door makes of Redis's replies: entries, clocks, addresses, troubles. All without a server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from enforcer.sharing.records.resp import packed
from enforcer.sharing.redis.askers import Askers
from enforcer.sharing.redis.entries import (
    Malformed,
    after,
    entries_of,
    hash_of,
    instant_of,
    streams_of,
    time_of,
)
from enforcer.sharing.redis.finding import ALWAYS, needed_commands
from enforcer.sharing.redis.fleet import moved_to
from enforcer.sharing.redis.lane import Lane
from enforcer.sharing.redis.line import slot_of
from enforcer.sharing.redis.troubles import REASONS, RedisSaid, printable, said_trouble, worst
from policy.runtime.redis_url import Address


def test_entries_have_an_age_by_redis_clock() -> None:
    """From the id to the TIME that came with them; negative for an id of the future."""
    [old, new] = entries_of([[b"1000-0", [b"a", b"1"]], [b"9000-7", []]], 5000)
    assert (old.age_ms, old.fields, old.at_ms) == (4000, {b"a": b"1"}, 1000)
    assert (new.age_ms, new.fields) == (-4000, {})
    assert streams_of(None, 1) == []
    assert streams_of([[b"s", [[b"1-0", [b"a", b"1"]]]]], 1)[0][0] == b"s"
    assert time_of([b"1700000000", b"123456"]) == 1_700_000_000_123
    assert after(1000) == b"999-18446744073709551615"
    assert instant_of(after(0)) == 0


@pytest.mark.parametrize(
    "reply",
    [
        5, b"", RedisSaid("ERR"), [5], [[b"1-0"]], [[b"1-0", b"x"]], [[b"1-0", [b"odd"]]], [[b"1", []]],
        [[b"1-0", [b"a", 5]]], [[b"x-0", []]], [[b"-", []]], [[b"9" * 60 + b"-0", []]], [[5, []]],
    ],
)  # fmt: skip
def test_what_redis_never_sends_is_malformed(reply: Any) -> None:
    """Never an IndexError, never a guess."""
    with pytest.raises(Malformed):
        entries_of(reply, 0)
    with pytest.raises(Malformed):
        streams_of([[b"s", reply]] if isinstance(reply, list) else reply, 0)
    with pytest.raises(Malformed):
        time_of(reply)
    with pytest.raises(Malformed):
        hash_of([reply, 5])


def test_moved_says_where() -> None:
    """Host and port; IPv6; no host is the one that was asked; anything else is none."""
    asked = Address("asked", 1)
    assert moved_to("MOVED 3999 127.0.0.1:6381", asked) == Address("127.0.0.1", 6381)
    assert moved_to("MOVED 3999 ::1:6381", asked) == Address("::1", 6381)
    assert moved_to("MOVED 3999 :6381", asked) == Address("asked", 6381)
    assert moved_to("MOVED 3999 h:99999", asked) is None
    assert moved_to("ASK 3999 h:1", asked) is None


def test_every_error_that_ends_all_has_a_fix_and_a_countable_word() -> None:
    """And what a stranger says in it is short and printable."""
    for said in (
        "OOM command not allowed when used memory > 'maxmemory'.",
        "READONLY You can't write against a read only replica.",
        "MISCONF Redis is configured to save RDB snapshots",
        "NOREPLICAS Not enough good replicas to write.",
        "NOPERM this user has no permissions to run the 'x' command",
        "NOAUTH Authentication required.",
        "WRONGPASS invalid username-password pair or user is disabled.",
        "LOADING Redis is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down",
        "CLUSTERDOWN Hash slot not served",
        "MOVED 1 h:1",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "BUSY Redis is busy running a script.",
        "ERR max number of clients reached",
        "ERR DB index is out of range",
        "EXECABORT Transaction discarded because of: OOM command not allowed",
    ):
        trouble = said_trouble(said, "h:1")
        assert trouble is not None, said
        assert trouble.reason in REASONS
        assert "h:1" in trouble
        assert ": " in trouble
        assert trouble.isprintable()
    for said in ("WRONGTYPE Operation against a key", "ERR syntax error", "EXECABORT", ""):
        assert said_trouble(said, "h:1") is None
    assert worst([b"OK", 1, None, [b"x", RedisSaid("OOM x")]], "h").reason == "full"
    assert worst([b"OK", RedisSaid("WRONGTYPE x"), [RedisSaid("ERR y")]], "h") is None
    assert printable("\x1b[31m\u202e" + "x" * 500) == "?[31m?" + "x" * 154 + "…"


def test_commands_are_packed_as_redis_reads_them() -> None:
    """RESP arrays of bulk strings; slots by hash tag."""
    assert packed(b"SET", b"k", b"\r\n") == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n\r\n\r\n"
    assert slot_of(b"nameward:c:{a}:node") == slot_of(b"nameward:c:{a}:acks")
    assert slot_of(b"123456789") == 12739


def test_every_needed_command_is_tested_with_keys_of_ours() -> None:
    """In a Cluster with keys of our own slot only."""
    home = b"nameward:c:{a}:node"
    for is_cluster in (True, False):
        for name, *rest in needed_commands(home, is_cluster=is_cluster):
            keys = [word for word in rest if word.startswith(b"nameward")]
            assert keys or name == b"SCAN"
            assert not is_cluster or {slot_of(key) for key in keys} <= {slot_of(home)}
    assert not {command[0] for command in needed_commands(home, is_cluster=False)} & set(ALWAYS)


class _Nothing:
    """A session whose connections are none."""

    trouble = None

    def fleet(self) -> Any:
        """What a thread asks by."""
        return self

    def close(self) -> None:
        """Nothing to let go of."""


def test_no_question_falls_between_threads_that_come_and_go() -> None:
    """Threads end after a moment without questions; each question is answered all the same."""
    answers: list[object] = []
    threads: list[threading.Thread] = []

    def started(work: Callable[[], None], name: str) -> threading.Thread:
        threads.append(threading.Thread(target=work, name=name))
        threads[-1].start()
        return threads[-1]

    askers = Askers(lambda call, *args: call(*args), started, idle_s=0.0002)
    session: Any = _Nothing()
    for number in range(2000):
        limit_at = time.monotonic() + 60
        askers.ask(session, lambda _reader, number=number: number, answers.append, 10.0)
        while len(answers) <= number and time.monotonic() < limit_at:
            time.sleep(0.0002 * (number % 3))
    askers.stop()
    for thread in threads:
        thread.join(30)
    assert answers == list(range(2000))
    assert len(threads) > 1, "they came and went"
    assert not any(thread.is_alive() for thread in threads)


class TestLane:
    """The way from the loop to a thread."""

    def test_what_is_put_is_taken_once_in_order(self) -> None:
        """Up to as many as are wanted."""
        lane: Lane[int] = Lane()
        for number in range(5):
            lane.put(number)
        assert lane.take(3, 0) == [0, 1, 2]
        assert lane.take(3, 0) == [3, 4]
        assert lane.take(3, 0) == []

    def test_closing_wakes_and_drops_or_keeps(self) -> None:
        """A sleeper hears of it; ``keep`` lets what is there be taken."""
        lane: Lane[int] = Lane()
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.append(lane.take(1, 60)))
        thread.start()
        lane.close()
        thread.join(30)
        assert found == [None]
        lane.put(1)
        assert lane.take(1, 0) is None
        kept: Lane[int] = Lane()
        kept.put(1)
        kept.close(keep=True)
        kept.put(2)
        assert kept.take(5, 0) == [1]
        assert kept.take(5, 0) is None
