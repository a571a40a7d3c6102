"""``nameward gate`` inside pods of a node with the real daemon, and what the node says of its pods."""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from enforcer.demo import manifests, places, prerequisites
from enforcer.demo.failure import CannotRunHereError
from enforcer.demo.lab import CRM_SERVER, LEDGER_SERVER, TEMP_SERVER, Lab, running
from enforcer.demo.network import pod_interface
from enforcer.demo.pods import Pod
from enforcer.demo.processes import output_of, run, wait_until

pytestmark = pytest.mark.kernel

OUTSIDE = {"ip": "u32 match ip dst 192.0.0.0/8", "ipv6": "u32 match ip6 dst 2001::/16"}
NOTRACK = "table ip others {{\nchain pre {{\ntype filter hook prerouting priority raw\n{}\n}}\n}}"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A node that enforces, with two pods that have policies."""
    try:
        prerequisites.require()
    except CannotRunHereError as error:
        pytest.skip(str(error))
    with running(enforced=False) as made:
        for server, index in ((CRM_SERVER, 10), (LEDGER_SERVER, 11)):
            made.set_domains(server, [places.CRM])
            made.add_pod(server, index)
        made.ward.start()
        yield made


def gate(pod: Pod, *arguments: str, timeout_s: float = 90.0) -> subprocess.CompletedProcess[str]:
    """Run it in the pod, as the init container does: no configuration, the cluster's DNS as server."""
    main = "from enforcer.cli import main; main()"
    argv = [sys.executable, "-c", main, "gate", "--server", places.CLUSTER_DNS, *arguments]
    return run(pod.space, argv, timeout_s=timeout_s)


def pod_of(lab: Lab, server: str) -> Pod:
    """The pod of an MCP server."""
    return next(pod for name, pod in lab.pods.items() if name.startswith(server))


@contextmanager
def redirected(lab: Lab, pod: Pod) -> Iterator[None]:
    """Take what a pod sends outside past netfilter, as eBPF host routing does."""
    device = pod_interface(pod.index)
    output_of(lab.node, ["tc", "qdisc", "add", "dev", device, "clsact"])
    try:
        for protocol, match in OUTSIDE.items():
            words = ["tc", "filter", "add", "dev", device, "ingress", "protocol", protocol, *match.split()]
            action = ["action", "mirred", "egress", "redirect", "dev", "uplink0"]
            if run(lab.node, [*words, *action]).returncode:
                pytest.skip("this kernel cannot redirect with tc (CONFIG_NET_CLS_U32, CONFIG_NET_ACT_MIRRED)")
        yield
    finally:
        output_of(lab.node, ["tc", "qdisc", "del", "dev", device, "clsact"])


def problems(lab: Lab) -> str:
    """What ``status`` says is wrong."""
    return "; ".join(map(str, lab.ward.status()["problems"]))


def test_the_gate_opens_for_a_pod_that_is_enforced(lab: Lab) -> None:
    """It names the pod, and the generation of the policy."""
    pod = pod_of(lab, CRM_SERVER)
    ended = gate(pod, "--wait", "60s", "--namespace", places.NAMESPACE, "--name", pod.name)
    assert ended.returncode == 0, ended.stderr
    assert f"policy is enforced on {places.NAMESPACE}/{pod.name} (generation " in ended.stdout
    assert lab.ward.status()["enforcing"]


def test_the_gate_stays_shut_for_another_pod_of_the_same_address(lab: Lab) -> None:
    """The node still takes the address for its last owner's: uid and name tell."""
    pod = pod_of(lab, CRM_SERVER)
    for other in (("--uid", str(uuid.uuid4())), ("--namespace", "x", "--name", "y")):
        ended = gate(pod, "--wait", "1s", *other)
        assert ended.returncode == 1
        assert "the node takes this address for another pod's" in ended.stderr


