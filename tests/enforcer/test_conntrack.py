"""Flows are read from the kernel's messages, the usual ones by their fixed places."""

from __future__ import annotations

import struct

import pytest

from enforcer.conntrack import Flow, _flow, _original
from enforcer.netlink import attribute, attributes, nested

V4, TO4 = bytes((10, 0, 0, 2)), bytes((93, 184, 216, 34))
V6, TO6 = b"\xfd" + bytes(15), b"\x20\x01" + bytes(14)


def entry(source: bytes, destination: bytes, number: int, *rest: tuple[int, int]) -> bytes:
    """An entry of a dump as ctnetlink writes it: the original tuple first, then the reply's."""
    first, second = (1, 2) if len(source) == 4 else (3, 4)

    def tuple_of(a: bytes, b: bytes) -> bytes:
        ports = b"".join(attribute(kind, struct.pack(">H", value)) for kind, value in rest)
        ends = attribute(first, a) + attribute(second, b)
        return nested(1, ends) + nested(2, attribute(1, bytes((number,))) + ports)

    return (
        struct.pack(">BBH", 2, 0, 0)
        + nested(1, tuple_of(source, destination))
        + nested(2, tuple_of(destination, source))
    )


@pytest.mark.parametrize(
    ("payload", "flow"),
    [
        (entry(V4, TO4, 6, (2, 40000), (3, 443)), Flow(V4, TO4, 6, 443)),
        (entry(V4, TO4, 17, (2, 40000), (3, 53)), Flow(V4, TO4, 17, 53)),
        (entry(V4, TO4, 1), Flow(V4, TO4, 1, 0)),
        (entry(V6, TO6, 6, (2, 40000), (3, 65535)), Flow(V6, TO6, 6, 65535)),
        (
            attribute(12, bytes(4)).join((b"\2\0\0\0", entry(V4, TO4, 6, (2, 1), (3, 80))[4:])),
            Flow(V4, TO4, 6, 80),
        ),
    ],
)
def test_a_flow_is_read_from_its_entry(payload: bytes, flow: Flow) -> None:
    """Usual or not, both ways say the same."""
    assert _original(payload) == flow
    assert _flow(next(value for kind, value in attributes(payload, 4) if kind == 1)) == flow
