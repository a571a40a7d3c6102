"""Pods behind bridges: which bridges, which ports, the table's text, and when it is installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from enforcer.bridge import Bridge, Bridged, Port, bridge_table, contents, located, pods_bridges
from enforcer.bridge_sets import plan
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
    return bridge_table(layout, contents(layout, bridged, PODS if ports else {}, ports))


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
    assert contents(Layout(), found, {}, {})["aside"] == {("veth1",), ("veth2",)}


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
    assert {("source4", ("veth1", A4)), ("home", ("veth1", BRIDGE.hardware))} <= rig.kernel.between_ports
    assert not rig.bridging.doubts


def test_a_pod_whose_port_is_not_known_waits_and_is_found(tmp_path):
    """Not admitted, and nobody else has its address; the next look finds it."""
    rig = bridged_rig(tmp_path)
    rig.host.found = [BRIDGE._replace(ports=(PA._replace(addresses=frozenset()), PB))]
    rig.settled_with(policy(permit("api.example.com")))
    assert A4 not in rig.ledger.accounts
    assert rig.reconciler.portless == {A4: "cni0", A6: "cni0"}
    assert ("source4", ("veth1", A4)) not in rig.kernel.between_ports
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
    """What is brought first has sources and no way home, then the way home comes alone."""
    rig = bridged_rig(tmp_path)
    rig.settled_with()
    first, then = rig.kernel.bridge_commits
    assert ("source4", ("veth1", A4)) in {(each.set, each.entry) for each in first}
    assert "home" not in {each.set for each in first}
    assert {each.set for each in then} == {"home"}


def test_pods_that_come_change_what_changed_of_them_and_install_nothing(tmp_path):
    """Twenty, one after the other, with events that change nothing in between: no text, nothing needless."""
    rig = bridged_rig(tmp_path).settled_with()
    texts, commits = len(rig.kernel.bridge_texts), len(rig.kernel.bridge_commits)
    looks = rig.host.looks
    pods, ports = [A, B], [PA, PB]
    for number in range(10, 30):
        address = to_packed(f"100.64.0.{number}")
        ports.append(Port(f"veth{number}", "veth", frozenset({address}), bytes((2, 0xAA, 0, 0, 0, number))))
        pods.append(
            msgspec.structs.replace(B, name=f"p{number}", uid=f"u{number}", addresses=(f"100.64.0.{number}",))
        )
        rig.host.renamed[address] = "cni0"
        rig.host.found = [BRIDGE._replace(ports=tuple(ports))]
        for _ in range(5):
            rig.reconciler.host_changed()
        rig.apply(pods=tuple(pods))
        rig.run_threads()
    assert len(rig.ledger.accounts) == len(A.addresses) + 21
    assert len(rig.kernel.bridge_texts) == texts
    assert rig.host.looks == looks + 20 * (5 + 1)
    turns = rig.kernel.bridge_commits[commits:]
    assert [sorted(each.set for each in turn) for turn in turns] == 20 * [
        ["home"],
        ["governed4", "hardware", "pods4", "ports", "source4"],
    ]


def test_an_event_is_one_look_though_it_changes_something(tmp_path):
    """What was seen is what is brought: nobody is asked a second time for it."""
    rig = bridged_rig(tmp_path).settled_with(policy(permit("api.example.com")))
    looks, was = rig.host.looks, rig.ledger.accounts[A4].identity.interface
    rig.host.found = [BRIDGE._replace(ports=(PA._replace(name="veth7"), PB))]
    rig.reconciler.host_changed()
    rig.run_threads()
    assert (was, rig.ledger.accounts[A4].identity.interface) == ("veth1", "veth7")
    assert rig.host.looks == looks + 1


def test_a_refused_change_is_brought_by_the_whole_table(tmp_path):
    """Somebody took an element that is to go: the table is what it should be all the same."""
    rig = bridged_rig(tmp_path).settled_with()
    rig.kernel.between_ports.remove(("home", ("veth2", BRIDGE.hardware)))
    rig.host.found = [BRIDGE._replace(hardware=bytes.fromhex("020000000009"))]
    texts = len(rig.kernel.bridge_texts)
    rig.reconciler.host_changed()
    assert len(rig.kernel.bridge_texts) == texts + 1
    assert {entry for name, entry in rig.kernel.between_ports if name == "home"} == {
        ("veth1", bytes.fromhex("020000000009")),
        ("veth2", bytes.fromhex("020000000009")),
    }


def test_a_table_that_can_be_neither_changed_nor_replaced_is_in_doubt_until_it_is(tmp_path):
    """What the kernel holds is not known then: the next look replaces it whole, whatever it changes."""
    rig = bridged_rig(tmp_path).settled_with()
    rig.kernel.flush_bridge()
    rig.kernel.no_bridges = True
    rig.host.found = [BRIDGE._replace(hardware=bytes.fromhex("020000000009"))]
    rig.reconciler.host_changed()
    assert rig.reconciler.kernel_errors
    assert rig.bridging.doubts
    rig.kernel.no_bridges = False
    rig.reconciler.host_changed()
    assert not rig.bridging.doubts
    assert ("home", ("veth1", bytes.fromhex("020000000009"))) in rig.kernel.between_ports


@pytest.mark.parametrize("repaired", [False, True])
def test_nobody_is_admitted_whose_port_the_kernel_did_not_take(tmp_path, repaired):
    """Any other port could send as him; he is admitted once the kernel has it, a repair between or not."""
    rig = bridged_rig(tmp_path)
    rig.host.found = [BRIDGE._replace(ports=(PA._replace(addresses=frozenset()), PB))]
    rig.settled_with(policy(permit("api.example.com")))
    rig.kernel.flush_bridge()
    rig.kernel.no_bridges = True
    rig.host.found = [BRIDGE]
    rig.reconciler.look_for_ports()
    rig.run_threads()
    assert A4 not in rig.ledger.accounts
    assert not [key for key in rig.kernel.elements("podsrc4") if key.key.endswith(A4)]
    assert "between the ports of bridges" in rig.reconciler.trouble
    rig.kernel.no_bridges = False
    if repaired:
        rig.reconciler.repair(deep=True)
    rig.reconciler.retry()
    rig.run_threads()
    assert ("source4", ("veth1", A4)) in rig.kernel.between_ports
    assert A4 in rig.ledger.accounts
    assert not rig.reconciler.trouble


def test_a_plan_makes_one_what_the_other_is():
    """Taken from what was, in any order; what goes is before what comes."""
    layout, bridged = TEXTS["bridge"]
    one = contents(layout, bridged, PODS, located(bridged, BEHIND))
    other = contents(
        layout, Bridged((BRIDGE._replace(ports=(PB,), hardware=b"\2\0\0\0\0\7"),)), {B4: True}, {B4: "veth2"}
    )
    assert plan(one, one) == []
    turns = plan(one, other)
    assert [each.comes for each in turns] == sorted(each.comes for each in turns)
    held = {(name, entry) for name, entries in one.items() for entry in entries}
    for turn in turns:
        (held.add if turn.comes else held.remove)((turn.set, turn.entry))
    assert held == {(name, entry) for name, entries in other.items() for entry in entries}


def test_a_changed_bridge_table_is_put_back(tmp_path):
    """A flush takes it along; so does an address of the bridge that changes."""
    rig = bridged_rig(tmp_path).settled_with()
    held = set(rig.kernel.between_ports)
    rig.kernel.flush()
    assert rig.bridging.doubts
    assert "bridge table" in rig.reconciler.repair(deep=False)
    assert rig.kernel.between_ports == held
    assert not rig.bridging.doubts
    rig.host.found = [BRIDGE._replace(hardware=bytes.fromhex("020000000009"))]
    rig.reconciler.host_changed()
    assert ("home", ("veth1", bytes.fromhex("020000000009"))) in rig.kernel.between_ports


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
