"""The authority socket's frames: any split, any garbage."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.authority import (
    CountersReported,
    GrantAnswered,
    GrantRequested,
    Hello,
    LookupRecord,
    LookupsRecorded,
    SnapshotPublished,
    UpstreamState,
)
from policy.pods import Pod
from policy.runtime.framing import (
    MAX_TO_ENFORCER_BYTES,
    MAX_TO_RESOLVER_BYTES,
    FramingError,
    encode,
    enforcer_decoder,
    resolver_decoder,
)
from policy.world import World

TO_ENFORCER = [
    Hello("1", ()),
    GrantRequested(7, 3, "uid", b"\x0a\x00\x00\x01", "api.example.com", (b"\x01\x02\x03\x04",), 60),
    LookupsRecorded((LookupRecord("blocked", "ns", "p", "10.0.0.1", "x.y", "A", "", "", "no rule", 2, 0.5),)),
    CountersReported(
        {"a": 1.0}, {"h": (1.0, 2.0)}, {"g": 3.0}, (UpstreamState("1.1.1.1", healthy=True, latency_ms=2.5),)
    ),
]
TO_RESOLVER = [
    Hello("1", ("udp4", "listen:udp:127.0.0.1:53")),
    SnapshotPublished(
        World(generation=4, pods=(Pod(namespace="n", name="p", uid="u", addresses=("10.0.0.1",)),))
    ),
    GrantAnswered(7, 3, ("realized", "denied"), 59.5),
]


@pytest.mark.parametrize(
    ("messages", "decoder"), [(TO_ENFORCER, enforcer_decoder), (TO_RESOLVER, resolver_decoder)]
)
@pytest.mark.parametrize("piece_bytes", [1, 3, 7, 100_000])
def test_messages_survive_any_split(messages, decoder, piece_bytes):
    """Whatever pieces the stream arrives in, the same messages come out in order."""
    stream = b"".join(encode(message) for message in messages)
    receiving = decoder()
    received = []
    for at in range(0, len(stream), piece_bytes):
        received += receiving.feed(stream[at : at + piece_bytes])
    assert received == messages
    assert receiving.pending_bytes == 0


def test_an_unfinished_frame_waits():
    """A frame without its last byte gives nothing yet, and is held."""
    frame = encode(TO_ENFORCER[1])
    receiving = enforcer_decoder()
    assert receiving.feed(frame[:-1]) == []
    assert receiving.pending_bytes == len(frame) - 1
    assert receiving.feed(frame[-1:]) == [TO_ENFORCER[1]]


@pytest.mark.parametrize(
    ("decoder", "length"),
    [
        (enforcer_decoder, MAX_TO_ENFORCER_BYTES + 1),
        (resolver_decoder, MAX_TO_RESOLVER_BYTES + 1),
        (enforcer_decoder, 0),
        (enforcer_decoder, 0xFFFFFFFF),
    ],
)
def test_a_length_out_of_bounds_is_refused_before_its_bytes_arrive(decoder, length):
    """The claimed length alone decides: nothing is collected for a frame that is too long."""
    with pytest.raises(FramingError, match=str(length)):
        decoder().feed(length.to_bytes(4, "big"))


@pytest.mark.parametrize(
    "payload",
    [
        b"\xc1",
        b"\x91" * 200_000,
        msgspec.msgpack.encode(["grant", 1]),
        msgspec.msgpack.encode(["nonsense"]),
        msgspec.msgpack.encode({"grant": 1}),
        msgspec.msgpack.encode(["grant", 2**70 >> 7, 0, "", b"", "", [], "x"]),
        b"\x95\xa5hello\xa2\xff\xfe",
        msgspec.msgpack.encode(["snapshot", {"generation": 1}]),
    ],
)
def test_what_is_no_message_of_this_direction_is_named(payload):
    """Garbage, other shapes, deep nesting, broken UTF-8 and the other direction: FramingError only."""
    with pytest.raises(FramingError, match="frame"):
        enforcer_decoder().feed(len(payload).to_bytes(4, "big") + payload)


@given(st.binary(max_size=300))
def test_any_bytes_give_messages_or_a_framing_error(data):
    """No other exception leaves the decoder, whatever the bytes."""
    framed = len(data).to_bytes(4, "big") + data
    for stream in (data, framed):
        for decoder in (enforcer_decoder, resolver_decoder):
            try:
                assert isinstance(decoder().feed(stream), list)
            except FramingError:
                continue


@given(st.data())
def test_frames_split_anywhere_give_what_they_give_whole(data):
    """Pieces of any size, good frames before a bad one: the same messages, or the same refusal."""
    good = [encode(one) for one in TO_ENFORCER]
    frames = data.draw(
        st.lists(st.sampled_from([*good, b"\0\0\0\2\x91\xc1", b"\0\0\0\0", b"\0\4\0\1"]), max_size=12)
    )
    stream = b"".join(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))

    def outcome(pieces):
        decoder, messages = enforcer_decoder(), []
        try:
            for piece in pieces:
                messages += decoder.feed(piece)
        except FramingError as error:
            return str(error)
        return messages, decoder.pending_bytes

    ends = [0, *cuts, len(stream)]
    assert outcome([stream[one:other] for one, other in pairwise(ends)]) == outcome([stream])


def test_a_frame_that_comes_octet_by_octet_is_looked_at_twice():
    """Once for its length and once when it is whole: a peer's small pieces buy no more work than that."""
    frame = encode(GrantRequested(7, 3, "uid", b"\x0a\x00\x00\x01", "x" * 200_000, (), 60))
    receiving = enforcer_decoder()
    receiving._pending = Copied()
    messages = [each for octet in frame for each in receiving.feed(bytes((octet,)))]
    assert len(messages) == 1
    assert Copied.count == 2


class Copied(bytearray):
    """Counts how often it is copied whole."""

    count = 0

    def __bytes__(self):
        Copied.count += 1
        return bytes(memoryview(self))