def test_the_gate_waits_for_a_pod_that_nobody_knows_yet(lab: Lab) -> None:
    """Its address comes to the watch after its container started; the gate ends soon after."""
    pod = lab.add_pod(TEMP_SERVER, 13, declared=False)
    uid = str(uuid.uuid4())
    ended: list[subprocess.CompletedProcess[str]] = []
    waiting = threading.Thread(target=lambda: ended.append(gate(pod, "--wait", "60s", "--uid", uid)))
    waiting.start()
    try:
        unknown = gate(pod, "--wait", "1s")
        assert unknown.returncode == 1
        assert "nothing refuses a packet" in unknown.stderr, "an unknown pod's packets are dropped"
        assert not ended
        document = manifests.pod(TEMP_SERVER, pod.name, uid, pod.addresses)
        lab.manifests.put(f"pod-{pod.name}", document)
    finally:
        waiting.join(80)
    assert ended[0].returncode == 0, ended[0].stderr
    lab.remove_pod(pod)


def test_a_redirected_pod_keeps_gate_and_node_from_saying_that_it_is_enforced(lab: Lab) -> None:
    """Both say why; both get over it."""
    pod = pod_of(lab, CRM_SERVER)
    with redirected(lab, pod):
        shut = gate(pod, "--wait", "2s")
        assert shut.returncode == 1
        assert "nobody may reach" in shut.stderr
        assert wait_until(lambda: not lab.ward.status()["enforcing"], 60.0)
        assert f"packets of pod {places.NAMESPACE}/{pod.name} (veth10)" in problems(lab)
        assert "(u32)" in problems(lab)
        assert gate(pod_of(lab, LEDGER_SERVER), "--wait", "60s").returncode == 0, "the others are enforced"
    assert wait_until(lambda: lab.ward.status()["enforcing"], 60.0), problems(lab)
    assert gate(pod, "--wait", "60s").returncode == 0


def test_what_the_gate_tries_is_nobodys_blocked_packet(lab: Lab) -> None:
    """It would be the first thing that everybody sees in ``nameward blocked``."""
    pod = pod_of(lab, CRM_SERVER)
    assert gate(pod, "--wait", "60s").returncode == 0
    rows = lab.ward.blocked(pod.name)
    assert [row for row in rows if row.get("address") in {"192.0.2.1", "2001:db8::1"}] == []
    assert [row for row in rows if "gate.nameward" in str(row.get("name"))] == []


def test_a_resolver_that_starts_anew_knows_who_is_enforced(lab: Lab) -> None:
    """The enforcer tells it again."""
    pod = pod_of(lab, CRM_SERVER)
    lab.ward.kill("resolver")
    assert gate(pod, "--wait", "60s").returncode == 0
    lab.ward.kill("enforcer")
    assert gate(pod, "--wait", "60s").returncode == 0


def test_untracked_pods_keep_the_node_from_enforcing_and_the_chain_is_named(lab: Lab) -> None:
    """Somebody's NOTRACK on pods' packets: they are dropped, and the node is not ready."""
    rule = f"ip saddr {pod_of(lab, LEDGER_SERVER).addresses[0]} notrack"
    output_of(lab.node, ["nft", "-f", "-"], NOTRACK.format(rule))
    try:
        pod_of(lab, LEDGER_SERVER).connect(places.ATTACKER4)
        assert wait_until(lambda: not lab.ward.status()["enforcing"], 60.0)
        assert "come without connection tracking, by ip others pre" in problems(lab)
    finally:
        output_of(lab.node, ["nft", "delete", "table", "ip", "others"])


def test_without_nameward_the_gate_says_so() -> None:
    """Nothing refuses, nobody answers: it does not end well."""
    try:
        prerequisites.require()
    except CannotRunHereError as error:
        pytest.skip(str(error))
    with running(enforced=False) as lab:
        pod = lab.add_pod(CRM_SERVER, 10)
        ended = gate(pod, "--wait", "1s")
    assert ended.returncode == 1
    assert "nameward: policy is not enforced on this pod: " in ended.stderr
