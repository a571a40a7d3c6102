"""The provider chart, installed as Obot does it: Helm v3, waiting, atomic, with Obot's permissions alone.

There is no node here and so no pod ever runs: whatever is installed does not wait for one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from enforcer.demo.failure import CannotRunHereError
from enforcer.demo.kube.program import Program
from enforcer.demo.stores import free_ports
from tests.cluster.real import RealApi, RefusedError
from tests.obot.obots import RELEASE, Obot, install_crds
from tests.obot.rig import domains_of, until
from tests.obot.storage import Storage

pytestmark = pytest.mark.cluster
Json = dict[str, Any]


@pytest.fixture(scope="module")
def machine() -> Iterator[RealApi]:
    """An API server without our CRDs, and the controllers that Deployments need."""
    try:
        api = RealApi().start()
    except CannotRunHereError as error:
        pytest.skip(str(error))
    flags = (
        str(api.control.programs / "kube-controller-manager"),
        f"--kubeconfig={api.kubeconfig}",
        "--controllers=deployment-controller,replicaset-controller",
        "--leader-elect=false",
        "--secure-port=0",
    )
    controllers = Program("kube-controller-manager", flags, api.folder / "controllers.log")
    controllers.start()
    yield api
    controllers.stop(grace_s=0)
    api.stop()


@pytest.fixture(scope="module")
def newcomer(machine: RealApi) -> Obot:
    """An Obot in a cluster that does not know FirewallPolicies; its namespaces admit restricted pods only."""
    made = Obot(machine, with_crds=False)
    for namespace in (made.home, made.mcp):
        machine.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    return made


def test_it_is_installed_with_what_obot_may_do(newcomer: Obot, tmp_path: Path) -> None:
    """No verb is missing, no CRD is needed, no pod is waited for; its pod is one that `restricted` admits."""
    newcomer.start(tmp_path)
    made = newcomer.api.get("deployment,replicaset,role,rolebinding,serviceaccount", "-n", newcomer.home)
    kinds = {(item["kind"], item["metadata"]["name"]) for item in made["items"]}
    assert ("Deployment", RELEASE) in kinds
    assert {kind for kind, name in kinds if name == RELEASE} == {"Deployment"}
    until(lambda: len(newcomer.api.get("pods", "-n", newcomer.home)["items"]) == 1, lambda: "no pod")
    there = newcomer.api.get("role,rolebinding", "-n", newcomer.mcp)
    names = {(item["kind"], item["metadata"]["name"]) for item in there["items"]}
    assert {("Role", RELEASE), ("RoleBinding", RELEASE)} <= names
    user = f"system:serviceaccount:{newcomer.home}:obot"
    assert [event for event in newcomer.api.audit(user) if event["responseStatus"]["code"] == 403] == []


def test_every_start_of_obots_is_an_upgrade(newcomer: Obot, tmp_path: Path) -> None:
    """With other values, too, and with values that only a later Obot passes; and back again."""
    newcomer.start(tmp_path)
    newcomer.start(tmp_path, egress={"alwaysAllowDomains": ["packages.example.com"]}, somethingNew={"a": 1})
    found = newcomer.api.get("deployment", RELEASE, "-n", newcomer.home)
    template = found["spec"]["template"]
    assert "--always-allow=packages.example.com" in template["spec"]["containers"][0]["args"]
    assert template["metadata"]["annotations"]["nameward.dev/unread-values"] == "somethingNew"
    newcomer.helm("rollback", RELEASE, "1", "--wait", "--timeout", "2m")


def test_a_mistake_in_our_own_values_is_refused_in_a_sentence(newcomer: Obot, tmp_path: Path) -> None:
    """What was installed before stays."""
    newcomer.start(tmp_path)
    with pytest.raises(RefusedError, match="alwaysAllowDomain"):
        newcomer.start(tmp_path, egress={"alwaysAllowDomain": ["x.example"]})
    with pytest.raises(RefusedError, match="alwaysAllowDomains/0"):
        newcomer.start(tmp_path, egress={"alwaysAllowDomains": ["https://x.example"]})
    assert newcomer.api.get("deployment", RELEASE, "-n", newcomer.home)["spec"]["replicas"] == 1


def test_obot_may_do_no_more_than_its_own_chart_says(newcomer: Obot) -> None:
    """The rules of this test are Obot's: what it lacks is lacking here."""
    asked = {
        ("create", "serviceaccounts", newcomer.home): "no",
        ("create", "roles", newcomer.home): "no",
        ("create", "configmaps", newcomer.home): "no",
        ("create", "daemonsets.apps", newcomer.home): "no",
        ("create", "networkpolicies.networking.k8s.io", newcomer.mcp): "no",
        ("list", "replicasets.apps", newcomer.mcp): "no",
        ("create", "deployments.apps", newcomer.home): "yes",
        ("create", "rolebindings.rbac.authorization.k8s.io", newcomer.mcp): "yes",
        ("create", "customresourcedefinitions.apiextensions.k8s.io", ""): "no",
        ("create", "clusterroles.rbac.authorization.k8s.io", ""): "no",
    }
    said = {}
    for verb, resource, namespace in asked:
        where = ("-n", namespace) if namespace else ()
        arguments = ("auth", "can-i", verb, resource, *where)
        done = newcomer.api.run("kubectl", *arguments, kubeconfig=newcomer.kubeconfig)
        said[verb, resource, namespace] = done.stdout.strip()
    assert said == asked


