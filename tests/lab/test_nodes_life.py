"""Pods that move, addresses that two nodes claim, nodes that restart or die: three nodes, one Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from enforcer.demo import lab as labs
from enforcer.demo import network, places, prerequisites, shared
from enforcer.demo.cluster import running
from enforcer.demo.failure import CannotRunHereError
from enforcer.demo.nodes import LabNode
from enforcer.demo.processes import LONG_S, wait_until
from enforcer.demo.scenes import BROKEN
from enforcer.demo.scenes_nodes import NodesStage, set_nodes_stage
from enforcer.demo.stub import Stub

pytestmark = pytest.mark.kernel

MOVING, DISPUTED, TWICE = 30, 31, 32
SEEN_S = 60.0
"""A claim is looked at again every 5 s."""


@pytest.fixture(scope="module")
def three() -> Iterator[NodesStage]:
    """Three nodes that enforce and share a Redis."""
    try:
        prerequisites.require(redis=True)
    except CannotRunHereError as error:
        pytest.skip(str(error))
    with running(3) as cluster:
        made = set_nodes_stage(cluster)
        for node in cluster.nodes:
            node.ward.start()
        yield made


def names(node: LabNode, pod: str) -> set[str]:
    """What a pod holds on a node, by that node's own word."""
    return {row["name"] for row in node.ward.ask("grants", node=node.place.name, pod=pod)}


def problems(node: LabNode) -> str:
    """What the node complains of."""
    return "\n".join(node.ward.status()["problems"])


def test_three_nodes_see_each_other(three: NodesStage) -> None:
    """Each lists all three, enforcing."""
    for node in three.cluster.nodes:

        def seen(node: LabNode = node) -> bool:
            rows = node.ward.ask("status")
            return [row["node"] for row in rows if row["enforcing"]] == ["node-a", "node-b", "node-c"]

        assert wait_until(seen, LONG_S, 0.1), node.ward.ask("status")


def test_an_address_that_moves_takes_nothing_along(three: NodesStage) -> None:
    """A pod goes from B, another gets its address on C: B revokes at once, C's pod has only its own."""
    _, b, c = three.cluster.nodes
    old = b.add_pod(labs.CRM_SERVER, MOVING)
    old.stub = Stub(old.space, b.place.node4)
    address = old.stub.ask(places.CRM).addresses[0]
    transfer = old.transfer(address)
    assert transfer.grows(), transfer.error
    network.lead(three.cluster.world.space, old.addresses, c.place)
    b.remove_pod(old)
    new = c.add_pod(labs.LEDGER_SERVER, MOVING, addresses=old.addresses)
    new.stub = Stub(new.space, c.place.node4)
    assert wait_until(lambda: not names(b, old.name), LONG_S)
    own = new.stub.ask(places.LEDGER)
    assert new.connect(own.addresses[0]).ok
    assert not new.connect(address).ok
    by_a = Stub(new.space, three.a.place.node4).ask(places.SHORT)
    assert by_a.addresses
    assert new.connect(by_a.addresses[0]).ok
    assert names(c, new.name) <= {places.LEDGER, places.SHORT}
    difference = shared.differences(three.cluster)
    assert not difference, difference
    c.remove_pod(new)


def test_a_stale_source_loses_against_the_newer_owner(three: NodesStage) -> None:
    """B's own source still has a pod whose cable is gone; C has it now: B holds nothing for the address."""
    _, b, c = three.cluster.nodes
    old = b.add_pod(labs.CRM_SERVER, MOVING, source=b.own)
    old.stub = Stub(old.space, b.place.node4)
    assert old.stub.ask(places.CRM).addresses
    old.close()
    network.lead(three.cluster.world.space, old.addresses, c.place)
    new = c.add_pod(labs.LEDGER_SERVER, MOVING, addresses=old.addresses, source=c.own)
    new.stub = Stub(new.space, c.place.node4)
    assert new.stub.ask(places.LEDGER).addresses
    assert wait_until(lambda: not names(b, old.name), SEEN_S), names(b, old.name)
    assert new.stub.ask(places.LEDGER).addresses
    assert "claimed" not in problems(c)
    del b.pods[old.name]
    b.own.remove(f"pod-{old.name}")
    c.remove_pod(new)


