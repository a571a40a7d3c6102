"""nf_tables messages: order, splitting, and what a refusal points at."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from enforcer.elements import Add, Element, Remove, Renew
from enforcer.netlink import Message, attributes, messages, refusal
from enforcer.transaction import batch, installed, refused_change

KEY = bytes(16)


def grant(number: int, comment: bytes = b"") -> Element:
    """A grant element of its own key."""
    return Element("grants4", number.to_bytes(16, "big"), b"", 60_000, comment)


def sent(changes, *, renews: bool = True) -> list[Message]:
    """The messages of a batch without begin and end."""
    return list(messages(batch("nameward", changes, 7, renews=renews).data))[1:-1]


def test_a_batch_begins_and_ends_and_its_last_message_asks_for_the_answer():
    """NFNL_MSG_BATCH_BEGIN and END carry the subsystem; sequence numbers run."""
    whole = list(
        messages(batch("nameward", [Add(grant(1)), Add(Element("live4", KEY))], 7, renews=True).data)
    )
    assert [each.type for each in whole] == [0x10, 10 << 8 | 12, 10 << 8 | 12, 0x11]
    assert [each.seq for each in whole] == [7, 8, 9, 10]
    assert [bool(each.flags & 4) for each in whole] == [False, False, True, False]
    assert whole[0].payload == whole[-1].payload == struct.pack(">BBH", 0, 0, 10)


def test_changes_of_one_set_keep_their_order():
    """Remove before add of the same key stays so; other sets are gathered."""
    found = sent([Remove("grants4", KEY), Add(grant(1)), Add(Element("live4", KEY)), Add(grant(2))])
    assert [each.type & 0xFF for each in found] == [14, 12, 12]


def test_big_batches_are_split_below_the_limit_of_one_attribute():
    """No nested attribute is longer than 65,535 octets, and nothing is lost."""
    found = sent([Add(grant(n, b"x" * 200)) for n in range(2000)])
    assert len(found) > 1
    elements = 0
    for each in found:
        for kind, value in attributes(each.payload, 4):
            if kind == 3:
                assert len(value) + 4 <= 65_535
                elements += len(list(attributes(value)))
    assert elements == 2000


def test_a_renewal_is_an_expiration_or_add_delete_add():
    """As the kernel was found to do."""
    assert [each.type & 0xFF for each in sent([Renew(grant(1))])] == [12]
    assert [each.type & 0xFF for each in sent([Renew(grant(1))], renews=False)] == [12, 14, 12]
    assert [each.type & 0xFF for each in sent([Add(grant(0))], renews=False)] == [12]


def test_comments_are_printable_and_bounded():
    """What a name holds reaches no terminal as anything but text, and fits the user data."""
    (found,) = sent([Add(grant(1, b'\x1b[31m"' + b"y" * 400))])
    back = next(installed("grants4", [found]))
    assert back.comment == b"?[31m?" + b"y" * 246
    assert b"\x1b" not in found.payload


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.data())
def test_a_refusal_points_at_its_change(kinds, data):
    """Whatever was gathered with what: the offset of an element leads back to the change it came from."""
    changes = []
    for number, kind in enumerate(kinds):
        name = "grants4" if kind % 2 else "live4"
        key = number.to_bytes(16, "big")
        changes.append(Remove(name, key) if kind > 1 else Add(Element(name, key, b"", 0, b"c" * kind * 3)))
    made = batch("nameward", changes, 100, renews=True)
    wanted = data.draw(st.integers(0, len(changes) - 1))
    change = changes[wanted]
    key = change.key if isinstance(change, Remove) else change.element.key
    at = 0
    for number, each in enumerate(messages(made.data)):
        length = (16 + len(each.payload) + 3) & ~3
        offset = made.data[at : at + length].find(key)
        if wanted in dict(enumerate(made.runs)).get(number - 1, ()) and offset >= 0:
            assert refused_change(made, each.seq, offset - 12) == wanted
            return
        at += length
    raise AssertionError("the change was not sent")


def test_one_field_intervals_are_put_together_from_their_ends():
    """Start and what follows the end, in any order; up to the last address there is no end."""
    ranges = [
        Element("cluster4", b"\x0a\0\0\0", b"\x0a\xff\xff\xff"),
        Element("cluster4", b"\xff\0\0\0", b"\xff\xff\xff\xff"),
        Element("cluster4", b"\0\0\0\0", b"\0\0\0\x07"),
    ]
    found = list(installed("cluster4", sent([Add(each) for each in ranges])))
    assert {(each.key, each.key_end) for each in found} == {(each.key, each.key_end) for each in ranges}


@given(st.binary(max_size=200))
def test_broken_bytes_are_read_to_their_end(data):
    """The kernel is trusted, its messages are still bounded by their lengths."""
    list(messages(data))
    list(attributes(data))
    list(installed("grants4", [Message(0, 0, 0, 0, b"\0" * 4 + data[:0])]))


def test_an_acknowledgement_is_none_and_a_refusal_says_where():
    """NLMSG_ERROR with 0; with -ENFILE and the kernel's words and offset."""
    zero = Message(2, 0x100, 9, 0, struct.pack("=i", 0) + bytes(16))
    assert refusal(zero) is None
    words = struct.pack("=HH", 9, 1) + b"full\0" + bytes(3) + struct.pack("=HHI", 8, 2, 48)
    refused = refusal(Message(2, 0x200, 9, 0, struct.pack("=i", -23) + bytes(16) + words))
    assert refused is not None
    assert (refused.errno, refused.strerror, refused.seq, refused.offset) == (23, "full", 9, 48)
