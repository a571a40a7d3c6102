"""The controller against a real API server, with exactly the permissions that the chart gives it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from enforcer import health
from enforcer.kube.client import Api
from tests.cluster.charted import (
    CHART,
    NODE_STATUSES,
    POLICIES,
    STATUSES,
    WEB_POLICIES,
    firewall_policy,
    install_kinds,
    refusal,
    until,
    webgroup_policy,
)
from tests.cluster.real import RealApi
from tests.cluster.running import GOVERNED, SPACE, Controller, account_of

pytestmark = pytest.mark.cluster

Json = dict[str, Any]


@pytest.fixture(scope="module")
def controller(guarded: RealApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """One that leads."""
    folder = tmp_path_factory.mktemp("controller")
    started = Controller(account_of(guarded), folder, "replica-1")
    try:
        started.wait_for("controller.leading")
        yield started
    finally:
        code = started.stop()
    assert code == 0, started.records()


@pytest.fixture(scope="module")
def door(guarded: RealApi, controller: Controller) -> Api:
    """The administrator's door, with the controller at work."""
    opened: Api = guarded.admin
    return opened


@pytest.fixture
def space(guarded: RealApi) -> str:
    """A governed namespace."""
    return guarded.namespace("status", labels=GOVERNED)


def _status(door: Api, space: str, name: str, kind: str = "firewallpolicy") -> Json:
    """The status of a policy's PolicyStatus, conditions by their type; {} while there is none."""
    path = f"{STATUSES.format(space)}/{kind}-{name}"
    found: list[Json] = []
    words = refusal(lambda: found.append(door.get(path)))
    if words:
        return {}
    status: Json = found[0]["status"]
    return status | {each["type"]: each for each in status["conditions"]}


def _wait(door: Api, space: str, name: str, condition: str, reason: str, **kind: str) -> Json:
    """Wait until a condition has that reason; returns the status."""
    until(
        lambda: _status(door, space, name, **kind).get(condition, {}).get("reason") == reason,
        f"{condition} is {reason}",
        60.0,
    )
    return _status(door, space, name, **kind)


def test_it_tells_how_it_is(door: Api, controller: Controller) -> None:
    """Over its socket, for the probes of its pod."""
    until(lambda: health.ask(controller.health, 5.0).said == "leading", "it says that it leads")
    told = health.ask(controller.health, 5.0)
    assert told.live
    assert told.ready


def test_an_accepted_policy_says_so_in_both_places(guarded: RealApi, door: Api, space: str) -> None:
    """A PolicyStatus of its own, owned by the policy, and the same on the policy itself."""
    path = POLICIES.format(space)
    policy = door.create(path, firewall_policy("good"))
    status = _wait(door, space, "good", "Accepted", "Accepted")
    assert (status["rules"], status["pods"], status["rejected"]) == (2, 0, 0)
    assert status["Realized"]["status"] == "Unknown"
    assert status["observedGeneration"] == 1
    own = door.get(f"{STATUSES.format(space)}/firewallpolicy-good")
    owner = own["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["uid"]) == ("FirewallPolicy", policy["metadata"]["uid"])
    until(lambda: "conditions" in door.get(f"{path}/good").get("status", {}), "it is mirrored")
    mirrored = door.get(f"{path}/good")["status"]
    assert mirrored["conditions"] == own["status"]["conditions"]
    assert mirrored["enforcement"] == {"rules": 2, "pods": 0, "rejected": 0}
    row = guarded.kubectl("get", "fwp", "good", "-n", space).splitlines()[1].split()
    assert row[:5] == ["good", "2", "0", "Unknown", "0"]


def test_a_webgroup_policy_has_one_too(door: Api, space: str) -> None:
    """The other kind, by its own name."""
    door.create(WEB_POLICIES.format(space), webgroup_policy("web"))
    status = _wait(door, space, "web", "Accepted", "Accepted", kind="webgrouppolicy")
    assert status["rules"] == 1


def test_a_namespace_that_is_not_governed(guarded: RealApi, door: Api) -> None:
    """Accepted is False and says how to govern it; with the label it is accepted."""
    space = guarded.namespace("status")
    door.create(POLICIES.format(space), firewall_policy("outside"))
    status = _wait(door, space, "outside", "Accepted", "NamespaceNotGoverned")
    assert status["Accepted"]["status"] == status["Realized"]["status"] == "False"
    assert "label it nameward.dev/governed=true" in status["Accepted"]["message"]
    door.patch(f"/api/v1/namespaces/{space}", {"metadata": {"labels": GOVERNED}}, "merge")
    _wait(door, space, "outside", "Accepted", "Accepted")


def test_what_is_not_understood_is_said_with_place_and_fix(door: Api, space: str) -> None:
    """A group that is nowhere defined: the rule is refused, by the same words as `nameward check`."""
    body = firewall_policy("bad", destinationSmartGroups=[{"name": "elsewhere"}])
    door.create(POLICIES.format(space), body)
    status = _wait(door, space, "bad", "Accepted", "NotUnderstood")
    assert status["Accepted"]["status"] == "False"
    assert (
        "/spec/rules/0/destinationSmartGroups/0/name: there is no smartGroup" in status["Accepted"]["message"]
    )
    assert status["rejected"] == 1
    assert status["findings"][0]["severity"] == "error"
    assert status["findings"][0]["pointer"] == "/spec/rules/0/destinationSmartGroups/0/name"


def test_a_bad_domain_is_left_out_and_counted(door: Api, space: str) -> None:
    """The rest of the policy counts."""
    groups = [{"name": "approved", "domains": ["api.example.com", "169.254.169.254"]}]
    door.create(POLICIES.format(space), firewall_policy("part", spec={"webGroups": groups}))
    status = _wait(door, space, "part", "Accepted", "PartlyAccepted")
    assert status["Accepted"]["status"] == "True"
    assert status["rejected"] == 1


def test_a_service_that_is_missing(door: Api, space: str) -> None:
    """A rule for the pods behind a Service counts once that is there."""
    door.create(POLICIES.format(space), firewall_policy("behind", selector={"service": "late"}))
    status = _wait(door, space, "behind", "Accepted", "NotUnderstood")
    assert "there is no Service" in status["Accepted"]["message"]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "late"},
        "spec": {"selector": {"app": "late"}, "ports": [{"port": 80}]},
    }
    door.create(f"/api/v1/namespaces/{space}/services", service)
    _wait(door, space, "behind", "Accepted", "Accepted")


