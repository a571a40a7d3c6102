"""Pods behind bridges: which bridges, which ports, the table's text, and when it is installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from enforcer.bridge import Bridge, Bridged, Port, bridge_table, located, pods_bridges
from enforcer.bridging import Bridging
from enforcer.layout import Layout
from policy.addresses import to_packed
from tests.enforcer.rig import A, B, Clock, Rig, permit, policy
from tests.fakes import FakeKernel

GOLDEN = Path(__file__).parent.parent / "golden"
A4, A6, B4 = map(to_packed, (*A.addresses, *B.addresses))
PA = Port("veth1", "veth", frozenset({A4, A6}), bytes.fromhex("02aa00000001"))
PB = Port("veth2", "veth", frozenset({B4}), bytes.fromhex("02aa00000002"))
BRIDGE = Bridge("cni0", bytes.fromhex("020000000001"), frozenset({to_packed("100.64.0.1")}), (PA, PB))
BARE = Bridge("virbr0", bytes.fromhex("020000000002"), frozenset(), (Port("vnet0", "tun"),))
PODS = {A4: True, A6: True, B4: False}
BEHIND = dict.fromkeys((A4, A6, B4), "cni0")
TEXTS = {
    "bridge": (Layout(), Bridged((BRIDGE,), ("veth9",))),
    "bridge-empty": (Layout(), Bridged()),
    "bridge-names": (
        Layout(pod_interface_kinds=(), pod_interface_names=("cni0", "eni*"), unknown_pods="allow"),
        Bridged((BRIDGE,)),
    ),
}


def text_of(case: str) -> str:
    """The table of one case."""
    layout, bridged = TEXTS[case]
    ports = located(bridged, BEHIND)
    return bridge_table(layout, bridged, PODS if ports else {}, ports)


@pytest.mark.parametrize("case", TEXTS)
def test_the_text_is_the_golden_one(case):
    """A change of the ruleset is seen in review (NAMEWARD_WRITE_GOLDEN=1 writes the files anew)."""
    path = GOLDEN / f"{case}.nft"
    if os.environ.get("NAMEWARD_WRITE_GOLDEN"):
        path.write_text(text_of(case))
    assert path.read_text() == text_of(case)


@pytest.mark.kernel
@pytest.mark.parametrize("case", TEXTS)
def test_the_kernel_accepts_the_golden_text(case):
    """``nft -c`` in a network namespace of its own."""
    words = ["unshare", "-n", "nft", "-c", "-f", str(GOLDEN / f"{case}.nft")]
    subprocess.run(words, check=True, capture_output=True)


def test_a_bridge_is_the_pods_by_its_ports_or_its_name_and_never_an_uplink():
    """A bridge of virtual machines is left alone until it is named."""
    assert pods_bridges(Layout(), [BRIDGE, BARE], ["eth0"]).names == ("cni0",)
    named = Layout(pod_interface_kinds=(), pod_interface_names=("virbr*",))
    assert pods_bridges(named, [BRIDGE, BARE], ["eth0"]).names == ("virbr0",)
    found = pods_bridges(Layout(), [BRIDGE, BARE], ["cni0"])
    assert found == Bridged((), ("veth1", "veth2"))
    assert '"veth1", "veth2"' in bridge_table(Layout(), found, {}, {})


def test_an_address_at_two_ports_is_at_none():
    """Nor is one whose route leads elsewhere, or whose port did not say its hardware address."""
    twice = BRIDGE._replace(ports=(PA, PB._replace(addresses=frozenset({A4, B4}))))
    assert located(Bridged((twice,)), BEHIND) == {A6: "veth1", B4: "veth2"}
    assert located(Bridged((BRIDGE,)), {**BEHIND, B4: "eth0"}) == {A4: "veth1", A6: "veth1"}
    silent = BRIDGE._replace(ports=(PA._replace(hardware=b""),))
    assert located(Bridged((silent,)), BEHIND) == {}


def bridged_rig(folder: Path) -> Rig:
    """A rig whose pods are behind cni0."""
    rig = Rig(folder)
    rig.host.renamed = dict(BEHIND)
    rig.host.found = [BRIDGE]
    return rig


def test_pods_behind_a_bridge_are_admitted_at_their_ports(tmp_path):
    """The inet table admits them by the bridge, the identity is the port's."""
    rig = bridged_rig(tmp_path).settled_with(policy(permit("api.example.com")))
    rig.ask("api.example.com", "93.184.216.34")
    assert rig.open_now()
    assert rig.ledger.accounts[A4].identity.interface == "veth1"
    (key,) = [each.key for each in rig.kernel.elements("bridges")]
    assert key.rstrip(b"\0") == b"cni0"
    assert {each.key[:4] for each in rig.kernel.elements("podsrc4")} == {b"cni0"}
    assert '"veth1" . 100.64.0.2' in rig.kernel.bridge_texts[-1]
    assert '"veth1" : 02:00:00:00:00:01' in rig.kernel.bridge_texts[-1]
    assert not rig.bridging.doubts