def test_two_nodes_that_claim_one_address_both_deny_it_and_say_so(three: NodesStage) -> None:
    """B and C each have a pod at one address; who asks A is refused, both say why, until one goes."""
    a, b, c = three.cluster.nodes
    first = b.add_pod(labs.LEDGER_SERVER, DISPUTED, source=b.own)
    second = c.add_pod(labs.LEDGER_SERVER, DISPUTED, addresses=first.addresses, source=c.own)
    told = (b.own.path / f"pod-{first.name}.yaml").read_text()
    a.own.put("told", yaml.safe_load(told))
    try:
        both = wait_until(lambda: all(first.addresses[0] in problems(node) for node in (b, c)), SEEN_S, 0.1)
        assert both, [problems(node) for node in (b, c)]
        by_a = Stub(first.space, a.place.node4)
        answer = by_a.once(places.LEDGER)
        assert not answer.addresses, answer
    finally:
        c.remove_pod(second)
    ended = wait_until(lambda: first.addresses[0] not in problems(b), SEEN_S, 0.1)
    assert ended, problems(b)
    answered = wait_until(lambda: bool(by_a.once(places.LEDGER).addresses), SEEN_S, 0.1)
    assert answered
    a.own.remove("told")
    b.remove_pod(first)


def test_one_source_that_has_an_address_twice_denies_both(three: NodesStage) -> None:
    """Where the manifests themselves give one address to two pods, no node answers either."""
    a, b, c = three.cluster.nodes
    first = b.add_pod(labs.LEDGER_SERVER, TWICE)
    assert Stub(first.space, b.place.node4).ask(places.LEDGER).addresses
    second = c.add_pod(labs.CRM_SERVER, TWICE, addresses=first.addresses)

    def refused() -> bool:
        answer = Stub(first.space, b.place.node4).once(places.SHORT, wait_s=1.0)
        return not answer.addresses

    assert wait_until(refused, LONG_S)
    assert wait_until(lambda: not b.ward.grants(first.name), LONG_S), "what was open stayed open"
    for node in (a, b, c):
        said = f"{first.addresses[0]} is claimed by several pods"
        assert wait_until(lambda node=node, said=said: said in problems(node), LONG_S), problems(node)
    for pod, own, name in ((first, b, places.LEDGER), (second, c, places.CRM)):
        for server in (own.place.node4, a.place.node4):
            answer = Stub(pod.space, server).once(name, wait_s=1.0)
            assert not answer.addresses, (pod.name, server, answer)
    c.remove_pod(second)
    b.remove_pod(first)


@pytest.mark.parametrize("redis", ["there", "killed", "empty"])
def test_a_restarted_node_forgets_no_name(three: NodesStage, redis: str) -> None:
    """The whole daemon of B stops and starts: grants, names and rules are back, with Redis or without."""
    b, store = three.b, three.cluster.store
    assert three.ledger.stub.ask(places.LEDGER).addresses
    rows = b.ward.ask("grants", node="node-b", pod=three.ledger.name, name=places.LEDGER)
    if redis == "killed":
        store.kill()
    elif redis == "empty":
        three.cluster.redis("FLUSHALL")
    try:
        b.ward.stop()
        b.ward.start()
        after = b.ward.ask("grants", node="node-b", pod=three.ledger.name, name=places.LEDGER)
        assert {(row["address"], row["rule"], row["policy"]) for row in after} == {
            (row["address"], row["rule"], row["policy"]) for row in rows
        }
        assert three.ledger.connect(rows[0]["address"]).ok
    finally:
        if redis == "killed":
            store.start()
    difference = shared.differences(three.cluster)
    assert not difference, difference


def test_a_node_that_dies_is_lost_for_the_others_and_back_when_it_is(three: NodesStage) -> None:
    """Its records end by themselves, its grants are never shown as live; a new start is a new session."""
    a, b, c = three.cluster.nodes
    assert three.ledger.stub.ask(places.LEDGER).addresses
    assert not shared.differences(three.cluster)
    b.die()

    def lost(asked: LabNode) -> bool:
        rows = asked.ward.ask("status")
        return any(row["node"] == "node-b" and row.get("lost") for row in rows)

    for node in (a, c):
        assert wait_until(lambda node=node: lost(node), LONG_S, 0.2), node.ward.ask("status")
        live = [row for row in node.ward.ask("grants") if row["node"] == "node-b" and not row.get("lost")]
        assert not live
    answer = three.by_a.once(places.LEDGER)
    assert not answer.addresses
    b.ward.start()

    def shown() -> bool:
        try:
            return a.ward.status("node-b")["enforcing"] is True and not lost(a)
        except BROKEN:
            return False

    assert wait_until(shown, LONG_S, 0.1), a.ward.ask("status")
    assert wait_until(lambda: bool(three.by_a.ask(places.LEDGER).addresses), LONG_S)
