"""The source ``kubernetes`` against a server by script: what it tells, what it keeps, what it asks for."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enforcer.kube.client import Api
from enforcer.sources.kubernetes.cluster import Place
from enforcer.sources.kubernetes.kinds import (
    FIREWALL_POLICIES,
    NAMESPACES,
    PODS,
    SERVICES,
    SLICES,
    WEBGROUP_POLICIES,
)
from enforcer.sources.kubernetes.saved import Origin, SavedCopy
from enforcer.sources.kubernetes.source import KubernetesSource
from policy.manifest import GovernedNamespaces
from tests.kube.following import Loop, Told
from tests.kube.script import Exchange, Json, ScriptedApi, eventually, status

GOVERNED = {"nameward.dev/governed": "true"}
EVERYTHING = (NAMESPACES, FIREWALL_POLICIES, WEBGROUP_POLICIES, SERVICES, PODS, SLICES)
ORIGIN = Origin("boot", "a", "default", "server")


Open = Callable[..., Told]


@pytest.fixture
def follow(server: ScriptedApi, tmp_path: Path) -> Iterator[Open]:
    """Start a source of node ``a``; all end with the test."""
    server.serve(*(each.path for each in EVERYTHING))
    server.put(NAMESPACES.path, {"metadata": {"name": "n", "labels": GOVERNED}})
    server.put(NAMESPACES.path, {"metadata": {"name": "free", "labels": {}}})
    started: list[Told] = []

    def start(*, origin: Origin = ORIGIN, api: Api | None = None, **place: object) -> Told:
        wanted = Place("a", GovernedNamespaces(match_labels=GOVERNED), **place)  # type: ignore[arg-type]
        saved = SavedCopy(tmp_path / "cluster.json", origin)
        api = api or Api(server.access, timeout_s=2.0)
        told = Told(lambda fail: KubernetesSource(Loop(), api, wanted, saved, fail))
        started.append(told)
        return told

    yield start
    for told in started:
        told.source.stop()
        assert told.failures == []


def pod(name: str, address: str = "", *, node: str = "a", namespace: str = "n", **more: Json) -> Json:
    """A pod's object as the API server stores it."""
    return {
        "metadata": {"namespace": namespace, "name": name, "uid": f"uid-{name}", "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]} | more.get("spec", {}),
        "status": {"phase": "Running"}
        | ({"podIP": address, "podIPs": [{"ip": address}]} if address else {})
        | more.get("status", {}),
    }


def policy(name: str, *domains: str, namespace: str = "n", **rule: object) -> Json:
    """A FirewallPolicy that permits names."""
    return {
        "metadata": {"namespace": namespace, "name": name, "uid": f"uid-{name}", "generation": 1},
        "spec": {
            "smartGroups": [{"name": "any", "selectors": [{"cidr": "0.0.0.0/0"}]}],
            "webGroups": [{"name": "web", "domains": list(domains) or ["example.com"]}],
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
                | rule
            ],
        },
    }


def test_what_there_is_is_told_once_all_of_it_is_known(server: ScriptedApi, follow: Open) -> None:
    """Nothing before every kind was listed; then policies, pods of this node, who governs."""
    server.put(FIREWALL_POLICIES.path, policy("p"))
    server.put(PODS.path, pod("here", "10.0.0.1"))
    server.put(PODS.path, pod("there", "10.0.0.2", node="b"))
    server.put(PODS.path, pod("free", "10.0.0.3", namespace="free"))
    told = follow()
    eventually(told.is_complete)
    assert [seen.complete for seen in told.all if seen.loaded.policies == ()] == [False] * (len(told.all) - 1)
    last = told.last
    assert last is not None
    assert told.pods == {"here": ("10.0.0.1",), "free": ("10.0.0.3",)}
    assert {pod.name: pod.governed for pod in last.loaded.pods} == {"here": True, "free": False}
    assert told.policies == {"p"}
    assert (last.problems, last.loaded.findings, last.is_fresh) == ((), (), True)
    assert not server.lists("endpointslices")


def test_a_pods_life(server: ScriptedApi, follow: Open) -> None:
    """Without an address, with two families, terminating, and gone: each is seen at once."""
    told = follow()
    eventually(told.is_complete)
    server.put(PODS.path, pod("p"))
    eventually(lambda: told.pods == {"p": ()})
    families = {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}
    server.put(PODS.path, pod("p", "10.0.0.1", status=families))
    eventually(lambda: set(told.pods["p"]) == {"10.0.0.1", "fd00::1"})
    ending = pod("p", "10.0.0.1", status=families)
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    server.put(PODS.path, ending)
    server.put(PODS.path, pod("next", "10.0.0.2"))
    eventually(lambda: "next" in told.pods)
    assert set(told.pods["p"]) == {"10.0.0.1", "fd00::1"}
    server.delete(PODS.path, "n/p")
    eventually(lambda: told.pods == {"next": ("10.0.0.2",)})


