"""The source ``kubernetes`` on a real API server, as the service account that the chart gives the agents."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from enforcer.demo.failure import CannotRunHereError
from enforcer.kube.client import Api
from enforcer.sources.kubernetes.cluster import Place
from enforcer.sources.kubernetes.saved import Origin, SavedCopy
from enforcer.sources.kubernetes.source import KubernetesSource
from policy.manifest import GovernedNamespaces
from tests.cluster import charted
from tests.cluster.charted import POLICIES, SPACE
from tests.cluster.real import RealApi
from tests.kube.following import Loop, Told
from tests.kube.script import eventually

pytestmark = pytest.mark.cluster

GOVERNED = {"nameward.dev/governed": "true"}
NODE = "node-of-this-test"
AGENT = f"{charted.RELEASE}-agent"
Open = Callable[..., Told]


@pytest.fixture(scope="module")
def agents() -> Iterator[RealApi]:
    """An API server of the module's own, with the agents' account and its roles.

    Policies that other tests leave in the session's would change what a source asks for.
    """
    try:
        started = RealApi().start()
    except CannotRunHereError as error:
        pytest.skip(str(error))
    try:
        charted.install_kinds(started)
        charted.install(started, "agent-rbac")
        yield started
    finally:
        started.stop()


@pytest.fixture
def follow(agents: RealApi, tmp_path: Path) -> Iterator[Open]:
    """Start sources as the agents' account; they end with the test."""
    started: list[Told] = []

    def start(api: RealApi = agents, **place: Any) -> Told:
        door = Api(api.as_account(SPACE, AGENT), timeout_s=10.0)
        wanted = Place(NODE, GovernedNamespaces(match_labels=GOVERNED), **place)
        saved = SavedCopy(tmp_path / "cluster.json", Origin("boot", NODE, "default", api.server))
        told = Told(lambda fail: KubernetesSource(Loop(), door, wanted, saved, fail))
        started.append(told)
        return told

    yield start
    for told in started:
        told.source.stop()
        assert told.failures == []


def policy(name: str, domain: str = "api.example.com") -> dict[str, Any]:
    """A FirewallPolicy for pods with the label ``app`` of its name."""
    return {
        "apiVersion": "networking.aviatrix.com/v1alpha1",
        "kind": "FirewallPolicy",
        "metadata": {"name": name},
        "spec": {
            "smartGroups": [{"name": "any", "selectors": [{"cidr": "0.0.0.0/0"}]}],
            "webGroups": [{"name": "web", "domains": [domain]}],
            "rules": [
                {
                    "name": "permit",
                    "selector": {"matchLabels": {"app": name}},
                    "action": "permit",
                    "protocol": "tcp",
                    "port": 443,
                    "destinationSmartGroups": [{"name": "any"}],
                    "webGroups": [{"name": "web"}],
                }
            ],
        },
    }


def pod(name: str, **spec: Any) -> dict[str, Any]:
    """A pod of this test's node."""
    container = {"name": "c", "image": "i"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"nodeName": NODE, "containers": [container], **spec},
    }


def names(told: Told, namespace: str) -> dict[str, tuple[str, ...]]:
    """Addresses by name of a namespace's pods."""
    found = told.last.loaded.pods if told.last is not None else ()
    return {each.name: each.addresses for each in found if each.namespace == namespace}


def permitted(told: Told, namespace: str) -> set[str]:
    """The names that the namespace's policies permit."""
    found = told.last.loaded.policies if told.last is not None else ()
    rules = [rule for each in found if each.namespace == namespace for rule in each.rules]
    return {name for rule in rules for name in rule.web_groups or ()}


def test_what_kubernetes_says_is_followed(agents: RealApi, follow: Open) -> None:
    """With exactly the chart's verbs: a policy, its edit, a pod's address, its end, and theirs."""
    api, space = agents.admin, agents.namespace("followed", labels=GOVERNED)
    told = follow()
    eventually(told.is_complete)
    api.create(POLICIES.format(space), policy("a"))
    eventually(lambda: permitted(told, space) == {"api.example.com"}, lambda: told.problems)
    path = f"{POLICIES.format(space)}/a"
    api.patch(path, {"spec": policy("a", "*.example.org")["spec"]}, "merge")
    eventually(lambda: permitted(told, space) == {"*.example.org"})
    pods = f"/api/v1/namespaces/{space}/pods"
    api.create(pods, pod("a"))
    eventually(lambda: names(told, space) == {"a": ()})
    status = {"podIP": "10.9.0.1", "podIPs": [{"ip": "10.9.0.1"}, {"ip": "fd00::9"}], "phase": "Running"}
    api.patch(f"{pods}/a/status", {"status": status}, "merge")
    eventually(lambda: set(names(told, space).get("a", ())) == {"10.9.0.1", "fd00::9"})
    api.delete(f"{pods}/a")  # it is terminating now, and keeps its policy
    api.create(pods, pod("b"))
    eventually(lambda: "b" in names(told, space))
    assert set(names(told, space)["a"]) == {"10.9.0.1", "fd00::9"}
    api.delete(f"{pods}/a", {"gracePeriodSeconds": 0})
    eventually(lambda: names(told, space) == {"b": ()}, lambda: names(told, space))
    api.delete(path)
    eventually(lambda: permitted(told, space) == set())
    assert told.problems == ""


