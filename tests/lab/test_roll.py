"""A DaemonSet's roll: two pods of one node, each an enforcer and a resolver, and lookups all the while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enforcer.demo import places
from enforcer.demo.flood import Flood, Plan
from enforcer.demo.processes import LONG_S, wait_until
from enforcer.demo.scenes import Stage
from tests.lab.agents import AgentPod, configured, flooded, goes_on, none_is_lost
from tests.lab.staged import staged

pytestmark = pytest.mark.kernel

Add = Callable[..., AgentPod]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """The lab, without a Nameward of its own."""
    with staged() as made:
        yield made


@pytest.fixture
def add(stage: Stage, tmp_path: Path) -> Iterator[Add]:
    """Adds pods of the DaemonSet to the node."""
    made: list[AgentPod] = []

    def one(name: str, processes: int = 1) -> AgentPod:
        config = configured(stage.lab.ward, processes=processes)
        made.append(AgentPod(stage.lab.node, tmp_path / name, config))
        return made[-1]

    yield one
    for pod in made:
        pod.stop()


def test_a_roll_loses_no_lookup_and_opens_nothing(stage: Stage, add: Add) -> None:
    """The new pod is ready, the old one ends, again and again."""
    pod = add("pod-0")
    pod.await_ready()
    flood = flooded(stage)
    transfer = stage.crm.transfer(stage.crm.stub.ask(places.CRM).addresses[0])
    for number in range(1, 4):
        successor = add(f"pod-{number}")
        successor.await_ready()
        enforcer_said = pod.says("enforcer")
        assert enforcer_said is not None
        assert enforcer_said.live
        assert not enforcer_said.ready
        assert "handed over" in enforcer_said.said
        goes_on(flood)
        pod.stop()
        goes_on(flood, 0.5)
        assert not stage.crm.connect(places.ATTACKER4).ok
        pod = successor
    assert transfer.grows(), transfer.error
    transfer.close()
    assert stage.crm.stub.ask(places.DROP).rcode == "NXDOMAIN"
    none_is_lost(flood.stop())


def test_one_container_of_a_pod_may_be_killed(stage: Stage, add: Add) -> None:
    """The other lives on, the resolver with the sockets it was given: the pod is ready again, and answers."""
    pod = add("pod")
    pod.await_ready()
    for part in ("enforcer", "resolver", "enforcer"):
        pod.replace(part)
        pod.await_ready()
        assert wait_until(lambda: stage.crm.stub.ask(places.CRM).rcode == "NOERROR", LONG_S, 0.1)
        assert stage.crm.connect(stage.crm.stub.ask(places.CRM).addresses[0]).ok
        assert stage.crm.stub.ask(places.DROP).rcode == "NXDOMAIN"


def test_a_successor_that_dies_gives_the_node_back(stage: Stage, add: Add) -> None:
    """The old pod's enforcer enforces again, with the sockets that it kept; nothing opens meanwhile."""
    old = add("old")
    old.await_ready()
    flood = flooded(stage)
    new = add("new")
    new.await_ready()
    new.kill()
    old.await_ready()
    goes_on(flood)
    assert not stage.crm.connect(places.ATTACKER4).ok
    counts = flood.stop()
    assert counts.lost == counts.unreached == 0, counts  # what the killed resolver had read is asked again


def test_an_end_without_a_successor_leaves_the_rules(stage: Stage, add: Add) -> None:
    """SIGTERM is no uninstallation: who cannot ask can reach nothing new."""
    pod = add("pod")
    pod.await_ready()
    pod.stop()
    assert not stage.crm.connect(places.ATTACKER4).ok
    assert not stage.ledger.connect(places.SITE_OF[places.CRM][0]).ok


def test_a_roll_to_more_resolvers_and_to_fewer_loses_no_lookup(stage: Stage, add: Add) -> None:
    """One process's sockets become those of several, and of one again: pods are answered all the while."""
    pod = add("one", processes=1)
    pod.await_ready()
    flood = flooded(stage)
    other = Flood(
        stage.ledger.space, Plan(places.CLUSTER_DNS, [places.LEDGER], rate=50, most_open=50, port=443)
    )
    for name, processes in (("two", 2), ("three", 3), ("one-again", 1)):
        successor = add(name, processes=processes)
        successor.await_ready()
        goes_on(flood)
        pod.stop()
        goes_on(flood, 0.5)
        pod = successor
    counts = other.stop()
    assert counts.answered > 100
    none_is_lost(counts)
    none_is_lost(flood.stop())


def test_one_container_of_a_pod_with_two_resolvers_may_be_killed(stage: Stage, add: Add) -> None:
    """Sockets that are opened beside those that live on are read, by whichever of the two."""
    pod = add("pod", processes=2)
    pod.await_ready()
    for part in ("enforcer", "resolver", "enforcer"):
        pod.replace(part)
        pod.await_ready()
        assert wait_until(lambda: stage.crm.stub.ask(places.CRM).rcode == "NOERROR", LONG_S, 0.1)
        assert wait_until(lambda: stage.ledger.stub.ask(places.LEDGER).rcode == "NOERROR", LONG_S, 0.1)