@pytest.mark.parametrize("change", [{"status": {"phase": "Succeeded"}}, {"status": {"phase": "Failed"}}])
def test_a_completed_pod_has_no_address(server: ScriptedApi, follow: Open, change: Json) -> None:
    """Its address may be another's by now, though the object still shows it."""
    server.put(PODS.path, pod("p", "10.0.0.1"))
    told = follow()
    eventually(lambda: told.pods == {"p": ("10.0.0.1",)})
    server.put(PODS.path, pod("p", "10.0.0.1", **change))
    eventually(lambda: told.pods == {"p": ()})


def test_a_pod_of_the_hosts_network_has_no_address(server: ScriptedApi, follow: Open) -> None:
    """Its address is the node's."""
    server.put(PODS.path, pod("p", "192.0.2.1", spec={"hostNetwork": True}))
    told = follow()
    eventually(lambda: told.pods == {"p": ()})
    assert told.last is not None
    assert told.last.loaded.pods[0].host_network


def test_changes_that_mean_nothing_are_not_told(server: ScriptedApi, follow: Open) -> None:
    """Heartbeats, conditions, managed fields, others' annotations: nothing is assembled for them."""
    server.put(FIREWALL_POLICIES.path, policy("p"))
    server.put(PODS.path, pod("p", "10.0.0.1"))
    told = follow()
    eventually(told.is_complete)
    before = len(told.all)
    for number in range(20):
        changed = policy("p") | {"status": {"conditions": [{"type": "Accepted", "x": number}]}}
        changed["metadata"]["managedFields"] = [number]
        server.put(FIREWALL_POLICIES.path, changed)
        noisy = pod("p", "10.0.0.1", status={"conditions": [number]})
        noisy["metadata"]["annotations"] = {"x": str(number)}
        server.put(PODS.path, noisy)
    server.put(PODS.path, pod("last", "10.0.0.2"))
    eventually(lambda: "last" in told.pods)
    assert len(told.all) == before + 1


def test_a_burst_is_told_in_few_pieces(server: ScriptedApi, follow: Open) -> None:
    """Fifty pods at once are not fifty compilations."""
    told = follow()
    eventually(told.is_complete)
    before = len(told.all)
    for number in range(50):
        server.put(PODS.path, pod(f"p{number}", f"10.0.0.{number + 1}"))
    eventually(lambda: len(told.pods) == 50)
    assert len(told.all) - before < 50


def test_a_bad_policy_is_named_as_the_object_it_is(server: ScriptedApi, follow: Open) -> None:
    """Findings say kind, namespace and name; the others are loaded."""
    bad = policy("bad")
    bad["spec"]["rules"][0]["ports"] = ["443"]
    server.put(FIREWALL_POLICIES.path, bad)
    server.put(FIREWALL_POLICIES.path, policy("good"))
    told = follow()
    eventually(told.is_complete)
    assert told.last is not None
    errors = [each for each in told.last.loaded.findings if each.severity == "error"]
    assert {each.file for each in errors} == {"FirewallPolicy n/bad"}
    assert {each.document for each in errors} == {0}
    assert told.policies == {"bad", "good"}
    assert {each.name: each.accepted for each in told.last.loaded.policies} == {"bad": False, "good": True}


def test_a_policy_where_nobody_governs_is_said(server: ScriptedApi, follow: Open) -> None:
    """It has no effect; its author should hear that."""
    server.put(FIREWALL_POLICIES.path, policy("p", namespace="free"))
    told = follow()
    eventually(told.is_complete)
    assert told.last is not None
    assert "not governed" in told.last.loaded.findings[0].message


def test_a_namespace_that_begins_to_be_governed(server: ScriptedApi, follow: Open) -> None:
    """Its pods are governed with the change of its label, and not any more when it goes."""
    server.put(PODS.path, pod("p", "10.0.0.1", namespace="free"))
    told = follow()
    eventually(lambda: told.pods == {"p": ("10.0.0.1",)})
    for labels in (GOVERNED, {}):
        server.put(NAMESPACES.path, {"metadata": {"name": "free", "labels": labels}})
        eventually(lambda labels=labels: told.last.loaded.pods[0].governed == bool(labels))  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", [FIREWALL_POLICIES, WEBGROUP_POLICIES])
