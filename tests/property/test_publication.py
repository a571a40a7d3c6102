"""Laws of what resolvers are told: however far behind they were, they hold what was published."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.authority import SnapshotPublished, WorldChanged
from policy.compilation import Memory
from policy.publication import NotHeld, Publication, change_of, held
from policy.runtime.framing import encode, resolver_decoder
from policy.snapshot import compile_snapshot
from policy.world import World
from tests.property.test_memory_laws import histories, said

MOST = 64 * 1024 * 1024


class _Peer:
    """A resolver: a stream of frames, the world it holds, and what it compiles."""

    def __init__(self) -> None:
        self.told: World | None = None
        self.reconnect()

    def reconnect(self) -> None:
        self.told = self.held = None
        self.decoder: Any = resolver_decoder()
        self.memory = Memory()

    def hear(self, publication: Publication) -> None:
        frame = publication.frame(self.told)
        self.told = publication.world
        for message in self.decoder.feed(frame):
            self.held = held(self.held, message)


def numbered(history: list[World]) -> list[World]:
    """Give the worlds their generations."""
    return [
        msgspec.structs.replace(world, generation=number) for number, world in enumerate(history, start=1)
    ]


@settings(max_examples=60)
@given(histories(), st.data())
def test_whoever_is_told_holds_what_was_published(history: list[World], data: st.DataObject) -> None:
    """Resolvers that hear of every world, of some, or come anew: what they compile says the same."""
    publication, here = Publication(encode, MOST), Memory()
    peers = [_Peer(), _Peer(), _Peer()]
    for world in numbered(history):
        publication.publish(world)
        whole = compile_snapshot(world, here)
        for peer in peers:
            doing = data.draw(st.sampled_from(["hear", "hear", "miss", "reconnect"]))
            if doing == "reconnect":
                peer.reconnect()
            if doing != "miss":
                peer.hear(publication)
                assert peer.held == world
                assert said(compile_snapshot(peer.held, peer.memory)) == said(whole)


@given(histories(), st.randoms(use_true_random=False))
def test_a_lost_or_repeated_change_is_found_out(history: list[World], random: Any) -> None:
    """Messages lost, repeated, in another order: the world held is one that was published, or none."""
    worlds = numbered(history)
    messages: list[SnapshotPublished | WorldChanged] = [SnapshotPublished(worlds[0])]
    messages += [change_of(old, new) for old, new in itertools.pairwise(worlds)]
    came = [random.choice(messages) for _ in range(2 * len(messages))]
    now: World | None = None
    for message in came:
        try:
            now = held(now, message)
        except NotHeld:
            continue
        assert now == worlds[now.generation - 1]


@given(histories())
def test_what_did_not_change_stays_the_same_object(history: list[World]) -> None:
    """A world of a change has the objects of the one before, where it has equal ones from there."""
    worlds = numbered(history)
    now = worlds[0]
    for old, new in itertools.pairwise(worlds):
        now = held(now, change_of(old, new))
        for mine, theirs in zip((*now.policies, *now.pods), (*new.policies, *new.pods), strict=True):
            assert mine is theirs


def test_a_whole_that_would_fit_no_frame_is_no_world() -> None:
    """Changes that each fit add up: what a new resolver could not be told is refused; the last one stays."""
    world = World(generation=1)
    publication = Publication(_bounded, 400)
    publication.publish(world)
    for number in range(2, 6):
        last = world
        world = msgspec.structs.replace(world, generation=number, private_zones=(f"{number}" * 60 * number,))
        if len(encode(SnapshotPublished(world))) > 400:
            break
        publication.publish(world)
    with pytest.raises(ValueError, match="too long"):
        publication.publish(world)
    assert publication.world is last
    assert publication.frame(None) == encode(SnapshotPublished(last))
    assert publication.frame(last) == b""


def _bounded(message: SnapshotPublished | WorldChanged) -> bytes:
    frame = encode(message)
    if len(frame) > 400:
        raise ValueError("too long")
    return frame
