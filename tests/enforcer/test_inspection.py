"""What the inspection socket says: rows with the promised fields, whatever is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.testing import StringTransport

from enforcer.blocked import BlockedRecords, Refused
from enforcer.inspect import MAX_REQUEST_BYTES, Asker, InspectFactory, Turns
from enforcer.inspection import Inspection, port_text
from tests.enforcer.rig import API, OTHER, Rig, permit, policy

GRANT_FIELDS = (
    "namespace pod uid podIP node name address protocol port policy rule "
    "realizedAt expiresAt remainingSeconds lost"
)
BLOCKED_FIELDS = (
    "kind namespace pod podIP node name qtype address protocol port policy rule reason "
    "count firstSeen lastSeen lost"
)
EXPLAIN_FIELDS = "verdict namespace pod node name port protocol policy rule reason nearest grants"


class _Asking:
    def __init__(self, folder: Path) -> None:
        self.rig = Rig(folder).settled_with(policy(permit("api.example.com", "*.example.org")))
        self.blocked = BlockedRecords(100)
        inspection = Inspection(
            "n1",
            self.rig.ledger,
            self.blocked,
            lambda: self.rig.authority.snapshot,
            lambda: {"node": "n1", "enforcing": True},
        )
        self.factory = InspectFactory(inspection, self.rig.clock)

    def connect(self) -> tuple[Asker, StringTransport]:
        asker, transport = self.factory.buildProtocol(None), StringTransport()
        asker.makeConnection(transport)
        return asker, transport

    def ask(self, **request: Any) -> list[dict[str, Any]]:
        asker, transport = self.connect()
        asker.dataReceived(json.dumps(request).encode() + b"\n")
        self.drain(asker, transport)
        return [json.loads(line) for line in transport.value().splitlines()]

    @staticmethod
    def drain(asker: Asker, transport: StringTransport) -> None:
        """Read everything."""
        while transport.producer is asker and not transport.streaming:
            asker.resumeProducing()

    def refuse(self, pod: str, name: str) -> None:
        at = self.rig.clock()
        self.blocked.add(
            Refused(
                "lookup", "mcp", pod, "100.64.0.2", name, "A", "", "", None, "", "", "no", "blocked", 1, at
            )
        )


@pytest.fixture
def asking(tmp_path: Path) -> _Asking:
    """A running node's inspection."""
    return _Asking(tmp_path)


def test_grants_have_one_row_for_each_reason(asking: _Asking) -> None:
    """Two names of one address: two rows; an expired one: none."""
    asking.rig.ask("api.example.com", API)
    asking.rig.ask("x.example.org", API, ttl_s=1)
    *rows, end = asking.ask(command="grants")
    assert end == {"end": True}
    assert [list(each["row"]) for each in rows] == [GRANT_FIELDS.split()] * 2
    assert {(each["row"]["name"], each["row"]["port"], each["row"]["remainingSeconds"]) for each in rows} == {
        ("api.example.com", 443, 120.0),
        ("x.example.org", 443, 61.0),
    }
    asking.rig.clock.at += 100
    assert [each["row"]["name"] for each in asking.ask(command="grants")[:-1]] == ["api.example.com"]
    assert asking.ask(command="grants", pod="b") == [{"end": True}]


def test_blocked_is_grouped_filtered_and_raw(asking: _Asking) -> None:
    """By pod, by age; each one alone with ``raw``."""
    asking.refuse("a", "evil.example")
    asking.refuse("a", "evil.example")
    asking.rig.clock.at += 100
    asking.refuse("b", "evil.example")
    *rows, _ = asking.ask(command="blocked")
    assert [list(each["row"]) for each in rows] == [BLOCKED_FIELDS.split()] * 2
    assert [each["row"]["count"] for each in rows] == [2, 1]
    assert len(asking.ask(command="blocked", raw=True)) == 4
    assert len(asking.ask(command="blocked", sinceSeconds=50)) == 2
    assert len(asking.ask(command="blocked", pod="a", namespace="mcp")) == 2


def test_a_follower_hears_what_comes_until_it_goes(asking: _Asking) -> None:
    """And what it does not read is not kept for it."""
    asker, transport = asking.connect()
    asker.dataReceived(b'{"command":"blocked","follow":true}\n')
    asker.resumeProducing()
    asking.refuse("a", "one.example")
    asker.pauseProducing()
    asking.refuse("a", "unread.example")
    asker.resumeProducing()
    asking.refuse("a", "two.example")
    names = [json.loads(line)["row"]["name"] for line in transport.value().splitlines()]
    assert names == ["one.example", "two.example"]
    asker.connectionLost()
    asking.refuse("a", "three.example")
    assert len(transport.value().splitlines()) == 2