def test_a_definition_that_is_missing(server: ScriptedApi, follow: Open, kind: object) -> None:
    """The node is not complete, and says what to install; once it is there, all is well."""
    assert kind in EVERYTHING
    server.remove(kind.path)
    told = follow()
    eventually(lambda: "CustomResourceDefinition" in told.problems)
    assert not told.is_complete()
    server.serve(kind.path)
    told.source.look()
    eventually(lambda: told.is_complete() and told.problems == "")


@pytest.mark.parametrize("is_seen", [True, False])
def test_a_definition_that_is_removed(server: ScriptedApi, follow: Open, is_seen: bool) -> None:
    """Its objects are deleted with it: their permits end. Where that was not seen they stay; both is said."""
    server.put(FIREWALL_POLICIES.path, policy("p"))
    told = follow()
    eventually(lambda: told.policies == {"p"})
    if is_seen:
        server.delete(FIREWALL_POLICIES.path, "n/p")
        eventually(lambda: told.policies == set())
    server.remove(FIREWALL_POLICIES.path)
    eventually(lambda: "CustomResourceDefinition" in told.problems)
    assert told.policies == (set() if is_seen else {"p"})
    assert told.is_complete()


def test_a_server_that_goes(server: ScriptedApi, follow: Open) -> None:
    """What it said last stays, that it is gone is said and counted; then what it says now."""
    server.put(FIREWALL_POLICIES.path, policy("p"))
    server.put(PODS.path, pod("p", "10.0.0.1"))
    told = follow()
    eventually(told.is_complete)
    assert told.source.counts["nameward_source_stale_seconds", ()] == 0
    server.stop()
    eventually(lambda: "stays in force" in told.problems and not told.last.is_fresh)  # type: ignore[union-attr]
    assert told.policies == {"p"}
    assert told.pods == {"p": ("10.0.0.1",)}
    assert told.source.counts["nameward_source_stale_seconds", ()] > 0
    server.delete(PODS.path, "n/p")
    server.start()
    eventually(lambda: told.pods == {} and told.problems == "" and told.last.is_fresh)  # type: ignore[union-attr]
    assert told.source.counts["nameward_source_stale_seconds", ()] == 0


def test_a_start_without_the_server(server: ScriptedApi, follow: Open) -> None:
    """The saved copy counts, says so, and vouches for no new pod; then the server does."""
    server.put(FIREWALL_POLICIES.path, policy("p"))
    server.put(PODS.path, pod("p", "10.0.0.1"))
    first = follow()
    eventually(first.is_complete)
    first.source.stop()
    server.stop()
    told = follow()
    eventually(told.is_complete)
    assert told.policies == {"p"}
    assert told.pods == {"p": ("10.0.0.1",)}
    assert "has not said yet" in told.problems
    assert not told.last.is_fresh  # type: ignore[union-attr]
    server.delete(FIREWALL_POLICIES.path, "n/p")
    server.start()
    eventually(lambda: told.policies == set() and told.problems == "", lambda: told.last)


def test_a_start_with_a_frozen_server(server: ScriptedApi, follow: Open) -> None:
    """It takes connections and says nothing: the copy counts after some seconds."""
    server.put(FIREWALL_POLICIES.path, policy("p"))
    first = follow()
    eventually(first.is_complete)
    first.source.stop()
    server.freeze()
    told = follow()
    eventually(told.is_complete)
    assert told.policies == {"p"}
    told.source.stop()
    server.thaw()


def test_a_last_change_is_saved_before_the_end(server: ScriptedApi, follow: Open, tmp_path: Path) -> None:
    """A revocation in the last moment is in the copy."""
    server.put(FIREWALL_POLICIES.path, policy("p"))
    told = follow()
    eventually(told.is_complete)
    eventually((tmp_path / "cluster.json").exists)
    server.delete(FIREWALL_POLICIES.path, "n/p")
    eventually(lambda: told.policies == set())
    told.source.stop()
    assert json.loads((tmp_path / "cluster.json").read_text())["objects"]["FirewallPolicy"] == []


@pytest.mark.parametrize(
    "changes", [{"boot_id": "other"}, {"node": "b"}, {"cluster": "other"}, {"server": "other"}]
)
def test_a_copy_of_another_origin_is_nothing(
    server: ScriptedApi, follow: Open, changes: dict[str, str]
) -> None:
    """After a reboot, of another node, cluster or server: it opens nothing."""
    server.put(FIREWALL_POLICIES.path, policy("p"))
    first = follow()
    eventually(first.is_complete)
    first.source.stop()
    server.stop()
    fields = {"boot_id": "boot", "node": "a", "cluster": "default", "server": "server"} | changes
    told = follow(origin=Origin(**fields))
    eventually(lambda: "Connection refused" in told.problems)
    assert not told.is_complete()


