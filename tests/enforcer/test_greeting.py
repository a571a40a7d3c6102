"""Which sockets a resolver is given: by its number, or at once where there is one set."""

from __future__ import annotations

import pytest

from enforcer.greeting import Greeting
from policy.authority import Hello, LookupsRecorded
from policy.runtime.framing import resolver_decoder


class Sock:
    """Has a descriptor."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        """Return it."""
        return self._number


class Wire:
    """What was written and which descriptors were sent."""

    def __init__(self) -> None:
        self.written = b""
        self.descriptors: list[int] = []

    def write(self, data: bytes) -> None:
        """Take bytes."""
        self.written += data

    def sendFileDescriptor(self, fileno: int) -> None:
        """Take a descriptor."""
        self.descriptors.append(fileno)


ONE = {"udp4": Sock(3), "listen:tcp:::1:53": Sock(4)}
TWO = {"udp4": Sock(3), "udp4#1": Sock(5), "listen:tcp:::1:53": Sock(4), "listen:tcp:::1:53#1": Sock(6)}


def test_one_resolver_is_greeted_at_once() -> None:
    """Nothing has to be known of it."""
    wire = Wire()
    assert Greeting("0.1", ONE).give(wire)
    assert wire.descriptors == [3, 4]


@pytest.mark.parametrize(("number", "descriptors"), [(0, [3, 4]), (1, [5, 6]), (2, [3, 4]), (7, [5, 6])])
def test_each_of_several_is_given_its_set(number: int, descriptors: list[int]) -> None:
    """By plain names, once it has said who it is; a number of a larger set of resolvers gets one of these."""
    wire = Wire()
    greeting = Greeting("0.1", TWO)
    assert not greeting.give(wire)
    assert wire.written == b""
    assert greeting.give(wire, Hello("0.1", number=number))
    assert wire.descriptors == descriptors
    (hello,) = resolver_decoder().feed(wire.written)
    assert hello == Hello("0.1", ("udp4", "listen:tcp:::1:53"))


def test_what_says_nothing_of_itself_is_the_first() -> None:
    """A resolver of a release that knows no numbers, or a broken one."""
    wire = Wire()
    assert Greeting("0.1", TWO).give(wire, LookupsRecorded(()))
    assert wire.descriptors == [3, 4]