def test_a_chart_with_an_account_of_its_own_cannot_be_installed(newcomer: Obot, tmp_path: Path) -> None:
    """That is why ours has none: Helm asks for it first, and is refused."""
    chart = tmp_path / "other"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: other\nversion: 0.0.1\n")
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "other"}}
    (chart / "templates" / "account.yaml").write_text(json.dumps(account))
    with pytest.raises(RefusedError, match=r"serviceaccounts .*forbidden"):
        newcomer.helm("install", "other", str(chart), "--wait", "--atomic", "--timeout", "2m")


def test_what_it_installs_carries_policies_over(newcomer: Obot, tmp_path: Path) -> None:
    """The Deployment's own command, as its own account: ready at once; it waits for the CRD, then works."""
    storage = Storage(tmp_path / "storage").start()
    token = tmp_path / "secret" / "apiKey"
    token.parent.mkdir()
    token.write_text("osa1-1-first\n")
    values = {"obotStorageURL": storage.url, "obotStorageTokenFile": str(token)}
    newcomer.start(tmp_path, **values, egress={"alwaysAllowDomains": ["packages.example.com"]})
    pod = newcomer.api.get("deployment", RELEASE, "-n", newcomer.home)["spec"]["template"]["spec"]
    [port] = free_ports(1)
    arguments = [each.replace("--listen=8081", f"--listen={port}") for each in pod["containers"][0]["args"]]
    assert f"--listen={port}" in arguments
    account = newcomer.api.kubeconfig_as(newcomer.home, pod["serviceAccountName"])
    log = tmp_path / "bridge.log"
    storage.server("gh", "api.example.com")
    nameward = Path(sys.executable).with_name("nameward")
    with log.open("w") as output:
        process = subprocess.Popen([nameward, *arguments, f"--kubeconfig={account}"], stderr=output)
    try:
        until(lambda: _page(port, "readyz") == "ok\n", log.read_text)
        until(lambda: "firewallpolicies: the API server refused: 404" in log.read_text(), log.read_text)
        assert "nameward_bridge_cluster_up 0.0" in _page(port, "metrics")
        install_crds(newcomer.api)
        wanted = {"obot-mnp1gh-fw": ["api.example.com", "packages.example.com"]}
        until(lambda: _carried(newcomer) == wanted, log.read_text)
        until(lambda: "nameward_bridge_problems 0.0" in _page(port, "metrics"), log.read_text)
        counted = _page(port, "metrics")
        assert 'nameward_bridge_writes_total{action="create",outcome="done"} 1.0' in counted
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        storage.stop()


def _page(port: int, name: str) -> str:
    with suppress(OSError), urllib.request.urlopen(f"http://localhost:{port}/{name}", timeout=10) as answer:
        return str(answer.read().decode())
    return ""


def test_it_is_uninstalled_without_a_trace_but_the_policies(newcomer: Obot, tmp_path: Path) -> None:
    """Obot does that where the provider is switched off. What is contained stays so."""
    newcomer.start(tmp_path)
    before = _carried(newcomer)
    newcomer.helm("uninstall", RELEASE, "--wait", "--timeout", "2m")
    assert RELEASE not in json.dumps(newcomer.api.get("deployment", "-n", newcomer.home))
    assert RELEASE not in json.dumps(newcomer.api.get("role,rolebinding", "-n", newcomer.mcp))
    assert _carried(newcomer) == before


def _carried(obot: Obot) -> dict[str, list[str]]:
    found = obot.api.run("kubectl", "get", "fwp", "-n", obot.mcp, "-o", "json")
    items = json.loads(found.stdout)["items"] if found.returncode == 0 else []
    return {item["metadata"]["name"]: domains_of(item) for item in items}
