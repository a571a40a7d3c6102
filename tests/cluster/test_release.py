"""The chart as a release: installed, upgraded, rolled back, removed, by Helm on a real API server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

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


def test_definitions_are_upgraded_as_documented(bare: RealApi, tmp_path: Path) -> None:
    """Helm made them and never touches them again; docs/kubernetes.md has the command that does."""
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    found = re.search(r"^kubectl (apply .*) -f deploy/charts/nameward/crds$", page, re.MULTILINE)
    assert found is not None
    command = found[1].split()
    crds = CHART / "crds"
    for path in crds.iterdir():
        bare.kubectl("delete", "--ignore-not-found", "--timeout=60s", "-f", str(path))
    bare.helm("install", RELEASE, str(CHART), "-n", SPACE, *RANGES)
    for path in crds.iterdir():
        changed = path.read_text().replace("description: ", "description: Newer. ", 1)
        assert changed != path.read_text()
        (tmp_path / path.name).write_text(changed)
    meek = [word for word in command if word != "--force-conflicts"]
    assert "conflict with" in bare.refusal(*meek, "-f", str(tmp_path))
    bare.kubectl(*command, "-f", str(tmp_path))
    for path in crds.iterdir():
        name = yaml.safe_load(path.read_text())["metadata"]["name"]
        assert "Newer. " in bare.kubectl("get", "crd", name, "-o", "yaml")
    bare.helm("uninstall", RELEASE, "-n", SPACE, "--no-hooks")


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
