"""Answers that other nodes have a part in: they may come late, and are not kept for who does not read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.testing import StringTransport

from enforcer.asked import Found, Request, Row
from enforcer.blocked import BlockedRecords, Refused
from enforcer.inspect import READ_WITHIN_S, Asker, InspectFactory
from enforcer.inspection import Inspection
from policy.pods import Pod
from tests.enforcer.rig import API, A, B, Rig, permit, policy

AWAY = Pod(namespace="mcp", name="away", uid="u-away", addresses=("100.64.9.9",), node="n2")


class Others:
    """The other nodes, who answer when a test lets them."""

    def __init__(self) -> None:
        self.searches: list[tuple[Request, Sequence[str], Callable[[Found], None]]] = []
        self.ended = 0
        self.followers: list[tuple[Callable[[Row], None], Callable[[str], None]]] = []
        self.at_once: Found | None = None

    def find(
        self, request: Request, addresses: Sequence[str], done: Callable[[Found], None]
    ) -> Callable[[], None]:
        self.searches.append((request, addresses, done))
        if self.at_once is not None:
            done(self.at_once)
        return self._end

    def follow(
        self, request: Request, take: Callable[[Row], None], warn: Callable[[str], None]
    ) -> Callable[[], None]:
        self.followers.append((take, warn))
        return self._end

    def answer(self, *rows: Row, warnings: tuple[str, ...] = (), lost: frozenset[str] = frozenset()) -> None:
        """Answer the latest search."""
        self.searches[-1][2](Found((list(rows),) if rows else (), warnings, lost))

    def _end(self) -> None:
        self.ended += 1


class AbortingTransport(StringTransport):
    """Remembers whether the connection was ended."""

    def abortConnection(self) -> None:
        self.aborting = True


class Asking:
    """Node n1, its pods a and b, and pod away on n2."""

    def __init__(self, folder: Path, *, shared: bool = True) -> None:
        self.rig = Rig(folder).settled_with(policy(permit("api.example.com")), pods=(A, B, AWAY))
        self.others = Others()
        self.blocked = BlockedRecords(10)
        self.timers: list[tuple[float, Callable[[], None]]] = []
        inspection = Inspection(
            "n1",
            self.rig.ledger,
            self.blocked,
            lambda: self.rig.authority.snapshot,
            lambda: {"node": "n1", "enforcing": True, "lost": False},
            elsewhere=self.others if shared else None,
        )
        self.factory = InspectFactory(
            inspection, self.rig.clock, lambda delay_s, call: self.timers.append((delay_s, call))
        )

    def send(self, **request: Any) -> tuple[Asker, AbortingTransport]:
        """Ask; the answer is read with ``lines``."""
        asker, transport = self.factory.buildProtocol(None), AbortingTransport()
        asker.makeConnection(transport)
        asker.dataReceived(json.dumps(request).encode() + b"\n")
        return asker, transport

    @staticmethod
    def lines(asker: Asker, transport: StringTransport) -> list[dict[str, Any]]:
        """All that is said until the answer's end."""
        while transport.producer is asker and not transport.streaming:
            asker.resumeProducing()
        return [json.loads(line) for line in transport.value().splitlines()]


@pytest.fixture
def asking(tmp_path: Path) -> Asking:
    """Node n1 with shared state."""
    return Asking(tmp_path)


def grant_of(node: str, pod: str = "x", address: str = "192.0.2.1") -> Row:
    """Part of a row of another node's grant."""
    return {
        "node": node,
        "namespace": "mcp",
        "pod": pod,
        "podIP": "",
        "name": "",
        "address": address,
        "lost": False,
    }


def test_other_nodes_rows_stand_in_their_order(asking: Asking) -> None:
    """This node's among them, as they are when the others have answered; warnings before the end."""
    asker, transport = asking.send(command="grants")
    assert transport.value() == b""
    asking.rig.ask("api.example.com", API)
    asking.others.answer(grant_of("n0"), grant_of("n2"), warnings=("one is missing",))
    *rows, warning, end = asking.lines(asker, transport)
    assert [line["row"]["node"] for line in rows] == ["n0", "n1", "n2"]
    assert (warning, end) == ({"warning": "one is missing"}, {"end": True})
    assert asking.others.ended == 1


