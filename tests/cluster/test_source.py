"""The source ``kubernetes`` on the real API server, with what the chart permits an agent and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from enforcer.kube.client import Api
from enforcer.sources.kubernetes.cluster import Place
from enforcer.sources.kubernetes.saved import Origin, SavedCopy
from enforcer.sources.kubernetes.source import KubernetesSource
from policy.manifest import GovernedNamespaces
from tests.cluster.charted import POLICIES, RELEASE, SPACE, firewall_policy, install, rendered, until
from tests.cluster.real import RealApi, account
from tests.kube.test_source import Loop, Told

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
NODE = "source-node"
GOVERNED = {"nameward.dev/governed": "true"}
FOLLOWED = ("firewallpolicies", "webgrouppolicies", "namespaces", "pods", "services")
Follow = Callable[[Api], Told]


@pytest.fixture(scope="module")
def server(guarded: RealApi) -> RealApi:
    """The session's API server with the agent's account and its role."""
    install(guarded, "agent-rbac")
    return guarded


@pytest.fixture
def follow(tmp_path: Path) -> Iterator[Follow]:
    """Start a source of the node; all end with the test."""
    started: list[Told] = []

    def start(api: Api) -> Told:
        place = Place(NODE, GovernedNamespaces(match_labels=GOVERNED))
        saved = SavedCopy(tmp_path / "cluster.json", Origin("boot", NODE, "default", "server"))
        failures: list[object] = []
        told = Told(KubernetesSource(Loop(), api, place, saved, failures.append), failures)
        started.append(told)
        return told

    yield start
    for told in started:
        told.source.stop()
        assert told.failures == []


def start_pod(server: RealApi, space: str, name: str, node: str, *addresses: str) -> str:
    """Make a pod as scheduler and kubelet leave it; returns its path."""
    path = f"/api/v1/namespaces/{space}/pods"
    body = {
        "metadata": {"name": name, "labels": {"app": "ms1"}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "none"}]},
    }
    server.admin.create(path, {"apiVersion": "v1", "kind": "Pod", **body})
    ips = [{"ip": each} for each in addresses]
    status = {"phase": "Running", "podIP": addresses[0], "podIPs": ips}
    server.admin.patch(f"{path}/{name}/status", {"status": status}, "merge")
    return f"{path}/{name}"


def test_what_the_chart_permits_is_enough(server: RealApi, follow: Follow) -> None:
    """Policies and this node's pods come, change and go, by the agent's own account."""
    told = follow(Api(server.as_account(SPACE, f"{RELEASE}-agent")))
    until(told.is_complete, "everything was listed")
    space = server.namespace("source", labels=GOVERNED)
    server.admin.create(POLICIES.format(space), firewall_policy("of-source"))
    path = start_pod(server, space, "here", NODE, "10.9.0.1", "fd00:9::1")
    start_pod(server, space, "elsewhere", "another-node", "10.9.0.2")
    until(lambda: told.pods.get("here") == ("10.9.0.1", "fd00:9::1"), "the pod is known")
    until(lambda: "of-source" in told.policies, "the policy is known")
    assert "elsewhere" not in told.pods
    assert told.problems == ""
    server.admin.patch(f"{path}/status", {"status": {"phase": "Succeeded"}}, "merge")
    until(lambda: not told.pods.get("here"), "a pod that has ended has no address")
    server.admin.delete(path, gracePeriodSeconds="0")
    server.admin.delete(f"{POLICIES.format(space)}/of-source")
    until(lambda: "here" not in told.pods and "of-source" not in told.policies, "both are gone")


@pytest.mark.parametrize("verb", ["list", "watch"])
@pytest.mark.parametrize("resource", FOLLOWED)
def test_a_verb_that_is_missing_is_said(server: RealApi, follow: Follow, resource: str, verb: str) -> None:
    """Without ``list`` nothing is complete, without ``watch`` nothing new is heard: it says which one."""
    name = f"lacks-{verb}-{resource}"
    server.apply(account(SPACE, name), *lacking(name, resource, verb))
    told = follow(Api(server.as_account(SPACE, name)))
    until(lambda: f'cannot {verb} resource "{resource}"' in told.problems, "the verb is named")
    assert told.is_complete() == (verb == "watch")


def lacking(name: str, resource: str, verb: str) -> list[Json]:
    """The agent's role without one verb on one resource, bound to an account of that name."""
    shown = rendered("-s", "templates/agent-rbac.yaml")
    role, binding = (
        copy.deepcopy(next(each for each in shown if each["kind"] == kind))
        for kind in ("ClusterRole", "ClusterRoleBinding")
    )
    rules = []
    for rule in role["rules"]:
        for each in rule["resources"]:
            verbs = [may for may in rule["verbs"] if (each, may) != (resource, verb)]
            rules.append({"apiGroups": rule["apiGroups"], "resources": [each], "verbs": verbs})
    role |= {"rules": rules, "metadata": {"name": name}}
    binding["metadata"] = {"name": name}
    binding["roleRef"]["name"] = name
    binding["subjects"][0]["name"] = name
    return [role, binding]
