"""Reports of a node, on the real API server, with nothing but what the chart permits an agent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from enforcer.blocked import BlockedRecords, Refused
from enforcer.kube.client import Api
from enforcer.reports import events
from enforcer.reports.node_status import API_VERSION
from enforcer.reports.service import Reports
from enforcer.reports.told import NodeTold
from policy.pods import Pod
from policy.rules import Destination, Policy, Rule
from policy.snapshot import Snapshot, compile_snapshot
from policy.world import World
from tests.cluster.charted import NODE_STATUSES, RELEASE, SPACE, install
from tests.cluster.real import RealApi, account
from tests.enforcer.rig import KeptRecords
from tests.reports.reactor import FakeReactor

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
NODE = "reports-node"


@pytest.fixture(scope="module")
def agent(guarded: RealApi) -> Api:
    """The door of the chart's agent, with the token of its pod on the node."""
    install(guarded, "agent-rbac")
    guarded.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "agent-of-reports", "namespace": SPACE},
        "spec": {
            "serviceAccountName": f"{RELEASE}-agent",
            "nodeName": NODE,
            "containers": [{"name": "c", "image": "none"}],
        },
    }
    guarded.apply(account(SPACE, f"{RELEASE}-agent"), body)
    return Api(guarded.as_account(SPACE, f"{RELEASE}-agent", pod="agent-of-reports"))


class Ward:
    """Reports of one node with one pod, whose seconds pass as the test looks."""

    def __init__(self, door: Api, pod: Pod) -> None:
        self.reactor, self.records, self.blocked = FakeReactor(), KeptRecords(), BlockedRecords(100)
        self.at = 1000.0
        self.row: Json = {"version": "1", "enforcing": True, "problems": [], "pods": 1, "generation": 1}
        rule = Rule(name="r", action="permit", destinations=(Destination(kind="public"),))
        policy = Policy(
            namespace=pod.namespace, name="p", kind="FirewallPolicy", rules=(rule,), uid="uid-p", generation=3
        )
        self.snapshot: Snapshot = compile_snapshot(World(generation=1, pods=(pod,), policies=(policy,)))
        self.failures: list[object] = []
        self.reports = Reports(
            reactor=self.reactor,  # type: ignore[arg-type]
            door=door,
            node=NODE,
            told=NodeTold(NODE, lambda: self.row, lambda: self.snapshot, lambda: False),
            blocked=self.blocked,
            records=self.records,
            events_per_hour=60,
            failed=self.failures.append,
            seconds=lambda: self.at,
        )
        self.reports.start()

    def until(self, holds: Callable[[], object], look_s: float = 1.0) -> None:
        """Look until it holds; so many seconds pass from look to look."""
        deadline = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < deadline, self.records.told
            assert not self.failures
            self.reports.look()
            self.reactor.run()
            self.at += look_s
            time.sleep(0.02)

    def refuse(self, name: str, times: int = 1) -> None:
        """A lookup that was refused, long enough ago."""
        [pod] = self.snapshot.world.pods
        self.blocked.add(
            Refused(
                "lookup", pod.namespace, pod.name, "", name, "A", "", "", None, "", "",
                f"no rule permits {name} for {pod.key}", "blocked", times, self.at - events.GATHER_S,
            )
        )  # fmt: skip


@pytest.fixture
def ward(guarded: RealApi, agent: Api) -> Iterator[Ward]:
    """Running reports, with a pod that the API server knows."""
    space = guarded.namespace("reports")
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "server", "namespace": space},
        "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "none"}]},
    }
    guarded.apply(body)
    uid = guarded.get("pod", "server", "-n", space)["metadata"]["uid"]
    made = Ward(agent, Pod(namespace=space, name="server", uid=uid, addresses=(), node=NODE))
    yield made
    made.reports.stop()


def test_a_node_writes_its_status(guarded: RealApi, ward: Ward) -> None:
    """As the schema has it, owned by its Node; then a change; then again, if somebody deletes it."""
    admin = guarded.admin
    path = f"{NODE_STATUSES}/{NODE}"

    def stored() -> Json:
        found = [each for each in admin.list(NODE_STATUSES).items if each["metadata"]["name"] == NODE]
        return found[0] if found else {}

    ward.until(stored)
    written = stored()
    assert written["apiVersion"] == API_VERSION
    [owner] = written["metadata"]["ownerReferences"]
    assert owner["uid"] == guarded.get("node", NODE)["metadata"]["uid"]
    assert written["status"]["enforcing"] is True
    [policy] = written["status"]["policies"]
    assert (policy["name"], policy["uid"], policy["generation"], policy["pods"]) == ("p", "uid-p", 3, 1)
    ward.row = {**ward.row, "enforcing": False, "problems": ["x" * 2000] * 30}
    ward.until(lambda: stored()["status"]["enforcing"] is False)
    assert len(stored()["status"]["problems"]) == 8
    admin.delete(path)
    ward.until(stored, look_s=100.0)
    assert stored()["status"]["enforcing"] is False
    assert ward.reports.problems == ()


def test_steady_state_writes_nothing(guarded: RealApi, agent: Api, ward: Ward) -> None:
    """Ten minutes of looking: no request after the first write."""
    ward.until(lambda: ward.at > 1020 and not ward.reports._is_busy)
    assert not ward.reports.problems
    before = agent.requests
    for _ in range(600):
        ward.reports.look()
        ward.reactor.run()
        ward.at += 1.0
    assert agent.requests == before


def test_describe_pod_explains_a_failing_server(guarded: RealApi, agent: Api, ward: Ward) -> None:
    """``kubectl describe pod`` shows the Event, and the same hour has one, whoever asks again."""
    ward.refuse("drop.example.net", 3)
    ward.until(lambda: ward.reports.outcomes["written"] == 1)
    [pod] = ward.snapshot.world.pods
    described = guarded.kubectl("describe", "pod", "server", "-n", pod.namespace)
    assert "LookupRefused" in described
    assert "Nameward refused lookups of drop.example.net (3). Why: no rule permits" in described
    other = Ward(agent, pod)
    other.refuse("drop.example.net")
    try:
        other.until(lambda: sum(other.reports.outcomes.values()))
    finally:
        other.reports.stop()
    assert other.reports.outcomes["known"] + other.reports.outcomes["written"] == 1
    assert len(guarded.get("events", "-n", pod.namespace)["items"]) == 1 + other.reports.outcomes["written"]


def test_without_a_permission_it_is_a_problem(guarded: RealApi, ward: Ward) -> None:
    """Another account: the sentence says what is forbidden; Events that nobody wants are dropped."""
    space = guarded.namespace("powerless")
    [pod] = ward.snapshot.world.pods
    powerless = Ward(Api(guarded.as_account(space, "default")), pod)
    powerless.refuse("drop.example.net")
    try:
        powerless.until(lambda: powerless.reports.problems and powerless.reports.outcomes["failed"])
    finally:
        powerless.reports.stop()
    assert "403" in powerless.reports.problems[0]