def test_no_copy_of_half_a_server(server: ScriptedApi, follow: Open, tmp_path: Path) -> None:
    """As long as one kind was never listed nothing is saved: it would read as none of that kind."""

    def refuse(exchange: Exchange) -> bool:
        if "webgroup" not in exchange.asked.path:
            return False
        exchange.answer(403, status(403, "Forbidden", "no"))
        return True

    server.faults.append(refuse)
    told = follow()
    eventually(lambda: "Forbidden" in told.problems)
    told.source.stop()
    assert not (tmp_path / "cluster.json").exists()
    assert not told.is_complete()


def test_the_copy_is_nobody_elses(server: ScriptedApi, follow: Open, tmp_path: Path) -> None:
    """Its owner alone may read it; one that others may write, or a link, is not read."""
    server.put(FIREWALL_POLICIES.path, policy("p"))
    told = follow()
    path = tmp_path / "cluster.json"
    eventually(lambda: told.is_complete() and path.exists())
    told.source.stop()
    copy = SavedCopy(path, ORIGIN)
    assert path.stat().st_mode & 0o777 == 0o600
    assert copy.read() is not None
    path.chmod(0o620)
    assert copy.read() is None
    path.chmod(0o600)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert copy.read() is None
    path.unlink()
    os.mkfifo(path, 0o600)
    assert copy.read() is None


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"version": 1}', "{" * 100_000, "\x00\xff"])
def test_a_damaged_copy_is_nothing(tmp_path: Path, damage: str) -> None:
    """Whatever it holds: no error, no objects."""
    path = tmp_path / "cluster.json"
    path.write_text(damage)
    path.chmod(0o600)
    assert SavedCopy(path, ORIGIN).read() is None


def test_any_prefix_of_a_copy_is_nothing(tmp_path: Path) -> None:
    """A torn file is never a smaller cluster."""
    path = tmp_path / "cluster.json"
    copy = SavedCopy(path, ORIGIN)
    objects = {each.kind: [each.cut(policy("p"))] for each in EVERYTHING}
    copy.write(objects, "now")
    whole = path.read_bytes()
    found = copy.read()
    assert found is not None
    assert found[0].keys() == objects.keys()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        assert copy.read() is None


def test_services_are_followed_as_far_as_somebody_names_them(server: ScriptedApi, follow: Open) -> None:
    """A rule that names a Service selects its pods; others are not in the world."""
    for name in ("front", "idle"):
        spec = {"selector": {"app": name}, "clusterIP": "10.96.0.9"}
        server.put(SERVICES.path, {"metadata": {"namespace": "n", "name": name}, "spec": spec})
    server.put(FIREWALL_POLICIES.path, policy("p", selector={"service": "front"}))
    told = follow()
    eventually(told.is_complete)
    assert told.last is not None
    assert [each.name for each in told.last.loaded.services] == ["front"]
    assert not server.lists("endpointslices")


def test_endpoints_of_services_without_a_selector(server: ScriptedApi, follow: Open) -> None:
    """Only of those that a policy names, and nothing is told before they are known."""
    for name in ("bare", "other"):
        server.put(SERVICES.path, {"metadata": {"namespace": "n", "name": name}, "spec": {}})
    server.put(
        SLICES.path,
        {
            "metadata": {
                "namespace": "n",
                "name": "bare-x",
                "labels": {"kubernetes.io/service-name": "bare"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}],
        },
    )
    told = follow()
    eventually(told.is_complete)
    assert not server.lists("endpointslices")
    server.put(FIREWALL_POLICIES.path, policy("p", selector={"service": "bare"}))
    eventually(lambda: told.policies == {"p"})
    assert told.last is not None
    assert told.last.loaded.services[0].addresses == ("10.0.0.1",)
    asked = {each.query["labelSelector"] for each in server.lists("endpointslices")}
    assert asked == {"kubernetes.io/service-name in (bare)"}
    server.delete(FIREWALL_POLICIES.path, "n/p")
    eventually(lambda: told.policies == set())


def test_what_is_behind_the_clusters_dns_is_known(server: ScriptedApi, follow: Open) -> None:
    """Also on other nodes, and though the Service has a selector: traffic to it is never exempt."""
    spec = {"selector": {"k8s-app": "dns"}, "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"]}
    server.put(SERVICES.path, {"metadata": {"namespace": "kube-system", "name": "dns"}, "spec": spec})
    labels = {"kubernetes.io/service-name": "dns"}
    server.put(
        SLICES.path,
        {
            "metadata": {"namespace": "kube-system", "name": "dns-x", "labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.7.7"]}],
        },
    )
    told = follow(dns_servers=frozenset({"10.96.0.10"}))
    eventually(lambda: told.is_complete() and told.last.loaded.services)  # type: ignore[union-attr]
    assert told.last is not None
    assert told.last.loaded.services[0].addresses == ("10.0.7.7",)


