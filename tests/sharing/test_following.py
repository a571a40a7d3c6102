"""``blocked --follow`` on all nodes: what is added is shown once, whoever adds it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from enforcer.asked import Request
from enforcer.demo.stores import Store
from enforcer.sharing.cluster import following
from enforcer.sharing.cluster.view import View
from enforcer.sharing.redis.credentials import Credentials
from tests.sharing.loop import Visitor
from tests.sharing.others import HERE, KEYRING, OtherNode


class Watching:
    """Somebody who follows on node-a; ``look`` lets one look at Redis happen."""

    def __init__(self, store: Store, credentials: Credentials) -> None:
        store.cli("flushall")
        self.store = store
        self.visitor = Visitor(store.unix_url, credentials)
        self.rows: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        self.timers: list[Callable[[], None]] = []
        self.at = 0.0
        self.view = View(
            self.visitor.door,
            HERE,
            lambda: KEYRING,
            now=lambda: self.at,
            later=lambda _delay_s, call: self.timers.append(call),
        )

    def follow(self, **request: Any) -> Callable[[], None]:
        """Begin, and wait until the first look is over."""
        request = {"command": "blocked", "follow": True, **request}
        end = self.view.follow(Request(**request), self.rows.append, self.warnings.append)
        assert self.visitor.loop.until(lambda: self.timers)
        return end

    def look(self, after_s: float = 1.0) -> list[str]:
        """Look again; returns the names of what came."""
        self.rows.clear()
        self.at += after_s
        timers, self.timers = self.timers, []
        for call in timers:
            call()
        assert self.visitor.loop.until(lambda: self.timers)
        return [row["name"] for row in self.rows]


@pytest.fixture
def watching(lasting_store: Store, credentials: Credentials) -> Iterator[Watching]:
    """Redis is up, two nodes live."""
    made = Watching(lasting_store, credentials)
    with made.visitor:
        made.visitor.up()
        for name in ("node-b", "node-c"):
            OtherNode(lasting_store, name).beat()
        yield made


def test_what_comes_is_shown_once_in_its_order(watching: Watching) -> None:
    """Of all nodes; what was there before is the listing's."""
    b, c = OtherNode(watching.store, "node-b"), OtherNode(watching.store, "node-c")
    b.refuse("before.example")
    watching.follow()
    b.refuse("one.example")
    time.sleep(0.002)
    c.refuse("two.example")
    assert watching.look() == ["one.example", "two.example"]
    assert [row["node"] for row in watching.rows] == ["node-b", "node-c"]
    assert watching.look() == []


def test_a_copy_of_an_old_entry_and_a_forged_one_are_not_shown(watching: Watching) -> None:
    """Nor one of a session that has ended."""
    b = OtherNode(watching.store, "node-b")
    watching.follow()
    b.refuse("one.example")
    b.refuse("two.example")
    assert watching.look() == ["one.example", "two.example"]
    b.refuse("one.example", seq=1)
    b.refuse("forged.example", reason=b"other")
    OtherNode(watching.store, "node-b", session="00000002").refuse("restarted.example")
    b.refuse("three.example", seq=99)
    assert watching.look() == ["restarted.example"]
    assert watching.view.doubts == {"mac": 1, "stale": 2}


def test_an_entry_dated_ahead_makes_nobody_deaf(watching: Watching) -> None:
    """Its node begins its stream anew; what follows has smaller ids."""
    b = OtherNode(watching.store, "node-b")
    watching.follow()
    b.refuse("ahead.example", at="9999999999999-0")
    assert watching.look() == []
    b.redis.delete(b.keys.blocked)
    b.refuse("after.example")
    assert watching.look() == ["after.example"]


def test_a_node_that_comes_later_is_followed_too(watching: Watching) -> None:
    """From when the roll was read before."""
    watching.follow()
    OtherNode(watching.store, "node-d").beat().refuse("new.example")
    assert watching.look() == []
    assert watching.look(following.ROLL_EVERY_S) == ["new.example"]


def test_each_follower_hears_what_it_asked_for(watching: Watching) -> None:
    """By node, namespace and pod; after the last has gone nothing is read."""
    end = watching.follow(node="node-c")
    other: list[dict[str, Any]] = []
    end_other = watching.view.follow(Request("blocked", pod="b-9"), other.append, watching.warnings.append)
    OtherNode(watching.store, "node-b").refuse("b.example", pod="b-9")
    OtherNode(watching.store, "node-c").refuse("c.example")
    assert watching.look() == ["c.example"]
    assert [row["name"] for row in other] == ["b.example"]
    end()
    end_other()
    (call,) = watching.timers
    watching.timers.clear()
    call()
    watching.visitor.loop.turn(0.05)
    assert watching.timers == []


def test_a_flood_is_cut_and_said(watching: Watching) -> None:
    """So many of a look; then it goes on."""
    nodes = [OtherNode(watching.store, f"noisy-{number}").beat() for number in range(7)]
    watching.follow()
    for node in nodes:
        for number in range(following.A_NODE):
            node.refuse(f"n{number}.example")
    assert len(watching.look()) == following.A_LOOK
    assert watching.warnings == ["200 refusals of other nodes came at once and are not shown"]
    nodes[0].refuse("after.example")
    assert watching.look() == ["after.example"]


def test_the_loss_of_redis_and_its_return_are_said_once(store: Store, credentials: Credentials) -> None:
    """Meanwhile this node is followed alone; after it, all are."""
    watching = Watching(store, credentials)
    with watching.visitor:
        watching.visitor.up()
        OtherNode(store, "node-b").beat()
        watching.follow()
        store.kill()
        assert watching.visitor.loop.until(lambda: not watching.visitor.door.is_up)
        watching.look()
        watching.look()
        (lost,) = watching.warnings
        assert lost.startswith("Redis is lost (")
        store.start()
        watching.visitor.up()
        b = OtherNode(store, "node-b").beat()
        watching.look()
        assert watching.warnings[1:] == ["Redis is back: all nodes are followed again"]
        b.refuse("again.example")
        assert watching.look() == ["again.example"]
