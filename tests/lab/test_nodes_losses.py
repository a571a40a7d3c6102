"""Losing Redis costs the sharing and nothing else: each loss under 2,000 lookups a second, counted.

Latencies are printed and recorded with the test, never asserted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

import pytest

from enforcer.demo import places, prerequisites, shared
from enforcer.demo.cluster import running
from enforcer.demo.failure import CannotRunHereError
from enforcer.demo.nodes import LabNode
from enforcer.demo.ordeal import Endured, endure
from enforcer.demo.processes import LONG_S, wait_until
from enforcer.demo.scenes_nodes import SAID_S, NodesStage, set_nodes_stage
from enforcer.demo.shapes import PASSWORD, Shape, as_cluster, behind_a_wire, over_tls, under_sentinel

pytestmark = pytest.mark.kernel

Record = Callable[[str, object], None]


class Loss(NamedTuple):
    """One way to lose Redis, and its end. ``heard``: what status of node A has to say of it meanwhile."""

    name: str
    strike: Callable[[NodesStage], object]
    mend: Callable[[NodesStage], object] = lambda _stage: None
    heard: str = "lost"
    because: str = ""


def restart(stage: NodesStage) -> None:
    """Killed, and back at once without a key."""
    stage.cluster.store.kill()
    stage.cluster.store.start()


LOSSES = (
    Loss(
        "killed",
        lambda stage: stage.cluster.store.kill(),
        lambda stage: stage.cluster.store.start(),
        because="is not running there",
    ),
    Loss(
        "frozen",
        lambda stage: stage.cluster.store.freeze(),
        lambda stage: stage.cluster.store.thaw(),
        because="no answer",
    ),
    Loss(
        "full",
        lambda stage: stage.cluster.redis("CONFIG", "SET", "maxmemory", "1mb"),
        lambda stage: stage.cluster.redis("CONFIG", "SET", "maxmemory", "0"),
        because="is full",
    ),
    Loss("flushed", lambda stage: stage.cluster.redis("FLUSHALL"), heard="up"),
    Loss("restarted empty", restart, heard=""),
    Loss(
        "wrong password",
        lambda stage: stage.cluster.shared.set_password("another"),
        lambda stage: stage.cluster.shared.set_password(PASSWORD),
        because="assword",
    ),
    Loss(
        "cut off from one node",
        lambda stage: stage.cluster.cut(stage.a),
        lambda stage: stage.cluster.cut(stage.a, off=False),
        because="no answer",
    ),
)


def check(endured: Endured, stage: NodesStage, record: Record) -> None:
    """0 lookups lost, 0 packets leaked, 0 flows broken; what is wrong is said; the truth again afterwards."""
    print(endured.told())
    record("endured", endured.told())
    assert endured.toll.nothing_lost, endured.told()
    assert endured.said_s is not None, endured.told()
    assert not endured.difference, endured.difference
    for node in stage.cluster.nodes:
        up = wait_until(lambda node=node: node.ward.status()["redis"] == "up", shared.AGREE_S)
        assert up, node.ward.status()


@contextmanager
def shaped(shape: Shape) -> Iterator[NodesStage]:
    """Two nodes that enforce and share a Redis of that shape."""
    try:
        prerequisites.require(redis=True)
    except CannotRunHereError as error:
        pytest.skip(str(error))
    with running(2, shape) as cluster:
        stage = set_nodes_stage(cluster)
        for node in cluster.nodes:
            node.ward.start()
        assert not (said := shared.differences(cluster)), said
        yield stage


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_local_lookups_and_flows_go_on(nodes: NodesStage, loss: Loss, record_property: Record) -> None:
    """Whatever Redis does, nobody on the node notices."""
    endured = endure(
        nodes, lambda: loss.strike(nodes), lambda: loss.mend(nodes), loss.heard, because=loss.because
    )
    if loss.heard:
        assert endured.redis_up == (loss.heard == "up"), endured.told()
    check(endured, nodes, record_property)


def test_an_expired_certificate_is_a_loss_like_any_other(record_property: Record) -> None:
    """Redis comes back with a certificate that has expired: said so, until it has a good one."""
    with shaped(over_tls) as stage:
        store = stage.cluster.store

        def restart_with(*, expired: bool) -> None:
            assert store.certificates is not None
            store.kill()
            store.certificates.issue("server", expired=expired)
            store.start()

        endured = endure(
            stage,
            lambda: restart_with(expired=True),
            lambda: restart_with(expired=False),
            because="expired",
        )
        check(endured, stage, record_property)


def test_a_slow_redis_is_no_loss(record_property: Record) -> None:
    """200 ms a call: everything goes on, is shared a little later, and nobody calls Redis lost."""
    with shaped(behind_a_wire) as stage:
        wire = stage.cluster.shared.wire
        assert wire is not None

        def slow() -> None:
            wire.each_way_s = 0.1

        def fast() -> None:
            said = shared.differences(stage.cluster)
            assert not said, f"while it is slow: {said}"
            wire.each_way_s = 0.0

        endured = endure(stage, slow, fast, heard="up", during_s=4.0)
        assert endured.problems == []
        check(endured, stage, record_property)


def test_a_failover_is_a_loss_that_ends_by_itself(record_property: Record) -> None:
    """The master dies, the replica becomes the master: the nodes find it and write everything there."""
    with shaped(under_sentinel) as stage:
        trio = stage.cluster.shared.trio
        assert trio is not None
        first = trio.master_port()

        def failed_over() -> None:
            assert wait_until(lambda: trio.master_port() != first, 2 * LONG_S, 0.1)
            stage.cluster.shared.store = trio.master()

        endured = endure(stage, trio.master().kill, failed_over)
        check(endured, stage, record_property)


def test_a_redis_cluster_is_shared_by_two_nodes(record_property: Record) -> None:
    """Each node's keys lie together, on one of three masters; one of them dies, and comes back empty."""
    with shaped(as_cluster) as stage:
        ring = stage.cluster.shared.ring
        assert ring is not None
        stage.crm_a.stub.ask(places.CRM)
        assert wait_until(lambda: bool(stage.by_a.ask(places.LEDGER).addresses), LONG_S)
        assert not (said := shared.differences(stage.cluster)), said
        homes = {}
        for node in stage.cluster.nodes:
            pattern = f"{shared.prefix(node.place.name)}*"
            [home] = [server for server in ring.servers if server.cli("--scan", "--pattern", pattern)]
            homes[node.place.name] = home
        for node in stage.cluster.nodes:
            rows = node.ward.ask("status")
            assert [(row["node"], row["redis"]) for row in rows] == [("node-a", "up"), ("node-b", "up")]
            assert {row["node"] for row in node.ward.ask("grants")} == {"node-a", "node-b"}
            assert not node.ward.warned
        home = homes["node-a"]
        check(endure(stage, home.kill, home.start), stage, record_property)
        assert wait_until(lambda: bool(stage.by_a.ask(places.LEDGER).addresses), SAID_S)


