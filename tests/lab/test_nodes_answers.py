"""A pod answered by another node: by its own node's policy, before the answer, and by nobody else's word."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from enforcer.demo import lab as labs
from enforcer.demo import manifests, places, scenes_nodes, shared
from enforcer.demo.flood import Flood, Plan
from enforcer.demo.pods import Pod
from enforcer.demo.processes import LONG_S, wait_until
from enforcer.demo.scenes import Scene, play
from enforcer.demo.scenes_nodes import LOAD_NAMES, LOAD_SERVER, SAID_S, NodesStage
from enforcer.demo.stub import Stub

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def far_load(nodes: NodesStage) -> Pod:
    """A pod of node B that asks a lot, of node A's resolver."""
    pod = nodes.b.add_pod(LOAD_SERVER, 13)
    assert wait_until(lambda: bool(Stub(pod.space, nodes.b.place.node4).ask(LOAD_NAMES[0]).addresses), LONG_S)
    return pod


def test_every_answer_of_another_node_is_open_at_once(
    nodes: NodesStage, far_load: Pod, record_property: Callable[[str, object], None]
) -> None:
    """500 lookups a second through the other node, if it can: none lost, every address reached."""
    flood = Flood(far_load.space, Plan(nodes.a.place.node4, LOAD_NAMES, rate=500, most_open=50))
    try:
        assert wait_until(lambda: flood.counts().asked >= 1000, 2 * LONG_S, 0.05)
        flood.mark()
        assert wait_until(lambda: flood.counts().asked >= 4000, 4 * LONG_S, 0.05)
    finally:
        counts = flood.stop()
    print(counts)
    record_property("far", f"P50 {counts.p50_ms} ms, P99 {counts.p99_ms} ms, longest {counts.max_ms} ms")
    assert counts.lost == 0, counts
    assert counts.unreached == 0, counts
    assert counts.reached == counts.answered, counts


@pytest.mark.parametrize("scene", scenes_nodes.SCENES, ids=lambda scene: scene.name)
def test_scene(nodes: NodesStage, scene: Scene[NodesStage]) -> None:
    """The demo's scenes of the cluster hold in any state that the tests before left."""
    nodes.cluster.world.forget()
    step = play(scene, nodes)
    assert step.ok, step.seen


def test_a_revoked_name_is_not_answered_from_the_other_node_s_memory(nodes: NodesStage) -> None:
    """Node A still permits what B's policy has lost, and has it in its cache: it gives no address."""
    stale = manifests.obot_policy(labs.CRM_SERVER, [places.SHOP])
    stale["metadata"] = {"name": "stale-crm", "namespace": places.NAMESPACE}
    nodes.a.own.put("policy-stale-crm", stale)
    asked = Stub(nodes.crm_b.space, nodes.a.place.node4)
    assert asked.ask(places.SHOP).addresses
    nodes.cluster.set_domains(labs.CRM_SERVER, [name for name in labs.CRM_DOMAINS if name != places.SHOP])
    try:
        assert wait_until(lambda: not nodes.crm_b.connect(places.SITE_OF[places.SHOP][0]).ok, LONG_S)
        assert nodes.crm_a.stub.ask(places.SHOP).addresses
        assert not asked.once(places.SHOP).addresses
        assert not nodes.crm_b.connect(places.SITE_OF[places.SHOP][0]).ok
    finally:
        nodes.cluster.set_domains(labs.CRM_SERVER, labs.CRM_DOMAINS)
    assert wait_until(lambda: bool(asked.ask(places.SHOP).addresses), LONG_S)
    nodes.a.own.remove("policy-stale-crm")


def test_an_old_request_written_again_opens_nothing(nodes: NodesStage) -> None:
    """A recorded request of the other node, replayed after its grant has ended, does nothing."""
    stream = f"{shared.prefix('node-b')}requests"
    asked = nodes.by_a.ask(places.SHORT)
    assert asked.addresses
    entries = json.loads(nodes.cluster.redis("--json", "XREVRANGE", stream, "+", "-", "COUNT", "20"))
    found = next(fields for _, fields in entries if places.SHORT in fields)
    assert wait_until(lambda: not nodes.b.ward.ask("grants", node="node-b", name=places.SHORT), LONG_S, 0.1)
    before = nodes.b.ward.metric("nameward_remote_requests_total")
    nodes.cluster.redis("XADD", stream, "*", *found)
    assert wait_until(lambda: nodes.b.ward.metric("nameward_remote_requests_total") > before, LONG_S)
    assert not nodes.b.ward.ask("grants", node="node-b", name=places.SHORT)
    assert not nodes.ledger.connect(asked.addresses[0]).ok


def test_without_redis_another_node_answers_in_time(nodes: NodesStage) -> None:
    """Cut off from Redis, a node tells other nodes' pods SERVFAIL before they ask again."""
    nodes.cluster.cut(nodes.a)
    try:
        assert wait_until(lambda: nodes.a.ward.status()["redis"] == "lost", SAID_S)
        answer = nodes.by_a.once(places.LEDGER, wait_s=LONG_S)
        print(f"{answer.rcode} after {answer.took_s * 1000:.0f} ms")
        assert answer.rcode == "SERVFAIL", answer
        assert nodes.crm_a.stub.ask(places.CRM).addresses
    finally:
        nodes.cluster.cut(nodes.a, off=False)
    assert wait_until(lambda: nodes.a.ward.status()["redis"] == "up", shared.AGREE_S)
    assert wait_until(lambda: bool(nodes.by_a.ask(places.LEDGER).addresses), LONG_S)