def test_a_pod_whose_port_is_not_known_waits_and_is_found(tmp_path):
    """Not admitted, and nobody else has its address; the next look finds it."""
    rig = bridged_rig(tmp_path)
    rig.host.found = [BRIDGE._replace(ports=(PA._replace(addresses=frozenset()), PB))]
    rig.settled_with(policy(permit("api.example.com")))
    assert A4 not in rig.ledger.accounts
    assert rig.reconciler.portless == {A4: "cni0", A6: "cni0"}
    assert '"veth1" . 100.64.0.2' not in rig.kernel.bridge_texts[-1]
    rig.host.found = [BRIDGE]
    rig.reconciler.look_for_ports()
    rig.run_threads()
    assert A4 in rig.ledger.accounts
    assert not rig.reconciler.portless


def test_another_port_is_another_identity(tmp_path):
    """What was granted at one port does not count at another."""
    rig = bridged_rig(tmp_path).settled_with(policy(permit("api.example.com")))
    rig.ask("api.example.com", "93.184.216.34")
    assert rig.open_now()
    moved = (PA._replace(name="veth7"), PB)
    rig.host.found = [BRIDGE._replace(ports=moved)]
    rig.reconciler.host_changed()
    assert not rig.open_now()


def test_nothing_is_led_home_before_the_inet_table_knows_the_bridge(tmp_path):
    """The first text has sources and no way home, the second both."""
    rig = bridged_rig(tmp_path)
    rig.settled_with()
    texts = rig.kernel.bridge_texts
    ways = ["map home { type ifname : ether_addr; }" in text for text in texts]
    assert ways == [True, True, False]
    assert '"veth1" . 100.64.0.2' in texts[1]


def test_a_changed_bridge_table_is_put_back(tmp_path):
    """A flush takes it along; so does an address of the bridge that changes."""
    rig = bridged_rig(tmp_path).settled_with()
    text = rig.kernel.bridge_texts[-1]
    rig.kernel.flush()
    assert rig.bridging.doubts
    assert "bridge table" in rig.reconciler.repair(deep=False)
    assert rig.kernel.bridge_texts[-1] == text
    assert not rig.bridging.doubts
    rig.host.found = [BRIDGE._replace(hardware=bytes.fromhex("020000000009"))]
    rig.reconciler.host_changed()
    assert '"veth1" : 02:00:00:00:00:09' in rig.kernel.bridge_texts[-1]


def test_without_a_bridge_family_bridged_pods_are_refused_and_others_live(tmp_path):
    """Nobody is admitted whose source nobody checks; a node without bridges has no doubts."""
    rig = bridged_rig(tmp_path)
    rig.kernel.no_bridges = True
    rig.settled_with()
    assert A4 not in rig.ledger.accounts
    assert "pods behind cni0 are not admitted" in rig.bridging.doubts[0]
    routed = FakeKernel(Clock())
    routed.no_bridges = True
    bridging = Bridging(routed, Layout())
    bridging.begin()
    assert bridging.look([], ()) == ()
    assert bridging.doubts == []