def test_the_log_says_lost_and_back(nodes: NodesStage) -> None:
    """One record each, with node, instant and what to do."""
    before = len(log_of(nodes.a))
    nodes.cluster.store.kill()
    try:
        assert wait_until(lambda: nodes.a.ward.status()["redis"] == "lost", SAID_S)
    finally:
        nodes.cluster.store.start()
    assert wait_until(lambda: nodes.a.ward.status()["redis"] == "up", shared.AGREE_S)
    lost, *_, back = log_of(nodes.a)[before:]
    assert (lost["event"], lost["level"], lost["node"]) == ("redis.lost", "warning", "node-a")
    assert lost["reason"].startswith(f"Redis at {places.STORE4}:6379 ")
    assert (back["event"], back["level"], back["node"]) == ("redis.back", "info", "node-a")
    assert datetime.fromisoformat(lost["at"]) <= datetime.fromisoformat(back["at"])


def log_of(node: LabNode) -> list[dict[str, Any]]:
    """What a node's log says of Redis."""
    records = map(json.loads, node.ward.log.read_text().splitlines())
    return [record for record in records if str(record["event"]).startswith("redis.")]


def test_a_cut_costs_one_node_only(nodes: NodesStage) -> None:
    """While A cannot reach Redis, B can: B says up, and shows A as lost once its records have ended."""
    nodes.cluster.cut(nodes.a)
    try:
        assert wait_until(lambda: nodes.a.ward.status()["redis"] == "lost", SAID_S)
        assert wait_until(lambda: nodes.b.ward.status()["redis"] == "up", LONG_S)
        rows = nodes.a.ward.ask("status")
        assert [row["node"] for row in rows] == ["node-a"]
        assert any("lost" in warning for warning in nodes.a.ward.warned), nodes.a.ward.warned

        def a_is_lost() -> bool:
            return any(row["node"] == "node-a" and row.get("lost") for row in nodes.b.ward.ask("status"))

        assert wait_until(a_is_lost, LONG_S, 0.2), nodes.b.ward.ask("status")
        assert not [
            row for row in nodes.b.ward.ask("grants") if row["node"] == "node-a" and not row.get("lost")
        ]
    finally:
        nodes.cluster.cut(nodes.a, off=False)
    assert not (said := shared.differences(nodes.cluster)), said