def _report(door: Api, node: str, policy: Json, *, enforcing: bool = True, generation: int = 1) -> None:
    """Say on a NodeStatus what a node would say."""
    metadata = policy["metadata"]
    listed = {
        "kind": policy["kind"],
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "generation": generation,
        "pods": 2,
    }
    body = {
        "apiVersion": "nameward.dev/v1alpha1",
        "kind": "NodeStatus",
        "metadata": {"name": node},
        "status": {"enforcing": enforcing, "pods": 2, "policies": [listed], "version": "0.1.0"},
    }
    door.patch(f"{NODE_STATUSES}/{node}", body, "apply", fieldManager="test", force="true")


def test_realized_is_what_the_nodes_say(door: Api, space: str) -> None:
    """True when each node with pods of it has this generation and enforces; who has not is named."""
    path = POLICIES.format(space)
    policy = door.create(path, firewall_policy("real"))
    first, second = f"{space}-a", f"{space}-b"
    _report(door, first, policy)
    _report(door, second, policy)
    status = _wait(door, space, "real", "Realized", "InForce")
    until(lambda: _status(door, space, "real")["pods"] == 4, "both nodes' pods count")
    assert _status(door, space, "real")["realizedNodes"] == "2/2"
    assert status["Realized"]["status"] == "True"
    door.patch(f"{path}/real", {"spec": {"rules": policy["spec"]["rules"][1:]}}, "merge")
    _report(door, first, policy, generation=2)
    _wait(door, space, "real", "Realized", "NodesBehind")
    until(
        lambda: (
            second in _status(door, space, "real")["Realized"]["message"]
            and first not in _status(door, space, "real")["Realized"]["message"]
        ),
        "the node that is behind is named",
    )
    _report(door, second, policy, generation=2)
    status = _wait(door, space, "real", "Realized", "InForce")
    assert status["observedGeneration"] == 2
    _report(door, second, policy, generation=2, enforcing=False)
    status = _wait(door, space, "real", "Realized", "NodesNotEnforcing")
    assert second in status["Realized"]["message"]
    door.delete(f"{NODE_STATUSES}/{second}")
    _wait(door, space, "real", "Realized", "InForce")
    _report(door, first, policy | {"metadata": policy["metadata"] | {"uid": "another"}})
    _wait(door, space, "real", "Realized", "NoPods")
    door.delete(f"{NODE_STATUSES}/{first}")


def test_the_time_of_a_condition_is_that_of_its_status(door: Api, space: str) -> None:
    """A new generation that is accepted as the old one was keeps lastTransitionTime."""
    path = POLICIES.format(space)
    policy = door.create(path, firewall_policy("timed"))
    before = _wait(door, space, "timed", "Accepted", "Accepted")["Accepted"]["lastTransitionTime"]
    door.patch(f"{path}/timed", {"spec": {"rules": policy["spec"]["rules"][1:]}}, "merge")
    until(lambda: _status(door, space, "timed")["rules"] == 1, "the new generation is read")
    after = _status(door, space, "timed")["Accepted"]
    assert after["observedGeneration"] == 2
    assert after["lastTransitionTime"] == before


