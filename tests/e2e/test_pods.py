"""Pods of each sort that Kubernetes knows, with programs of their own in them."""

from __future__ import annotations

import json

import pytest

from enforcer.demo import lab as labs
from enforcer.demo import places
from enforcer.demo.kube import images, pods
from enforcer.demo.kube.client import Json
from enforcer.demo.kube.lab import ClusterLab
from enforcer.demo.kube.scenes import ClusterStage
from enforcer.demo.processes import wait_until

pytestmark = pytest.mark.e2e
WITHIN_S = 90.0
IMAGE = f"{images.NAME}:{images.TAG}"
CLIENT = """
import json, socket, sys, time
began = time.monotonic()
said = {}
try:
    found = socket.getaddrinfo(sys.argv[1], 443, type=socket.SOCK_STREAM)
    said["resolved"] = round(time.monotonic() - began, 2)
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as opened:
            opened.settimeout(30)
            opened.connect(address)
    said["connected"] = round(time.monotonic() - began, 2)
except OSError as error:
    said["error"] = str(error)
print(json.dumps(said))
sys.exit("error" in said)
"""
"""What an MCP server does in its first instant: the C library's lookup, then a connection to each address."""


def client(name: str, server: str, asked: str, **spec: object) -> Json:
    """A pod whose program asks for a name and connects, at once, and ends."""
    wanted = pods.pod(name, server=server, restartPolicy="Never", **spec)
    wanted["spec"]["containers"] = [
        {
            "name": "main",
            "image": IMAGE,
            "imagePullPolicy": "Never",
            "command": ["/usr/bin/python3", "-c", CLIENT, asked],
        }
    ]
    return wanted


def outcome(lab: ClusterLab, name: str) -> Json:
    """What a client's program said when it had ended."""

    def phase() -> str:
        return str(lab.cluster.get("pod", name, "-n", places.NAMESPACE)["status"].get("phase"))

    assert wait_until(lambda: phase() in {"Succeeded", "Failed"}, WITHIN_S, 0.5), lab.ward.tail()
    said: Json = json.loads(lab.cluster.kubectl("logs", name, "-n", places.NAMESPACE))
    return said


def delete(lab: ClusterLab, *names: str) -> None:
    """Delete pods and wait until they are gone."""
    lab.cluster.kubectl("delete", "pod", *names, "-n", places.NAMESPACE, "--ignore-not-found", "--now")


def test_twenty_pods_start_at_once(lab: ClusterLab) -> None:
    """The first packets of each come before the API server has its address; none of them fails."""
    names = [f"burst-{number:02d}" for number in range(20)]
    lab.cluster.apply(*(client(name, labs.CRM_SERVER, places.CRM) for name in names))
    said = {name: outcome(lab, name) for name in names}
    delete(lab, *names)
    assert {name: words for name, words in said.items() if "error" in words} == {}


def test_a_new_pods_program_is_contained_from_its_first_packet(stage: ClusterStage, lab: ClusterLab) -> None:
    """What its policy does not name is refused, however early it asks."""
    stage.lab.world.forget()
    lab.cluster.apply(client("early", labs.CRM_SERVER, places.DROP))
    said = outcome(lab, "early")
    delete(lab, "early")
    assert "error" in said
    assert stage.lab.world.counted("attacker") == 0


def test_a_pod_without_a_policy_reaches_nothing(lab: ClusterLab) -> None:
    """Governed and selected by nobody: default deny."""
    lab.cluster.apply(client("nobody", "ms1none0", places.CRM))
    said = outcome(lab, "nobody")
    delete(lab, "nobody")
    assert "error" in said


def test_a_pod_with_a_dns_of_its_own(lab: ClusterLab) -> None:
    """dnsPolicy None: whatever server is named, ours answers."""
    dns = {"dnsPolicy": "None", "dnsConfig": {"nameservers": [places.ATTACKER_DNS4]}}
    lab.cluster.apply(client("own-dns", labs.CRM_SERVER, places.CRM, **dns))
    said = outcome(lab, "own-dns")
    delete(lab, "own-dns")
    assert "connected" in said, said


def test_a_completed_pod_gives_its_address_back(stage: ClusterStage, lab: ClusterLab) -> None:
    """What has ended holds no grant, although its object is still there."""
    lab.cluster.apply(client("done", labs.CRM_SERVER, places.CRM))
    assert "connected" in outcome(lab, "done")
    assert wait_until(lambda: not stage.lab.ward.grants("done"), WITHIN_S, 0.2)
    delete(lab, "done")


