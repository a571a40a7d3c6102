"""Two hosts of one name say so; what only stands in Redis is no host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from enforcer.sharing.publishing.namesake import LOOK_EVERY_S, SAID_FOR_S, Namesake
from enforcer.sharing.records.formats import NodeFacts, NodeRecord
from enforcer.sharing.records.keys import Keys
from enforcer.sharing.records.seal import VERSION, Keyring, seal

KEYS, RING = Keys("default", "node-a"), Keyring(b"k" * 32)
FACTS = NodeFacts("1", 3, "hash", 2, 0, "t", True, 1, 0, 0, "", (), ())  # noqa: FBT003


class Shelf:
    """A door to one heartbeat."""

    is_up = True

    def __init__(self) -> None:
        self.fields: dict[bytes, bytes] = {}
        self.asked = 0

    def hashes(self, keys: Sequence[bytes]) -> list[dict[bytes, bytes]]:
        assert list(keys) == [KEYS.heartbeat]
        return [self.fields]

    def ask(self, work: Callable[[Any], Any], done: Callable[[Any], None]) -> None:
        self.asked += 1
        done(work(self))

    def beat(self, session: str, beat: int, ring: Keyring = RING) -> None:
        """Have a host write its heartbeat."""
        fields = {**NodeRecord("node-a", session, beat, "c" * 16, "t", FACTS).fields(), b"v": VERSION}
        self.fields = fields | {b"mac": seal(ring, KEYS.heartbeat, fields)}


class Node:
    """The one that looks, at a time that tests set."""

    def __init__(self) -> None:
        self.at = 100.0
        self.shelf = Shelf()
        self.namesake = Namesake(self.shelf, KEYS, lambda: RING, "mine", lambda: self.at)

    def looks(self) -> str:
        self.at += LOOK_EVERY_S
        self.namesake.look()
        return self.namesake.problem


@pytest.fixture
def node() -> Node:
    return Node()


def test_another_host_that_goes_on_is_said_and_forgotten_later(node: Node) -> None:
    """Its heartbeat was met twice, and grew; half a minute without it and nothing is said."""
    node.shelf.beat("other", 7)
    assert node.looks() == ""
    node.shelf.beat("mine", 3)
    assert node.looks() == ""
    node.shelf.beat("other", 10)
    assert "calls itself node-a too" in node.looks()
    node.shelf.beat("mine", 4)
    node.at += SAID_FOR_S
    assert node.looks() == ""


def test_an_earlier_run_or_an_old_record_is_no_host(node: Node) -> None:
    """What does not grow only stands there."""
    for session, beat in (("before", 7), ("before", 7), ("before", 6), ("older", 9)):
        node.shelf.beat(session, beat)
        assert node.looks() == ""


def test_what_is_not_sealed_or_not_there_says_nothing(node: Node) -> None:
    """Nobody without the key can have it said."""
    for beat in range(3):
        node.shelf.beat("other", beat, Keyring(b"x" * 32))
        assert node.looks() == ""
    node.shelf.fields = {}
    assert node.looks() == ""


def test_it_looks_no_more_often_than_it_says_and_not_while_redis_is_lost(node: Node) -> None:
    """A look is a question in a thread."""
    node.looks()
    node.namesake.look()
    assert node.shelf.asked == 1
    node.shelf.is_up = False
    node.looks()
    assert node.shelf.asked == 1
