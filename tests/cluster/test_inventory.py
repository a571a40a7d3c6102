"""``nameward inventory --cluster`` against a real API server, as a person with a kubeconfig runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from enforcer.cli import main
from tests.cluster.charted import NODE_STATUSES, POLICIES, WEB_POLICIES, firewall_policy, webgroup_policy
from tests.cluster.real import RealApi

pytestmark = pytest.mark.cluster

Json = dict[str, Any]


def run(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, ["inventory", "--cluster", "-o", "json", *arguments])


def node(name: str, **labels: str) -> Json:
    """A Node."""
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def pod(space: str, name: str, on: str, **spec: object) -> Json:
    """A Pod that was placed."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": space, "labels": {"app": name}},
        "spec": {"nodeName": on, "containers": [{"name": "c", "image": "none"}], **spec},
    }


@pytest.fixture(scope="module")
def space(kinds: RealApi) -> str:
    """A governed namespace with a pod of each sort, on nodes of each sort."""
    made = kinds.namespace("survey", labels={"nameward.dev/governed": "true"})
    kinds.apply(
        node(f"{made}-good"),
        node(f"{made}-aci", type="virtual-kubelet"),
        node(f"{made}-silent"),
        pod(made, "ms1", f"{made}-good"),
        pod(made, "lonely", f"{made}-good"),
        pod(made, "host", f"{made}-good", hostNetwork=True),
        pod(made, "burst", f"{made}-aci"),
        pod(made, "early", f"{made}-silent"),
    )
    status = {"version": "1", "enforcing": True, "problems": [], "breakGlass": []}
    kinds.admin.create(
        NODE_STATUSES,
        {
            "apiVersion": "nameward.dev/v1alpha1",
            "kind": "NodeStatus",
            "metadata": {"name": f"{made}-good"},
            "status": status,
        },
    )
    kinds.admin.create(POLICIES.format(made), firewall_policy("ms1"))
    idle = webgroup_policy("idle", selector={"matchLabels": {"app": "gone"}})
    kinds.admin.create(WEB_POLICIES.format(made), idle)
    return made


def test_every_pod_is_listed_with_its_node(kinds: RealApi, space: str) -> None:
    """Covered, default-denied, and uncontained for each reason; then what selects nobody."""
    done = run("--kubeconfig", str(kinds.kubeconfig), "-n", space)
    assert done.exit_code == 1, done.output
    rows = json.loads(done.stdout)
    states = {row["pod"] or row["policies"][0]: (row["state"], row["reason"]) for row in rows}
    assert states["ms1"][0] == "covered"
    assert states["lonely"][0] == "default-denied"
    assert "hostNetwork" in states["host"][1]
    assert "is virtual" in states["burst"][1]
    assert "has never reported" in states["early"][1]
    assert {states[name][0] for name in ("host", "burst", "early")} == {"uncontained"}
    assert states[f"{space}/idle"][0] == "selects-nothing"
    assert "namespaces with nameward.dev/governed=true" in done.stderr


def test_one_node_is_asked_for(kinds: RealApi, space: str) -> None:
    """The options narrow, and the exit code is that of what is listed."""
    done = run("--kubeconfig", str(kinds.kubeconfig), "-n", space, "--pod", "ms1", "--node", f"{space}-good")
    assert done.exit_code == 0, done.output
    [row] = json.loads(done.stdout)
    assert row["pod"] == "ms1"


def test_who_may_not_read_is_told(kinds: RealApi, space: str) -> None:
    """In one sentence, with what the API server says."""
    done = run("--kubeconfig", str(kinds.kubeconfig_as(space, "default")))
    assert done.exit_code == 1
    assert "the API server refuses: 403 Forbidden" in done.stderr
    assert done.stderr.count("\n") <= 2


def test_who_may_not_read_reports_gets_the_rest(kinds: RealApi, space: str) -> None:
    """With a warning; a silent node is not accused then."""
    objects = "pods,namespaces,nodes,services"
    kinds.kubectl("create", "clusterrole", f"{space}-reader", "--verb=list", f"--resource={objects}")
    policies = "firewallpolicies.networking.aviatrix.com,webgrouppolicies.networking.aviatrix.com"
    kinds.kubectl("create", "clusterrole", f"{space}-policies", "--verb=list", f"--resource={policies}")
    for name in ("reader", "policies"):
        kinds.kubectl(
            "create", "clusterrolebinding", f"{space}-{name}", f"--clusterrole={space}-{name}",
            f"--serviceaccount={space}:default",
        )  # fmt: skip
    done = run("--kubeconfig", str(kinds.kubeconfig_as(space, "default")), "-n", space, "--pod", "early")
    assert done.exit_code == 0, done.output
    assert "NodeStatuses cannot be read" in done.stderr


def test_a_kubeconfig_that_is_none_is_said(tmp_path: Path) -> None:
    """With what to do; and one without --cluster is for nothing."""
    done = run("--kubeconfig", str(tmp_path / "gone"))
    assert done.exit_code == 2
    assert "name another with --kubeconfig" in done.stderr
    done = CliRunner().invoke(main, ["inventory", "--kubeconfig", "x"])
    assert done.exit_code == 2
    assert "--cluster" in done.stderr
