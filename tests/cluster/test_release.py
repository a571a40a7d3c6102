"""The chart as a release: installed, upgraded, rolled back, removed, by Helm on a real API server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from enforcer.demo.failure import CannotRunHereError
from tests.charts.renders import CHART, EVERYTHING, RANGES, RELEASE, ROOT, SPACE
from tests.cluster.real import RealApi

pytestmark = pytest.mark.cluster

OWN = ("clusterroles", "clusterrolebindings", "priorityclasses", "validatingadmissionpolicies")


@pytest.fixture(scope="module")
def bare() -> Iterator[RealApi]:
    """An API server of the module's own, with Nameward's namespace as deploy/ has it."""
    try:
        started = RealApi().start()
    except CannotRunHereError as error:
        pytest.skip(str(error))
    try:
        started.apply(yaml.safe_load((ROOT / "deploy" / "namespace.yaml").read_text()))
        started.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "obot-mcp"}})
        yield started
    finally:
        started.stop()


def left(api: RealApi) -> list[str]:
    """Objects of the release, in its namespace and beside it."""
    of_release = f"app.kubernetes.io/instance={RELEASE}"
    spaced = api.kubectl(
        "get", "all,configmaps,serviceaccounts,roles,pdb,netpol", "-n", SPACE, "-l", of_release, "-o", "name"
    )
    return (spaced + api.kubectl("get", ",".join(OWN), "-l", of_release, "-o", "name")).split()


def test_a_namespace_that_admits_no_agents_is_refused_with_what_to_type(bare: RealApi) -> None:
    """Otherwise the DaemonSet would stand there without a pod, and `helm install` be content."""
    space = bare.namespace("narrow", labels={"pod-security.kubernetes.io/enforce": "baseline"})
    done = bare.run("helm", "install", RELEASE, str(CHART), "-n", space, "--dry-run=server", *RANGES)
    assert done.returncode != 0
    wanted = f"kubectl label namespace {space} --overwrite pod-security.kubernetes.io/enforce=privileged"
    assert wanted in done.stderr


def test_its_life(bare: RealApi) -> None:
    """Each step of it; at the end nothing is left but the kinds, which other objects may need."""
    notes = bare.helm("install", RELEASE, str(CHART), "-n", SPACE, *RANGES)
    assert "Deployed does not mean enforced" in notes
    assert "kubectl label namespace NAMESPACE nameward.dev/governed=true" in notes
    assert f"helm test {RELEASE} -n {SPACE}" in notes
    first = left(bare)
    assert "daemonset.apps/nameward-agent" in first
    options = [word for word in EVERYTHING if "openshift" not in word and "monitoring" not in word]
    options = [word for word in options if word != "--set"]
    bare.helm(
        "upgrade", RELEASE, str(CHART), "-n", SPACE, *(word for each in options for word in ("--set", each))
    )
    assert set(left(bare)) > set(first)
    bare.helm("rollback", RELEASE, "1", "-n", SPACE)
    assert left(bare) == first
    bare.helm("uninstall", RELEASE, "-n", SPACE, "--no-hooks")
    assert left(bare) == []
    assert "firewallpolicies.networking.aviatrix.com" in bare.kubectl("get", "crd", "-o", "name")


def test_the_hook_before_uninstalling_is_what_may_run_then(bare: RealApi) -> None:
    """Its account may do what it must, and nothing else; it does not exist at other times."""
    hooks = [
        each
        for each in yaml.safe_load_all(bare.helm("template", RELEASE, str(CHART), "-n", SPACE, *RANGES))
        if each and each["metadata"].get("annotations", {}).get("helm.sh/hook") == "pre-delete"
    ]
    assert [each["kind"] for each in hooks] == ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Job"]
    bare.apply(*(each for each in hooks if each["kind"] != "Job"))
    door = bare.admin

    def may(verb: str, resource: str, name: str = "", group: str = "") -> bool:
        asked = {"verb": verb, "resource": resource, "name": name, "group": group}
        spec = {"user": f"system:serviceaccount:{SPACE}:{RELEASE}-uninstall", "resourceAttributes": asked}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        return bool(
            door.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", body)["status"]["allowed"]
        )

    assert may("patch", "namespaces", SPACE)
    assert may("uninstall", "namespaces", SPACE, "nameward.dev")
    assert may("list", "nodestatuses", group="nameward.dev")
    assert not may("patch", "namespaces", "obot-mcp")
    assert not may("uninstall", "namespaces", "obot-mcp", "nameward.dev")
    assert not may("delete", "namespaces", SPACE)
    assert not may("list", "pods")