def test_an_answer_may_come_at_once(asking: Asking) -> None:
    """As when Redis is lost."""
    asking.others.at_once = Found(warnings=("Redis is lost",))
    asker, transport = asking.send(command="status")
    assert asking.lines(asker, transport) == [
        {"row": {"node": "n1", "enforcing": True, "lost": False}},
        {"warning": "Redis is lost"},
        {"end": True},
    ]
    assert asking.others.ended == 1


@pytest.mark.parametrize("more", [{"node": "n1"}, {"local": True}])
def test_this_node_alone_asks_nobody(asking: Asking, more: dict[str, Any]) -> None:
    """By its name, or as what it is."""
    asker, transport = asking.send(command="status", **more)
    assert len(asking.lines(asker, transport)) == 2
    assert asking.others.searches == []


def test_another_node_alone_has_no_rows_of_this_one(asking: Asking) -> None:
    """--node is for both sides."""
    asking.rig.ask("api.example.com", API)
    for command in ("grants", "blocked", "status"):
        asker, transport = asking.send(command=command, node="n2")
        asking.others.answer(grant_of("n2"))
        assert [line["row"]["node"] for line in asking.lines(asker, transport)[:-1]] == ["n2"]


def test_a_node_that_nobody_knows_is_refused(asking: Asking) -> None:
    """But what the source says of its pods is shown."""
    refused = Found(refusal="no node n9 shares its state")
    asker, transport = asking.send(command="grants", node="n9")
    asking.others.searches[-1][2](refused)
    assert asking.lines(asker, transport) == [{"error": "no node n9 shares its state"}]
    asker, transport = asking.send(command="inventory", node="n2")
    asking.others.searches[-1][2](refused)
    assert [line["row"]["pod"] for line in asking.lines(asker, transport)[:-1]] == ["away"]


def test_without_shared_state_nobody_speaks_for_another_node(tmp_path: Path) -> None:
    """The sentence says where to ask; what the source says of its pods is known here."""
    asking = Asking(tmp_path, shared=False)
    asker, transport = asking.send(command="grants", node="n2")
    (said,) = asking.lines(asker, transport)
    assert said["error"] == "this is node n1 and no state is shared (state.redis): ask on n2 itself"
    asker, transport = asking.send(command="inventory", node="n2")
    assert [line["row"]["pod"] for line in asking.lines(asker, transport)[:-1]] == ["away"]


def test_the_pods_addresses_go_with_the_question(asking: Asking) -> None:
    """So that Redis is asked for their keys alone."""
    asking.send(command="grants", namespace="mcp", pod="away")
    assert asking.others.searches[-1][1] == AWAY.addresses


def test_explain_of_another_nodes_pod(asking: Asking) -> None:
    """Decided by the policy here, with its node and what is open there."""
    asker, transport = asking.send(
        command="explain", namespace="mcp", pod="away", name="API.example.com.", port=443
    )
    request = asking.others.searches[-1][0]
    assert request.name == "api.example.com"
    asking.others.answer(grant_of("n2", "away"))
    row = asking.lines(asker, transport)[0]["row"]
    assert (row["verdict"], row["node"]) == ("permit", "n2")
    assert [grant["node"] for grant in row["grants"]] == ["n2"]


def test_explain_of_a_pod_here_asks_nobody(asking: Asking) -> None:
    """This node's memory is the truth about it."""
    asker, transport = asking.send(
        command="explain", namespace="mcp", pod="a", name="api.example.com", port=443
    )
    row = asking.lines(asker, transport)[0]["row"]
    assert (row["node"], asking.others.searches) == ("n1", [])


def test_explain_of_a_pod_that_only_another_node_knows(asking: Asking) -> None:
    """Says who can explain it, or that nobody knows it."""
    for rows, said in (
        (
            [{**grant_of("n2", "foreign"), "kind": "pod"}],
            "the policies of pod mcp/foreign are known on n2 alone: ask there",
        ),
        ([], "no pod mcp/foreign is known; see nameward inventory"),
    ):
        asker, transport = asking.send(command="explain", namespace="mcp", pod="foreign", name="a.example")
        asking.others.answer(*rows)
        assert asking.lines(asker, transport) == [{"error": said}]