def test_a_terminating_pod_keeps_its_policy_until_it_is_gone(stage: ClusterStage, lab: ClusterLab) -> None:
    """It may still have something to say to what it was permitted."""
    wanted = pods.pod("leaving", server=labs.CRM_SERVER, terminationGracePeriodSeconds=20)
    wanted["spec"]["containers"][0] = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["/usr/bin/python3", "-c", "import signal,time\nsignal.signal(15,print)\ntime.sleep(600)"],
    }
    pod = pods.start(lab.cluster, wanted)[0]
    address = pod.stub.ask(places.CRM).addresses[0]
    transfer = pod.transfer(address)
    lab.cluster.kubectl("delete", "pod", "leaving", "-n", places.NAMESPACE, "--wait=false")
    found = lab.cluster.get("pod", "leaving", "-n", places.NAMESPACE)
    assert found["metadata"].get("deletionTimestamp")
    assert transfer.grows()
    assert pod.stub.ask(places.CRM).addresses
    assert pod.stub.ask(places.LEDGER).rcode == "NXDOMAIN"
    pod.close()
    assert wait_until(lambda: not stage.lab.ward.grants("leaving"), WITHIN_S, 0.2)


def test_a_sandbox_made_anew(lab: ClusterLab) -> None:
    """A pod whose sandbox died has another address: its policy follows, the old address has none."""
    pod = pods.start(lab.cluster, pods.pod("reborn", server=labs.CRM_SERVER))[0]
    before = pod.addresses
    listed = lab.cluster.machine.run(
        ["ctr", "-a", "/run/containerd/containerd.sock", "-n", "k8s.io", "containers", "ls", "-q",
         f'labels."io.kubernetes.pod.uid"=={pod.uid},labels."io.cri-containerd.kind"==sandbox']
    )  # fmt: skip
    sandbox = listed.split()[0]
    lab.cluster.machine.run(
        [
            "ctr",
            "-a",
            "/run/containerd/containerd.sock",
            "-n",
            "k8s.io",
            "tasks",
            "kill",
            "-s",
            "KILL",
            sandbox,
        ]
    )

    def has_moved() -> bool:
        found = lab.cluster.get("pod", "reborn", "-n", places.NAMESPACE)
        conditions = {each["type"]: each["status"] for each in found["status"].get("conditions", [])}
        return found["status"].get("podIP") not in {None, before[0]} and conditions.get("Ready") == "True"

    assert wait_until(has_moved, WITHIN_S, 0.5)
    again = pods.ClusterPod(lab.cluster, lab.cluster.get("pod", "reborn", "-n", places.NAMESPACE))
    assert wait_until(lambda: bool(again.stub.ask(places.CRM).addresses), WITHIN_S, 0.2)
    assert again.connect(places.SITE_OF[places.CRM][0], wait_s=5.0).ok
    again.close()
    pod.space.close()


def test_a_pod_of_a_namespace_that_is_not_governed(stage: ClusterStage, lab: ClusterLab) -> None:
    """Nobody asked us to contain it."""
    lab.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "free"}})
    lab.cluster.await_account("free", "default")
    pod = pods.start(lab.cluster, pods.pod("free", "free"))[0]
    assert wait_until(lambda: pod.connect(places.ATTACKER4).ok, WITHIN_S, 0.2)
    assert pod.stub.ask("kubernetes.default.svc.cluster.local").addresses
    pod.close()
    stage.lab.world.forget()


def test_what_cannot_be_contained_is_listed(lab: ClusterLab) -> None:
    """A pod of the host's network, and one that may write its own packets: inventory says so."""
    host = pods.pod("on-host", hostNetwork=True)
    raw = pods.pod("raw-sockets")
    raw["spec"]["containers"][0]["securityContext"] = {"capabilities": {"add": ["NET_ADMIN"]}}
    privileged = pods.pod("all-powers")
    privileged["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    lab.cluster.apply(host, raw, privileged)
    names = {"on-host", "raw-sockets", "all-powers"}
    for name in names:
        lab.cluster.await_pod(places.NAMESPACE, name)

    def uncontained() -> set[str]:
        done = lab.ward.command("inventory", "--namespace", places.NAMESPACE, "-o", "json")
        rows = json.loads(done.stdout or "[]")
        return {row["pod"] for row in rows if row["state"] == "uncontained"}

    assert wait_until(lambda: names <= uncontained(), WITHIN_S, 1.0), uncontained()
    delete(lab, *names)