def test_the_chart_gives_the_verbs_that_are_used_and_no_others(
    guarded: RealApi, door: Api, space: str, controller: Controller, tmp_path: Path
) -> None:
    """No request of the account is forbidden, and each verb of its roles is one that it uses."""
    door.create(POLICIES.format(space), firewall_policy("audited"))
    _wait(door, space, "audited", "Accepted", "Accepted")
    mirrored = f"{POLICIES.format(space)}/audited"
    until(lambda: "status" in door.get(mirrored), "it is mirrored")
    other = Controller(account_of(guarded), tmp_path, "replica-2")
    try:
        other.wait_for("controller.started")
    finally:
        assert other.stop() == 0
    user = f"system:serviceaccount:{SPACE}:nameward-controller"
    answered = guarded.audit(user)
    assert [each for each in answered if each["responseStatus"].get("code") == 403] == []
    used = {_permission(each) for each in answered if "objectRef" in each}
    granted = _granted(guarded)
    # Watches are in the log once they end; removals need a policy that has been gone for a while.
    late = {each for each in granted if each[1] == "watch"} | {("policystatuses", "delete")}
    assert used <= granted
    assert granted - used <= late | {("policystatuses", "update")}


def _permission(event: Json) -> tuple[str, str]:
    target = event["objectRef"]
    below = f"/{target['subresource']}" if target.get("subresource") else ""
    return f"{target['resource']}{below}", event["verb"]


def _granted(api: RealApi) -> set[tuple[str, str]]:
    cluster = api.get("clusterrole", "nameward-controller")["rules"]
    own = api.get("role", "nameward-controller", "-n", SPACE)["rules"]
    return {
        (resource, verb) for rule in cluster + own for resource in rule["resources"] for verb in rule["verbs"]
    }


def test_one_of_two_leads_and_the_other_follows_at_once(guarded: RealApi, tmp_path: Path) -> None:
    """A replica that is told to end gives the Lease up; the other one need not wait for it to expire."""
    install_kinds(guarded)
    kubeconfig = account_of(guarded)
    # Another Lease, made by the administrator: the role names the chart's own, and creates any.
    api = guarded
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "pair", "namespace": SPACE},
        "rules": [
            {
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "resourceNames": ["pair"],
                "verbs": ["get", "update"],
            }
        ],
    }
    api.apply(role)
    subject = f"--serviceaccount={SPACE}:nameward-controller"
    api.kubectl("create", "rolebinding", "pair", "-n", SPACE, "--role=pair", subject)
    first = Controller(kubeconfig, tmp_path, "first", lease="pair")
    second = None
    try:
        first.wait_for("controller.leading")
        second = Controller(kubeconfig, tmp_path, "second", lease="pair")
        second.wait_for("controller.started")
        held = api.get("lease", "pair", "-n", SPACE)["spec"]
        assert held["holderIdentity"].startswith("first_")
        assert "controller.leading" not in second.events()
        assert first.stop() == 0
        second.wait_for("controller.leading")
        held = api.get("lease", "pair", "-n", SPACE)["spec"]
        assert held["holderIdentity"].startswith("second_")
    finally:
        first.stop()
        if second is not None:
            assert second.stop() == 0


def test_beside_foreign_definitions_the_policies_are_left_alone(foreign: RealApi, tmp_path: Path) -> None:
    """No place for conditions: PolicyStatus alone says it, and the policy's status is not even tried."""
    install_foreign(foreign)
    door = foreign.admin
    space = foreign.namespace("status", labels=GOVERNED)
    started = Controller(account_of(foreign), tmp_path, "beside")
    try:
        door.create(POLICIES.format(space), firewall_policy("theirs"))
        _wait(door, space, "theirs", "Accepted", "Accepted")
    finally:
        assert started.stop() == 0
    assert "status" not in door.get(f"{POLICIES.format(space)}/theirs")
    user = f"system:serviceaccount:{SPACE}:nameward-controller"
    assert [each for each in foreign.audit(user) if each["verb"] == "patch"] == []


def install_foreign(api: RealApi) -> None:
    """Our own kinds beside the other product's."""
    for path in sorted((CHART / "crds").glob("nameward.dev_*.yaml")):
        api.kubectl("apply", "--server-side", "-f", str(path))
    api.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")


def test_a_definition_that_goes_and_comes_back(own_api: RealApi, tmp_path: Path) -> None:
    """Removed while the controller runs, with all policies: it stays, and goes on with what comes."""
    install_kinds(own_api)
    door = own_api.admin
    space = own_api.namespace("status", labels=GOVERNED)
    started = Controller(account_of(own_api), tmp_path, "lasting")
    try:
        door.create(POLICIES.format(space), firewall_policy("before"))
        _wait(door, space, "before", "Accepted", "Accepted")
        own_api.kubectl("delete", "crd", "firewallpolicies.networking.aviatrix.com", "--timeout=60s")
        started.wait_for("controller.trouble")
        install_kinds(own_api)
        path = POLICIES.format(space)
        until(lambda: not refusal(lambda: door.create(path, firewall_policy("after"))), "it is served again")
        _wait(door, space, "after", "Accepted", "Accepted")
    finally:
        assert started.stop() == 0


def test_without_an_api_server_that_can_be_reached(tmp_path: Path) -> None:
    """A kubeconfig that is none ends it with one sentence and the exit code of wrong settings."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text("nothing: here")
    started = Controller(kubeconfig, tmp_path, "lost")
    assert started.process.wait(timeout=60) == 2
