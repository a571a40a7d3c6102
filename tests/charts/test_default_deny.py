"""The default-deny pack: its plain form is what Kustomize makes, and Nameward understands all of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from enforcer.demo.failure import CannotRunHereError
from enforcer.demo.kube import binaries
from policy.manifest import EVERY_NAMESPACE, load_manifests
from tests.charts.renders import ROOT, Json, objects_of

pytestmark = pytest.mark.cluster

PACK = ROOT / "deploy" / "default-deny"
CLUSTERS = sorted(
    path.parent.name for path in PACK.glob("*/kustomization.yaml") if path.parent.name != "base"
)
NEEDS = "nameward.dev/needs-"
DNS = {("UDP", 53), ("TCP", 53), ("UDP", 15353), ("TCP", 15353)}
"""Port 53 as the pod asks it, and where the node's resolver answers."""


@pytest.fixture(scope="session")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program; it needs no cluster here."""
    try:
        return binaries.link(tmp_path_factory.mktemp("programs")) / "kubectl"
    except CannotRunHereError as error:
        pytest.skip(str(error))


def test_every_cluster_of_the_readme_is_there() -> None:
    """Kustomize and plain YAML for each."""
    text = (PACK / "README.md").read_text()
    for name in CLUSTERS:
        assert f"kubectl apply -k deploy/default-deny/{name}`" in text
        assert f"kubectl apply -f deploy/default-deny/plain/{name}.yaml`" in text
    assert sorted(path.stem for path in (PACK / "plain").iterdir()) == CLUSTERS
    assert len(CLUSTERS) == 4


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_plain_form_is_what_kustomize_makes(name: str, kubectl: Path) -> None:
    """`make golden` writes it anew."""
    done = subprocess.run([kubectl, "kustomize", PACK / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = f"# Made by kubectl kustomize deploy/default-deny/{name}, where the comments stand.\n{done.stdout}"
    file = PACK / "plain" / f"{name}.yaml"
    if os.environ.get("NAMEWARD_WRITE_GOLDEN"):
        file.write_text(made)
    assert file.read_text() == made


@pytest.mark.parametrize("name", CLUSTERS)
def test_nameward_understands_all_of_it(name: str) -> None:
    """No error; and its deny states the default, so that it takes nothing from other policies."""
    file = PACK / "plain" / f"{name}.yaml"
    loaded = load_manifests({str(file): file.read_text()}, EVERY_NAMESPACE)
    assert [each for each in loaded.findings if each.severity == "error"] == []
    assert {policy.name for policy in loaded.policies} >= {"default-deny", "api-server"}


@pytest.mark.parametrize("name", CLUSTERS)
def test_exceptions_are_for_pods_that_carry_a_label(name: str) -> None:
    """Nothing is opened for all pods of the namespace."""
    for each in objects_of((PACK / "plain" / f"{name}.yaml").read_text()):
        if each["kind"] == "FirewallPolicy":
            for rule in each["spec"]["rules"]:
                labels = rule.get("selector", {}).get("matchLabels", {})
                assert rule["action"] == "deny" or any(key.startswith(NEEDS) for key in labels)
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] != "default-deny":
            assert any(key.startswith(NEEDS) for key in each["spec"]["podSelector"]["matchLabels"])


def test_the_second_belt_lets_lookups_pass_and_closes_what_is_private() -> None:
    """The resolver's port beside port 53; no private range but by a policy of one's own."""
    file = PACK / "base" / "network-policy.yaml"
    [policy] = objects_of(file.read_text())
    lookups, public = policy["spec"]["egress"]
    assert {(each["protocol"], each["port"]) for each in lookups["ports"]} == DNS
    assert _closed(public) >= {
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "100.64.0.0/10",
    }


def _closed(rule: Json) -> set[str]:
    return set(rule["to"][0]["ipBlock"]["except"])