def test_pods_as_destinations_are_looked_for_everywhere(server: ScriptedApi, follow: Open) -> None:
    """A deny of a group of pods must know those of other nodes; until then nothing new is told."""
    server.put(PODS.path, pod("here", "10.0.0.1"))
    server.put(PODS.path, pod("there", "10.0.0.2", node="b"))
    told = follow()
    eventually(lambda: told.pods == {"here": ("10.0.0.1",)})
    group = {"name": "any", "selectors": [{"type": "k8s", "k8sNamespace": "n", "tags": {"app": "there"}}]}
    wide = policy("p")
    wide["spec"]["smartGroups"] = [group]
    server.put(FIREWALL_POLICIES.path, wide)
    eventually(lambda: told.policies == {"p"})
    assert told.pods == {"here": ("10.0.0.1",), "there": ("10.0.0.2",)}
    assert [seen for seen in told.all if seen.loaded.policies and len(seen.loaded.pods) < 2] == []


def test_with_shared_state_pods_of_all_nodes_are_known(server: ScriptedApi, follow: Open) -> None:
    """Those of governed namespaces may ask here; the others are nobody's business."""
    server.put(PODS.path, pod("there", "10.0.0.2", node="b"))
    server.put(PODS.path, pod("free", "10.0.0.3", node="b", namespace="free"))
    told = follow(every_node=True)
    eventually(lambda: told.pods == {"there": ("10.0.0.2",)})


def test_a_token_that_expires(server: ScriptedApi, follow: Open, tmp_path: Path) -> None:
    """Watches go on with the next token; nothing else is noticed."""
    token = tmp_path / "token"
    token.write_text("one")
    server.tokens = {"one"}
    told = follow(api=Api(dataclasses.replace(server.access, token_file=str(token)), timeout_s=2.0))
    eventually(told.is_complete)
    server.tokens = {"two"}
    token.write_text("two")
    server.drop_watches()
    server.put(PODS.path, pod("p", "10.0.0.1"))
    eventually(lambda: told.pods == {"p": ("10.0.0.1",)} and told.problems == "")


HOSTILE = [
    {},
    {"metadata": None},
    {"metadata": []},
    {"metadata": {"name": 5, "namespace": "n"}},
    {"metadata": {"name": "x" * 300, "namespace": "n"}},
    {"metadata": {"name": "\x1b[31m", "namespace": "../.."}},
    {"metadata": {"name": "x", "namespace": "n", "labels": ["a"], "annotations": {"nameward.dev/x": 5}}},
    {"metadata": {"name": "x", "namespace": "n"}, "spec": [], "status": "text"},
    {"metadata": {"name": "x", "namespace": "n"}, "spec": {"rules": 5, "containers": [5, None]}},
    {"metadata": {"name": "x", "namespace": "n"}, "status": {"podIPs": [{"ip": "999.1.1.1"}, 7]}},
    {"metadata": {"name": "x", "namespace": "n"}, "endpoints": [5, {"addresses": [5]}], "addressType": 5},
    {"kind": "Secret", "apiVersion": "v9", "metadata": {"name": "x", "namespace": "n"}, "data": {"a": "b"}},
]


@pytest.mark.parametrize("fields", HOSTILE, ids=range(len(HOSTILE)))
def test_objects_of_any_shape(server: ScriptedApi, follow: Open, fields: Json) -> None:
    """A list that holds them: findings at most, and the good ones beside them are loaded."""

    def garble(exchange: Exchange) -> bool:
        if exchange.asked.is_watch or exchange.asked.path == "/version":
            return False
        good = list(server.collections[exchange.asked.path].values())
        body = {"metadata": {"resourceVersion": str(server.version)}, "items": [fields, *good]}
        exchange.answer(200, body)
        return True

    server.faults.append(garble)
    server.put(PODS.path, pod("good", "10.0.0.1"))
    server.put(FIREWALL_POLICIES.path, policy("good"))
    told = follow()
    eventually(told.is_complete)
    assert "good" in told.policies
    assert told.pods["good"] == ("10.0.0.1",)
    assert told.last is not None
    for finding in told.last.loaded.findings:
        assert finding.file.isprintable()
        assert finding.file.isascii()