def test_explain_decides_and_lists_the_live_grants(asking: _Asking) -> None:
    """Permitted with its grants, and refused with the nearest miss."""
    asking.rig.ask("api.example.com", API, OTHER)
    (row,) = [
        each["row"]
        for each in asking.ask(
            command="explain", namespace="mcp", pod="a", name="API.example.com.", port=443
        )[:-1]
    ]
    assert list(row) == EXPLAIN_FIELDS.split()
    assert (row["verdict"], row["policy"], row["rule"], len(row["grants"])) == ("permit", "mcp/p", "allow", 2)
    (row,) = [
        each["row"]
        for each in asking.ask(command="explain", namespace="mcp", pod="a", name="example.org")[:-1]
    ]
    assert (row["verdict"], row["nearest"]) == ("deny", "*.example.org")


def test_explain_of_an_address_shows_what_is_open_there(asking: _Asking) -> None:
    """No rule permits it by itself; what a name opened is listed, other addresses are not."""
    asking.rig.ask("api.example.com", API, OTHER)
    row = asking.ask(command="explain", namespace="mcp", pod="a", address=API, port=443)[0]["row"]
    assert (row["verdict"], row["name"]) == ("deny", API)
    assert [grant["address"] for grant in row["grants"]] == [API]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b'"grants"',
        b'{"command":1}',
        b"\xff\xfe",
        b'{"command":"drop"}',
        b'{"command":"explain","pod":"x"}',
    ],
)
def test_what_is_no_request_gets_a_sentence(asking: _Asking, line: bytes) -> None:
    """And the connection may ask again."""
    asker, transport = asking.connect()
    asker.dataReceived(line + b"\n")
    asking.drain(asker, transport)
    assert list(json.loads(transport.value())) == ["error"]
    transport.clear()
    asker.dataReceived(b'{"command":"status"}\n')
    asking.drain(asker, transport)
    assert transport.value().startswith(b'{"row"')


@pytest.mark.parametrize("line", [b"x\n", b'{"command":"grants","pod":"nobody"}\n'])
def test_who_asks_again_and_again_and_reads_nothing_is_not_heard(asking: _Asking, line: bytes) -> None:
    """One answer waits, however short it is; any user of the node could fill the memory otherwise."""
    asker, transport = asking.connect()
    for _ in range(1000):
        asker.dataReceived(line)
        if transport.producer is asker and not transport.value():
            asker.resumeProducing()  # as Twisted does when it is registered: nothing has left yet
    assert len(transport.value().splitlines()) == 1
    asking.drain(asker, transport)
    asker.dataReceived(b'{"command":"status"}\n')
    asking.drain(asker, transport)
    assert len(transport.value().splitlines()) == 3


def test_askers_take_turns(asking: _Asking) -> None:
    """One piece of one answer at a time, and as long a pause after it: lookups come in between."""
    timers: list[tuple[float, Callable[[], None]]] = []
    clock, made = asking.rig.clock, []

    def work() -> None:
        made.append(clock())
        clock.at += 0.5

    turns = Turns(clock, lambda delay_s, call: timers.append((delay_s, call)))
    turns(work)
    turns(work)
    assert made == []
    pauses = []
    while timers:
        pause_s, call = timers.pop()
        pauses.append(pause_s)
        clock.at += pause_s
        call()
    assert pauses == [0.0, 0.5, 0.5]
    assert made[1] - made[0] == 1.0
    turns(work)
    assert len(timers) == 1


def test_who_has_gone_has_no_turn(asking: _Asking) -> None:
    """Nothing is made for it."""
    waiting: list[Callable[[], None]] = []
    asking.factory.turns = waiting.append
    asker, transport = asking.connect()
    asker.dataReceived(b'{"command":"status"}\n')
    asker.connectionLost()
    for call in waiting:
        call()
    assert transport.value() == b""


def test_an_endless_request_is_cut(asking: _Asking) -> None:
    """Nobody makes this process keep more than a line."""
    asker, transport = asking.connect()
    asker.dataReceived(b"x" * (MAX_REQUEST_BYTES + 1))
    assert transport.disconnecting
    assert b"error" in transport.value()


def test_ports_are_numbers_ranges_or_any() -> None:
    """As interfaces.md has them."""
    assert [
        port_text("tcp", 443, 443),
        port_text("udp", 8000, 8100),
        port_text("tcp", 0, 65535),
        port_text("icmp", 0, 0),
    ] == [
        443,
        "8000-8100",
        "any",
        "any",
    ]
