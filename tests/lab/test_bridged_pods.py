"""The real ``nameward node`` with pods behind a bridge, as flannel and docker attach them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import dns.message
import pytest

from enforcer.demo import places, prerequisites
from enforcer.demo.failure import CannotRunHereError
from enforcer.demo.lab import CRM_SERVER, LEDGER_SERVER, Lab, running
from enforcer.demo.network import pod_interface
from enforcer.demo.pods import Pod
from enforcer.demo.processes import LONG_S, output_of, wait_until
from enforcer.demo.stub import Stub
from policy import gate

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A node that enforces before its bridge has a port."""
    try:
        prerequisites.require()
    except CannotRunHereError as error:
        pytest.skip(str(error))
    with running(enforced=False) as made:
        commands = f"""link add cni0 type bridge
link set cni0 address 02:00:00:00:00:01 up
addr add {places.GATEWAY4}/24 dev cni0
addr add {places.GATEWAY6}/64 dev cni0 nodad
"""
        output_of(made.node, ["ip", "-batch", "-"], commands)
        made.ward.start()
        yield made


def bridged_pod(lab: Lab, server: str, index: int) -> Pod:
    """Make a pod and put its cable into the bridge; its address comes after its declaration."""
    pod = lab.add_pod(server, index)
    veth, (address4, address6) = pod_interface(index), pod.addresses
    output_of(lab.node, ["ip", "-batch", "-"], f"addr flush dev {veth}\nlink set {veth} master cni0\n")
    for family, address in (("-4", f"{address4}/32"), ("-6", f"{address6}/128")):
        output_of(lab.node, ["ip", family, "route", "flush", address])
    commands = f"""addr flush dev eth0 scope global
addr add {address4}/24 dev eth0
addr add {address6}/64 dev eth0 nodad
route replace default via {places.GATEWAY4}
-6 route replace default via {places.GATEWAY6} dev eth0
"""
    for line in commands.splitlines():
        output_of(pod.space, ["ip", *line.split()])
    return pod


@pytest.fixture(scope="module")
def pods(lab: Lab) -> tuple[Pod, Pod]:
    """Two pods of the bridge, each with its own policy, admitted within two seconds."""
    lab.set_domains(CRM_SERVER, [places.CRM])
    lab.set_domains(LEDGER_SERVER, [places.LEDGER])
    crm, ledger = bridged_pod(lab, CRM_SERVER, 2), bridged_pod(lab, LEDGER_SERVER, 3)
    assert wait_until(lambda: lab.ward.status()["pods"] == 2, LONG_S), lab.ward.status()
    return crm, ledger


def test_the_node_enforces_and_has_nothing_to_complain_about(lab: Lab, pods: tuple[Pod, Pod]) -> None:
    """Both pods are admitted, and the bridge table is there beside the other two."""
    assert wait_until(lambda: bool(lab.ward.status()["enforcing"]), LONG_S), lab.ward.status()
    assert wait_until(lambda: lab.ward.status()["problems"] == [], LONG_S), lab.ward.status()
    tables = output_of(lab.node, ["nft", "list", "tables"])
    assert "table bridge nameward" in tables


def said_of_itself(pod: Pod) -> gate.Said:
    """What the node tells a pod of itself."""
    query = dns.message.make_query(gate.NAME, "TXT")
    with pod.space.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.settimeout(LONG_S)
        opened.sendto(query.to_wire(), (places.CLUSTER_DNS, 53))
        answered = dns.message.from_wire(opened.recv(4096))
    return gate.read_texts(text.decode() for each in answered.answer[0] for text in each.strings)


def test_pods_behind_a_bridge_are_proved(lab: Lab, pods: tuple[Pod, Pod]) -> None:
    """What they answer to the outside comes by the bridge and meets the forward hook."""
    for pod in pods:
        assert wait_until(lambda pod=pod: said_of_itself(pod).is_enforced, LONG_S), said_of_itself(pod)
        assert said_of_itself(pod).pod == f"{places.NAMESPACE}/{pod.name}"
    assert lab.ward.status()["problems"] == []


def test_what_is_answered_is_permitted_and_nothing_else(lab: Lab, pods: tuple[Pod, Pod]) -> None:
    """Each reaches what it resolved, in both families, and not what the other resolved."""
    crm, ledger = pods
    for kind, address in zip(("A", "AAAA"), places.SITE_OF[places.CRM], strict=True):
        answer = crm.stub.ask(places.CRM, kind)
        assert address in answer.addresses, answer
        assert crm.connect(address).ok
        assert not ledger.connect(address).ok
    assert not crm.stub.ask(places.LEDGER, "A").addresses


def test_a_neighbours_address_is_answered_by_us_as_well(lab: Lab, pods: tuple[Pod, Pod]) -> None:
    """A lookup that aims at the pod next door is led home and answered, from that address."""
    crm, ledger = pods
    for server in (ledger.addresses[0], places.GATEWAY4, places.NODE4):
        assert Stub(crm.space, server).ask(places.CRM, "A").addresses


def test_a_flush_by_others_is_repaired_between_the_ports_too(lab: Lab, pods: tuple[Pod, Pod]) -> None:
    """After ``nft flush ruleset`` all tables are back and the pod goes on."""
    crm, _ = pods
    output_of(lab.node, ["nft", "flush", "ruleset"])
    assert wait_until(
        lambda: "table bridge nameward" in output_of(lab.node, ["nft", "list", "tables"]), LONG_S
    )
    assert wait_until(lambda: lab.ward.status()["enforcing"], LONG_S), lab.ward.status()
    assert crm.stub.ask(places.CRM, "A").addresses
    assert crm.connect(places.SITE_OF[places.CRM][0]).ok


def test_a_bridge_with_another_hardware_address_is_followed(lab: Lab, pods: tuple[Pod, Pod]) -> None:
    """Bridges without a fixed address change it with their ports; frames are led to the new one."""
    crm, _ = pods
    output_of(lab.node, ["ip", "link", "set", "cni0", "address", "02:00:00:00:00:77"])
    for pod in pods:
        output_of(pod.space, ["ip", "neigh", "flush", "all"])
    assert wait_until(lambda: crm.connect(places.SITE_OF[places.CRM][0]).ok, LONG_S)


def test_a_pod_that_goes_takes_its_port_along(lab: Lab, pods: tuple[Pod, Pod]) -> None:
    """Its port is in no set any more, and a pod that comes after is admitted at its own."""
    _, ledger = pods
    lab.remove_pod(ledger)
    assert wait_until(lambda: lab.ward.status()["pods"] == 1, LONG_S), lab.ward.status()
    ports = ["nft", "list", "set", "bridge", "nameward", "ports"]
    assert wait_until(lambda: "veth3" not in output_of(lab.node, ports), LONG_S)
    assert "veth2" in output_of(lab.node, ports)
    bridged_pod(lab, LEDGER_SERVER, 4)
    assert wait_until(lambda: lab.ward.status()["pods"] == 2, LONG_S), lab.ward.status()
