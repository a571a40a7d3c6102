"""Other networks than cables and routes: a bridge of the node's, and a path that no rule of ours sees."""

from __future__ import annotations

import pytest

from enforcer.demo import lab as labs
from enforcer.demo import places
from enforcer.demo.kube import pods
from enforcer.demo.kube.client import Json
from enforcer.demo.kube.lab import ClusterLab
from enforcer.demo.kube.node import bridge, ptp
from enforcer.demo.kube.scenes import ClusterStage
from enforcer.demo.kube.ward import NAMESPACE
from enforcer.demo.processes import output_of, run, wait_until

pytestmark = pytest.mark.e2e
WITHIN_S = 90.0
OUTSIDE = {"ip": "u32 match ip dst 192.0.0.0/8", "ipv6": "u32 match ip6 dst 2001::/16"}
"""What is led past the node's netfilter, as eBPF host routing does it; the node itself is reached."""
BRIDGED = ("10.244.0.128/25", "fd00:10:244:0:1::/80")
"""A part of the node's ranges, for pods on the bridge."""


def test_pods_on_a_bridge_beside_pods_on_cables(stage: ClusterStage, lab: ClusterLab) -> None:
    """Contained alike: from outside, from each other's names, and on the bridge itself."""
    node = lab.cluster.node
    node.set_network(bridge(BRIDGED))
    try:
        first, second = pods.start(
            lab.cluster,
            pods.pod("bridged-1", server=labs.CRM_SERVER),
            pods.pod("bridged-2", server=labs.LEDGER_SERVER),
        )
    finally:
        node.set_network(ptp(places.HOME.pod_cidrs))
    try:
        stage.lab.world.forget()
        assert wait_until(lambda: bool(first.stub.ask(places.CRM).addresses), WITHIN_S, 0.2), lab.ward.tail()
        assert first.connect(places.SITE_OF[places.CRM][0], wait_s=5.0).ok
        assert second.stub.ask(places.LEDGER).addresses
        assert second.stub.ask(places.CRM).rcode == "NXDOMAIN"
        assert not second.connect(places.SITE_OF[places.CRM][0]).ok
        assert not first.connect(places.ATTACKER4).ok
        assert not first.connect(second.addresses[0]).ok
        assert stage.lab.world.counted("attacker") == 0
        assert stage.crm.stub.ask(places.CRM).addresses
    finally:
        first.close()
        second.close()
        run(stage.lab.node, ["ip", "link", "del", "cni0"])


def test_a_path_past_the_rules_is_seen(stage: ClusterStage, lab: ClusterLab) -> None:
    """Packets redirected as eBPF host routing does it: the node stops saying that it enforces, and why."""
    interface = interface_of(stage, stage.crm.addresses[0])
    redirect = ["action", "mirred", "egress", "redirect", "dev", "uplink0"]
    made = run(stage.lab.node, ["tc", "qdisc", "add", "dev", interface, "clsact"])
    if made.returncode != 0:
        pytest.skip(f"this kernel has no clsact: {made.stderr.strip()}")
    try:
        for protocol, match in OUTSIDE.items():
            adding = ["tc", "filter", "add", "dev", interface, "ingress", "protocol", protocol]
            added = run(stage.lab.node, [*adding, *match.split(), *redirect])
            if added.returncode != 0:
                pytest.skip(f"this kernel has no u32 or act_mirred: {added.stderr.strip()}")
        assert wait_until(lambda: status_of(lab)["enforcing"] is False, WITHIN_S, 0.5), status_of(lab)
        said = "; ".join(map(str, status_of(lab)["problems"]))
        assert f"packets of pod {places.NAMESPACE}/{stage.crm.name} ({interface})" in said
        assert "(u32)" in said
        assert wait_until(lambda: not is_ready(lab), WITHIN_S, 0.5), lab.ward.tail()
        assert wait_until(lambda: interface in reported(lab), WITHIN_S, 0.5), reported(lab)
    finally:
        run(stage.lab.node, ["tc", "qdisc", "del", "dev", interface, "clsact"])
    assert wait_until(lambda: status_of(lab)["enforcing"] is True, WITHIN_S, 0.5), status_of(lab)
    assert wait_until(lambda: is_ready(lab), WITHIN_S, 0.5), lab.ward.tail()
    assert wait_until(lambda: bool(stage.crm.stub.ask(places.CRM).addresses), WITHIN_S, 0.5)
    assert stage.crm.connect(places.SITE_OF[places.CRM][0], wait_s=5.0).ok


def status_of(lab: ClusterLab) -> Json:
    """The node's own word."""
    return lab.ward.status()


def is_ready(lab: ClusterLab) -> bool:
    """Whether the kubelet calls every agent ready."""
    listed = lab.cluster.get("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=agent")
    return all(each["ready"] for pod in listed["items"] for each in pod["status"]["containerStatuses"])


def reported(lab: ClusterLab) -> str:
    """What `kubectl get nodestatuses` knows of nodes that do not enforce."""
    found = [each.get("status", {}) for each in lab.cluster.get("nodestatuses")["items"]]
    return "; ".join(text for said in found if said.get("enforcing") is False for text in said["problems"])


def interface_of(stage: ClusterStage, address: str) -> str:
    """The node's end of a pod's cable, by its host route."""
    words = output_of(stage.lab.node, ["ip", "route", "get", address]).split()
    return words[words.index("dev") + 1]
