"""What the node says of itself in the real cluster: NodeStatus, Events, break-glass, the whole inventory."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from enforcer.demo import places
from enforcer.demo.kube.client import Json
from enforcer.demo.kube.lab import ClusterLab
from enforcer.demo.kube.scenes import ClusterStage
from enforcer.demo.processes import run, wait_until
from policy.break_glass import REASON_MARK, UNTIL_MARK, rfc3339
from policy.runtime.clock import wall_seconds

pytestmark = pytest.mark.e2e
WITHIN_S = 60.0


def node_status(lab: ClusterLab) -> Json:
    """The status of the only NodeStatus; empty before there is one."""
    found = lab.cluster.get("nodestatuses")["items"]
    status: Json = found[0]["status"] if found else {}
    return status


def test_the_node_reports_what_it_enforces(stage: ClusterStage, lab: ClusterLab) -> None:
    """By its own account, with the generation of each policy that selects its pods."""
    [stored] = lab.cluster.get("firewallpolicies", "-n", places.NAMESPACE)["items"][:1]
    wanted = (stored["metadata"]["name"], stored["metadata"]["generation"])

    def is_reported() -> bool:
        said = node_status(lab)
        listed = {(each["name"], each["generation"]) for each in said.get("policies", [])}
        return bool(said.get("enforcing")) and wanted in listed

    assert wait_until(is_reported, WITHIN_S, 0.5), node_status(lab)
    [owner] = lab.cluster.get("nodestatuses")["items"][0]["metadata"]["ownerReferences"]
    assert owner["kind"] == "Node"


def test_describe_pod_says_what_was_refused(stage: ClusterStage, lab: ClusterLab) -> None:
    """An Event at the pod names what it looked up in vain."""
    assert stage.crm.stub.ask("told.example.org").rcode == "NXDOMAIN"

    def told() -> bool:
        described = lab.cluster.kubectl("describe", "pod", stage.crm.name, "-n", places.NAMESPACE)
        return "LookupRefused" in described and "Why:" in described

    assert wait_until(told, WITHIN_S, 1.0)


def test_break_glass_opens_a_namespace_for_a_while(stage: ClusterStage, lab: ClusterLab) -> None:
    """An annotation opens it, the node reports it, taking it away closes it and cuts what it opened."""
    pod = stage.ledger
    assert not pod.connect(places.ATTACKER4).ok
    until = rfc3339(wall_seconds() + 900)
    lab.cluster.kubectl(
        "annotate", "namespace", places.NAMESPACE, f"{UNTIL_MARK}={until}", f"{REASON_MARK}=INC-4711"
    )
    try:
        assert wait_until(lambda: pod.connect(places.ATTACKER4).ok, WITHIN_S, 0.2), lab.ward.tail()
        assert not pod.connect(places.METADATA, 80).ok
        stolen = pod.transfer(places.ATTACKER4)
        assert stolen.grows()
        assert wait_until(lambda: node_status(lab).get("breakGlass") == [places.NAMESPACE], WITHIN_S, 0.5)
    finally:
        lab.cluster.kubectl("annotate", "namespace", places.NAMESPACE, f"{UNTIL_MARK}-", f"{REASON_MARK}-")
    assert stolen.ends(WITHIN_S)
    stolen.close()
    assert wait_until(lambda: not pod.connect(places.ATTACKER4).ok, WITHIN_S, 0.2)
    assert wait_until(lambda: node_status(lab).get("breakGlass") == [], WITHIN_S, 0.5)


def test_the_inventory_of_the_cluster(stage: ClusterStage, lab: ClusterLab) -> None:
    """Asked with a kubeconfig: the pods are covered, on the node that enforces."""
    argv = ["inventory", "--cluster", "--kubeconfig", str(lab.cluster.kubeconfig), "-o", "json"]
    started = [sys.executable, "-c", "from enforcer.cli import main; main()", *argv]

    def rows() -> list[dict[str, Any]]:
        done = run(lab.node, started, timeout_s=120)
        assert done.returncode in (0, 1), done.stderr  # 1: a pod is uncontained
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def is_covered() -> bool:
        states = {row["pod"]: row["state"] for row in rows()}
        return states.get(stage.crm.name) == "covered"

    assert wait_until(is_covered, WITHIN_S, 2.0), rows()
