"""What the API server sends, in pieces of any size and of any content."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.kube.answers import (
    MAX_OBJECT_BYTES,
    ApiLost,
    ApiRefused,
    ListStream,
    lines,
    read_event,
    read_object,
    refusal,
)

scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
keys = st.text(max_size=5)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)
)
objects = st.dictionaries(keys, values, max_size=4)


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """The same octets in pieces of these sizes, then the rest."""
    for size in sizes:
        yield data[:size]
        data = data[size:]
    yield data


def read(pieces: Iterable[bytes]) -> ListStream[dict[str, object]]:
    """Read a whole list, keeping everything."""
    stream = ListStream(pieces, lambda item: item)
    stream.read()
    return stream


@given(
    st.lists(objects, max_size=5),
    objects,
    st.booleans(),
    st.lists(st.integers(min_value=1, max_value=40), max_size=12),
)
def test_a_list_is_the_same_in_any_pieces(
    items: list[dict[str, object]], fields: dict[str, object], ascii_only: bool, sizes: list[int]
) -> None:
    """However it is cut, with its items first or last, escaped or not: the same items and fields."""
    fields.pop("items", None)
    for whole in ({**fields, "items": items}, {"items": items, **fields}):
        data = json.dumps(whole, ensure_ascii=ascii_only, indent=1 if ascii_only else None).encode(
            "utf-8", "surrogatepass"
        )
        stream = read(cut(data, sizes))
        assert stream.items == items
        assert stream.fields == fields


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"nonsense",
        b"\xff\xfe",
        b'{"items": [',
        b'{"items": [1]}',
        b'{"items": [{}',
        b'{"items": [{} {}]}',
        b'{"items": [{}], "x"',
        b'{"items": [{"a": tru}]}',
        b'{"a": "\xc3',
        b'{"a" 1}',
        b"{" * 100_000,
        b'{"items": [' + b"[" * 200_000,
    ],
)
def test_what_is_no_list_is_lost(data: bytes) -> None:
    """Nothing that a server sends in place of a list is another error, or an empty list."""
    with pytest.raises(ApiLost):
        read(iter([data]))


def test_null_items_are_no_items() -> None:
    """Go writes an empty list as null."""
    assert read(iter([b'{"items": null, "metadata": {}}'])).items == []


def test_a_large_item_comes_in_small_pieces() -> None:
    """An object of 3 MiB in pieces of 1 KiB is read once, not once for each piece."""
    items = [{"a": "x" * (3 << 20)}, {"b": 1}]
    data = json.dumps({"items": items}).encode()
    assert read(data[at : at + 1024] for at in range(0, len(data), 1024)).items == items


@pytest.mark.parametrize("value", [b'"\\ud800"', b'{"\\uDFFF": 1}', b"NaN", b"-Infinity"])
def test_what_no_json_can_say_is_lost(value: bytes) -> None:
    """Half a character or no number is no object: our own encoder, later on, could not write it either."""
    with pytest.raises(ApiLost, match="no JSON"):
        read([b'{"items": [{"a": ', value, b"}]}"])


def test_a_character_in_two_halves_is_one() -> None:
    """As JSON may write it."""
    assert read([b'{"items": [{"a": "\\ud83d\\ude00"}]}']).items == [{"a": "\U0001f600"}]


def test_the_largest_pod_of_etcd_is_read() -> None:
    """Stored as octets, it comes as six characters for each: nobody hides a node's pods behind one of his."""
    largest = 1536 * 1024
    items = [{"a": "\x01" * largest}, {"b": 1}]
    assert len(read([json.dumps({"items": items}).encode()]).items) == 2
    event = {"type": "ADDED", "object": items[0]}
    assert read_event(next(lines([json.dumps(event).encode() + b"\n"]))).object == items[0]


def test_an_endless_item_is_given_up() -> None:
    """A server cannot fill our memory with one object."""

    def endless() -> Iterator[bytes]:
        yield b'{"items": [{"a": "'
        while True:
            yield b"x" * 65536

    with pytest.raises(ApiLost, match="larger than any"):
        read(endless())


@given(st.lists(st.binary(max_size=30).map(lambda each: each.replace(b"\n", b".")), max_size=8), st.data())
def test_lines_are_the_same_in_any_pieces(given_lines: list[bytes], data: st.DataObject) -> None:
    """Blank ones are left out, a last one without an end too: it may be cut."""
    whole = b"".join(line + b"\n" for line in given_lines) + b"cut"
    sizes = data.draw(st.lists(st.integers(min_value=1, max_value=20), max_size=10))
    assert list(lines(cut(whole, sizes))) == [line for line in given_lines if line.strip()]


def test_an_endless_line_is_given_up() -> None:
    """No event is larger than any object."""
    pieces = (b"x" * 65536 for _ in range(MAX_OBJECT_BYTES // 65536 + 2))
    with pytest.raises(ApiLost, match="larger than any"):
        list(lines(pieces))


@given(st.binary(max_size=200))
def test_any_octets_are_an_object_or_lost(data: bytes) -> None:
    """Neither an object nor an event raises anything else."""
    for reader in (read_object, read_event):
        try:
            reader(data)
        except (ApiLost, ApiRefused):
            continue


@given(values)
def test_any_value_is_an_event_or_lost(value: object) -> None:
    """Whatever JSON stands where an event belongs."""
    for event in (value, {"type": "ADDED", "object": value}, {"type": "ERROR", "object": value}):
        try:
            read_event(json.dumps(event).encode())
        except (ApiLost, ApiRefused):
            continue


def test_deep_nesting_is_lost() -> None:
    """The depth of an object is not the depth of our stack."""
    with pytest.raises(ApiLost):
        read_object(b'{"a":' * 100_000)


def test_a_refusal_says_what_the_server_said() -> None:
    """Status, reason, message, and how long to wait: by the header, or by the details."""
    body = (
        b'{"kind":"Status","reason":"TooManyRequests","message":"slow down",'
        b'"details":{"retryAfterSeconds":7}}'
    )
    found = refusal(429, body, None)
    assert (found.status, found.reason, found.message) == (429, "TooManyRequests", "slow down")
    assert found.retry_after_s == 7
    assert refusal(429, body, "3").retry_after_s == 3


@pytest.mark.parametrize("wait", ["-1", "nan", "soon", "", "0"])
def test_a_senseless_wait_is_none(wait: str) -> None:
    """A date, or nonsense: our own pause counts."""
    assert refusal(503, b"", wait).retry_after_s is None


def test_a_long_wait_is_bounded() -> None:
    """Nobody sends us to sleep for good."""
    assert refusal(503, b"", "1e12").retry_after_s == 300


def test_a_refusal_is_printable_and_short() -> None:
    """A stranger's text reaches no terminal as it is, in a Status object or beside one."""
    hostile = "\x1b]0;owned\x07" + "x" * 100_000
    for body in (json.dumps({"message": hostile, "reason": hostile}).encode(), hostile.encode()):
        said = str(refusal(500, body, None))
        assert said.isprintable()
        assert len(said) < 1000