def test_the_inventory_knows_who_is_lost(asking: Asking) -> None:
    """Of pods that the own source knows, and of those that only their node does."""
    asker, transport = asking.send(command="inventory")
    stranger = {"kind": "pod", "namespace": "mcp", "pod": "zed", "node": "n3", "policies": [], "lost": False}
    known = {**stranger, "pod": "away", "node": "n2"}
    asking.others.answer(known, stranger, lost=frozenset({"n2"}))
    rows = [line["row"] for line in asking.lines(asker, transport)[:-1]]
    assert [(row["pod"], row["node"], row["lost"]) for row in rows] == [
        ("a", "n1", False),
        ("away", "n2", True),
        ("b", "n1", False),
        ("zed", "n3", False),
    ]


def test_a_pods_node_is_learnt_from_the_others(tmp_path: Path) -> None:
    """Where no manifest says it; --node goes by it too."""
    asking = Asking(tmp_path)
    unplaced = Pod(namespace="mcp", name="c", uid="u-c", addresses=("100.64.9.8",))
    asking.rig.apply(policy(permit("api.example.com")), pods=(A, unplaced))
    asker, transport = asking.send(command="inventory", node="n2")
    asking.others.answer(
        {"kind": "pod", "namespace": "mcp", "pod": "c", "node": "n2", "policies": [], "lost": False}
    )
    rows = [line["row"] for line in asking.lines(asker, transport)[:-1]]
    assert [(row["pod"], row["node"]) for row in rows] == [("c", "n2")]


def test_who_goes_ends_the_search(asking: Asking) -> None:
    """And a late answer finds nobody."""
    asker, transport = asking.send(command="grants")
    asker.connectionLost()
    assert asking.others.ended == 1
    asking.others.answer(grant_of("n2"))
    assert transport.value() == b""


def test_who_does_not_read_is_ended(asking: Asking) -> None:
    """Other nodes' rows lie here for so long and no longer; who has read them is left alone."""
    asker, transport = asking.send(command="grants")
    asking.others.answer(*[grant_of("n2", address=f"192.0.2.{number}") for number in range(250)])
    asker.resumeProducing()
    ((delay_s, hurry),) = asking.timers
    assert delay_s == READ_WITHIN_S
    assert asking.others.ended == 0
    hurry()
    assert transport.aborting
    asker.connectionLost()
    assert asking.others.ended == 1
    asking.timers.clear()
    asker, transport = asking.send(command="grants")
    asking.others.answer(grant_of("n2"))
    asking.lines(asker, transport)
    asking.timers[0][1]()
    assert not hasattr(transport, "aborting")


def test_followers_hear_all_nodes(asking: Asking) -> None:
    """And warnings; one that does not read, neither; with --node only that one."""
    asker, transport = asking.send(command="blocked", follow=True, raw=True)
    asking.others.answer()
    asker.resumeProducing()
    ((take, warn),) = asking.others.followers
    refused = Refused(
        "lookup",
        "mcp",
        "a",
        "",
        "x.example",
        "A",
        "",
        "",
        None,
        "",
        "",
        "no",
        "blocked",
        1,
        asking.rig.clock(),
    )
    take(grant_of("n2"))
    warn("Redis is lost")
    asking.blocked.add(refused)
    asker.pauseProducing()
    take(grant_of("n2"))
    warn("Redis is back")
    said = [json.loads(line) for line in transport.value().splitlines()]
    assert [list(line) for line in said] == [["row"], ["warning"], ["row"]]
    assert [said[0]["row"]["node"], said[2]["row"]["node"]] == ["n2", "n1"]
    asker.connectionLost()
    assert asking.others.ended == 2
    asker, transport = asking.send(command="blocked", follow=True, node="n2")
    asking.others.answer()
    asker.resumeProducing()
    asking.blocked.add(refused)
    assert transport.value() == b""