def test_a_pod_that_ends_on_its_own(agents: RealApi, follow: Open) -> None:
    """Its object stays, its address is nobody's; a pod of the host's network never has one."""
    api, space = agents.admin, agents.namespace("ended", labels=GOVERNED)
    pods = f"/api/v1/namespaces/{space}/pods"
    told = follow()
    for name, spec in (("a", {"restartPolicy": "Never"}), ("h", {"hostNetwork": True})):
        api.create(pods, pod(name, **spec))
        status = {"podIP": "10.9.1.1", "podIPs": [{"ip": "10.9.1.1"}], "phase": "Running"}
        api.patch(f"{pods}/{name}/status", {"status": status}, "merge")
    eventually(lambda: names(told, space) == {"a": ("10.9.1.1",), "h": ()})
    api.patch(f"{pods}/a/status", {"status": {"phase": "Succeeded"}}, "merge")
    eventually(lambda: names(told, space) == {"a": (), "h": ()})


def test_pods_of_other_nodes_are_not_asked_for(agents: RealApi, follow: Open) -> None:
    """The field selector goes to the server."""
    api, space = agents.admin, agents.namespace("nodes", labels=GOVERNED)
    pods = f"/api/v1/namespaces/{space}/pods"
    told = follow()
    eventually(told.is_complete)
    api.create(pods, pod("there", nodeName="another-node"))
    api.create(pods, pod("here"))
    eventually(lambda: names(told, space) == {"here": ()})


def test_a_renewed_token_is_taken(agents: RealApi, follow: Open) -> None:
    """A token that is refused is read again; while the file holds a bad one, that is said."""
    api, space = agents.admin, agents.namespace("token", labels=GOVERNED)
    told = follow()
    eventually(told.is_complete)
    file = agents.token_file_of(SPACE, AGENT)
    good = file.read_text()
    try:
        file.write_text("no-token")
        told.source.look()
        eventually(lambda: "401" in told.problems, lambda: told.problems)
    finally:
        file.write_text(good)
    api.create(POLICIES.format(space), policy("a"))
    eventually(lambda: permitted(told, space) and told.problems == "", lambda: told.problems, 60.0)


def test_a_server_that_freezes_dies_and_comes_back(own_api: RealApi, follow: Open) -> None:
    """What it said stays in force, its silence is seen, and a start without it knows what was."""
    charted.install_kinds(own_api)
    charted.install(own_api, "agent-rbac")
    space = own_api.namespace("lost", labels=GOVERNED)
    own_api.admin.create(POLICIES.format(space), policy("a"))
    told = follow(own_api)
    eventually(lambda: permitted(told, space) == {"api.example.com"}, lambda: told.problems)
    eventually(lambda: told.problems == "", lambda: told.problems)
    own_api.control.apiserver.freeze()
    eventually(lambda: "stays in force" in told.problems, lambda: told.problems, 90.0)
    assert permitted(told, space) == {"api.example.com"}
    assert told.source.counts["nameward_source_stale_seconds", ()] > 0
    own_api.control.apiserver.thaw()
    eventually(lambda: told.problems == "", lambda: told.problems, 90.0)
    told.source.stop()
    own_api.control.apiserver.stop(grace_s=0)
    again = follow(own_api)
    eventually(again.is_complete)
    assert permitted(again, space) == {"api.example.com"}
    assert not again.last.is_fresh  # type: ignore[union-attr]
    own_api.control.start_apiserver()
    eventually(lambda: again.problems == "" and again.last.is_fresh, lambda: again.problems, 90.0)  # type: ignore[union-attr]


def test_few_requests_beside_watches(agents: RealApi, follow: Open) -> None:
    """Once it follows, a quiet source asks for nothing more than its watches."""
    told = follow()
    eventually(told.is_complete)
    seen = [(time.monotonic(), told.source.counts["nameward_source_requests_total", ()])]

    def is_settled() -> bool:
        if (count := told.source.counts["nameward_source_requests_total", ()]) != seen[-1][1]:
            seen.append((time.monotonic(), count))
        return time.monotonic() - seen[-1][0] > 3  # the last watch begins a while after the last list

    eventually(is_settled, lambda: f"requests so far: {seen}")
    before = told.source.counts["nameward_source_requests_total", ()]
    began_at = time.monotonic()
    eventually(lambda: time.monotonic() - began_at > 6)
    assert told.source.counts["nameward_source_requests_total", ()] - before <= 1
