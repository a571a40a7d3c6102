"""What may be beside a node on one Redis: another release, another cluster, a clock that is minutes off."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from enforcer.asked import Request, order
from enforcer.demo.stores import Store
from enforcer.inspection import Inspection
from enforcer.sharing.records.seal import Keyring, seal
from policy.runtime.clock import wall_now
from policy.runtime.redis_url import parse_redis_url
from tests.sharing.shown import SharingNode, Turns

KEY = "the key of the cluster"
POD4, POD6 = "10.244.0.10", "fd44::10"
OFF_S = 420.0
APART_S = 20.0
"""Instants so close are the same, on a slow machine; clocks that are off are minutes apart."""

Make = Callable[..., SharingNode]


@pytest.fixture
def turns() -> Turns:
    """The loop of all nodes."""
    return Turns()


@pytest.fixture
def make(lasting_store: Store, tmp_path: Path, turns: Turns) -> Iterator[Make]:
    """Starts nodes on one Redis."""
    lasting_store.cli("flushall")
    (tmp_path / "keys").mkdir()
    for name in ("current", "previous"):
        (tmp_path / "keys" / name).write_text(KEY)
    lasting_store.set_password("a-password")
    (tmp_path / "redis-password").write_text("a-password")
    place, made = parse_redis_url(lasting_store.unix_url), []

    def node(name: str, **more: Any) -> SharingNode:
        made.append(SharingNode(turns, place, tmp_path, name, f"{len(made):08x}", **more))
        made[-1].start()
        return made[-1]

    yield node
    for each in made:
        each.stop()
    lasting_store.set_password("")


def with_a_pod(node: SharingNode, name: str = "crm-1") -> SharingNode:
    """A node that has a pod, a grant and a refusal, all of it in Redis."""
    node.add_pod(name, (POD4, POD6), "crm")
    node.grant(POD4, "203.0.113.7", "crm.example.com", "crm")
    node.refuse(name, POD4, "drop.example.net", 2)
    node.settle()
    return node


def rows(node: SharingNode, command: str, **request: Any) -> list[dict[str, Any]]:
    """What a node shows of the others."""
    parts = node.found(command=command, **request).parts
    return sorted((row for part in parts for row in part), key=order(command))


def soon(node: SharingNode, command: str) -> list[dict[str, Any]]:
    """The same, once there is something: pods and refusals are written at their pace."""
    found: list[dict[str, Any]] = []
    until_at = time.monotonic() + 60.0
    while not found and time.monotonic() < until_at:
        found = rows(node, command)
    return found


def resealed(store: Store, key: str, **fields: str) -> None:
    """Write a record as a later release would, with the key of the cluster."""
    words = store.cli("hgetall", key).split("\n")
    whole = dict(zip(words[::2], words[1::2], strict=True)) | fields
    said = {name.encode(): value.encode() for name, value in whole.items() if name != "mac"}
    mac = seal(Keyring(KEY.encode()), key.encode(), said).decode()
    store.cli("hset", key, "mac", mac, *(part for pair in fields.items() for part in pair))


def test_a_release_that_says_more_is_understood(make: Make, lasting_store: Store) -> None:
    """Fields that this release does not know are kept, are under the seal, and change nothing."""
    a, b = with_a_pod(make("node-a")), make("node-b")
    key = f"nameward:prod:{{node-a}}:grant:{POD4}:203.0.113.7:tcp:443"
    resealed(lasting_store, key, later="something", another="thing")
    [row] = rows(b, "grants")
    assert (row["name"], row["lost"]) == ("crm.example.com", False)
    lasting_store.cli("hset", key, "later", "something else")
    assert rows(b, "grants") == []
    assert b.view.doubts["mac"] == 1
    a.grant(POD4, "203.0.113.7", "crm.example.com", "crm", lasts_s=200.0)
    a.settle()
    assert lasting_store.cli("hget", key, "another") == "thing"


def test_a_release_with_another_form_is_not_read_and_counted(make: Make, lasting_store: Store) -> None:
    """Its records count for nothing here, and do not disturb those of the others."""
    with_a_pod(make("node-a"))
    c = make("node-c")
    b = make("node-b")
    key = f"nameward:prod:{{node-a}}:grant:{POD4}:203.0.113.7:tcp:443"
    resealed(lasting_store, key, v="2")
    assert rows(b, "grants") == []
    assert b.view.doubts["version"] == 1
    c.stop()
    resealed(lasting_store, "nameward:prod:{node-c}:node", v="2")
    found = b.found(command="status")
    state = {row["node"]: (row["lost"], row["problems"]) for part in found.parts for row in part}
    assert state["node-a"] == (False, [])
    assert state["node-c"][0]
    assert "is of another version" in state["node-c"][1][0]
    assert any("version 1" in warning for warning in found.warnings)


def test_two_clusters_on_one_redis_do_not_meet(make: Make, lasting_store: Store) -> None:
    """The same key, the same names of nodes: neither sees the other, nor takes its records for its own."""
    mine = with_a_pod(make("node-a"))
    other = with_a_pod(make("node-a", cluster="staging"), "other-1")
    looks = {"prod": make("node-b"), "staging": make("node-b", cluster="staging")}
    for cluster, pod in (("prod", "crm-1"), ("staging", "other-1")):
        assert [row["node"] for row in rows(looks[cluster], "status")] == ["node-a"]
        assert [row["pod"] for row in rows(looks[cluster], "grants")] == [pod]
        for command in ("inventory", "blocked"):
            assert {row["pod"] for row in soon(looks[cluster], command)} == {pod}
    tail = f"{{node-a}}:grant:{POD4}:203.0.113.7:tcp:443"
    lasting_store.cli("copy", f"nameward:staging:{tail}", f"nameward:prod:{tail}", "replace")
    assert rows(looks["prod"], "grants") == []
    assert looks["prod"].view.doubts["mac"] == 1
    mine.remove_pod("crm-1")
    mine.settle()
    assert [row["pod"] for row in rows(looks["staging"], "grants")] == ["other-1"]
    assert other.troubles == []


@pytest.mark.parametrize("off_s", [OFF_S, -OFF_S], ids=["behind", "ahead"])
def test_clocks_may_differ_by_minutes(make: Make, off_s: float) -> None:
    """What is left of a grant, and when something was refused, is right by the clock of who asks."""
    a = with_a_pod(make("node-a", ago=lambda before_s: wall_now(before_s + off_s)))
    b = make("node-b")
    [row] = rows(b, "grants")
    here = next(Inspection("node-a", a.ledger, a.blocked, lambda: None, dict).rows(
        Request("grants"), time.monotonic()
    ))  # fmt: skip
    assert abs(row["remainingSeconds"] - here["remainingSeconds"]) < APART_S
    assert abs(seconds(row["expiresAt"]) - seconds(here["expiresAt"])) < APART_S
    [refused] = soon(b, "blocked")
    assert abs(seconds(refused["lastSeen"]) - seconds(wall_now(0.0))) < 2 * APART_S
    assert len(rows(b, "blocked", since_s=60.0)) == 1
    assert [row["lost"] for row in rows(b, "status")] == [False]


def seconds(instant: str) -> float:
    """An instant as a number."""
    return datetime.fromisoformat(instant).timestamp()


@pytest.mark.parametrize("source", [POD4, POD6])
def test_ports_are_the_same_from_either_node(make: Make, source: str) -> None:
    """One port, a range and every port, in both families: another node's rows are those of its own."""
    a, b = make("node-a"), make("node-b")
    a.add_pod("crm-1", (POD4, POD6), "crm")
    base = "203.0.113." if source == POD4 else "2001:db8::"
    for number, ports in enumerate(((443, 443), (8000, 8100), (0, 65535)), start=1):
        a.grant(source, f"{base}{number}", "crm.example.com", "crm", ports=ports)
    a.settle()
    here = Inspection("node-a", a.ledger, a.blocked, lambda: None, dict)
    own = here.rows(Request("grants"), time.monotonic())
    fields = ("podIP", "address", "protocol", "port", "name", "policy", "rule", "uid")
    shown = {tuple(row[field] for field in fields) for row in rows(b, "grants")}
    assert shown == {tuple(row[field] for field in fields) for row in own}
    assert {443, "8000-8063", "any"} <= {row[3] for row in shown}
