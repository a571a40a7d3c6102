"""Every pod's packets are seen by the rules, or they are not: asked on the real kernel."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from enforcer.identity import Identity
from enforcer.probe import Control, Questions
from enforcer.proving import TICK_S, Proving
from enforcer.records import LogRecords
from enforcer.routes import Routes
from enforcer.witness import ADDRESS
from tests.kernel.conftest import Lab, Node, Wire, heard, pack, pod_address

pytestmark = pytest.mark.kernel

BOTH = pytest.mark.parametrize("version", [4, 6])
WAYS = pytest.mark.parametrize("by", ["tcp", "udp"])
OUTSIDE = {4: "u32 match ip dst 192.0.0.0/8", 6: "u32 match ip6 dst 2001::/16"}
DEADLINE_S = 30.0


class Permit(NamedTuple):
    """Every port of every protocol."""

    protocol: str = "any"
    first: int = 0
    last: int = 65535


def until(what: Callable[[], object], limit_s: float = DEADLINE_S) -> bool:
    """Poll until it holds; False after the limit."""
    deadline = time.monotonic() + limit_s
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_in(node: Node, name: str, pod: str, version: int) -> bool:
    """Say whether the kernel noted a pod's address in a set."""
    found = {each.key for each in node.kernel.elements(f"{name}{version}")}
    return pack(pod_address(pod, version)) in found


def ask(node: Node, pod: str, version: int, by: str) -> None:
    """Ask a pod from the node."""
    with node.lab.inside("node"):
        Questions().ask(pack(pod_address(pod, version)), by=by)  # type: ignore[arg-type]


@contextmanager
def redirected(lab: Lab, pod: str) -> Iterator[None]:
    """Lead what a pod sends to the outside past netfilter, as eBPF host routing does; the node is reached."""
    device = f"p{pod}"
    tc = ["tc", "-n", lab.ns("node")]
    subprocess.run([*tc, "qdisc", "add", "dev", device, "clsact"], check=True)
    try:
        for protocol, match in (("ip", OUTSIDE[4]), ("ipv6", OUTSIDE[6])):
            words = [*tc, "filter", "add", "dev", device, "ingress", "protocol", protocol, *match.split()]
            action = ["action", "mirred", "egress", "redirect", "dev", "up0"]
            if subprocess.run([*words, *action], check=False, capture_output=True).returncode:
                pytest.skip("this kernel cannot redirect with tc (CONFIG_NET_CLS_U32, CONFIG_NET_ACT_MIRRED)")
        yield
    finally:
        subprocess.run([*tc, "qdisc", "del", "dev", device, "clsact"], check=True)


@contextmanager
def rules_of_others(lab: Lab, text: str) -> Iterator[None]:
    """Load a table ``inet others`` for a while."""
    lab.nft(f"table inet others {{\n{text}\n}}")
    try:
        yield
    finally:
        lab.nft("delete table inet others")


@BOTH
@WAYS
def test_an_answer_of_a_pod_is_seen_and_goes_nowhere(
    node: Node, lab: Lab, wire: Wire, version: int, by: str
) -> None:
    """By the forward hook, noted for this pod alone; nothing of it leaves the node."""
    family = socket.htons(0x0800 if version == 4 else 0x86DD)
    with lab.inside("world"):
        outside = wire.keep(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, family))
    ask(node, "a", version, by)
    assert until(lambda: is_in(node, "met", "a", version))
    assert not is_in(node, "met", "b", version)
    assert not is_in(node, "untracked", "a", version)
    nobody = pack(ADDRESS[version])
    while (packet := heard(outside, 0.2)) is not None:
        assert nobody not in packet[:40]


@BOTH
def test_the_witness_is_refused_at_once_whatever_is_granted(node: Node, wire: Wire, version: int) -> None:
    """From inside the pod: what ``nameward gate`` tries; and it proves as well."""
    node.grant("a", ADDRESS[version], Permit())
    assert wire.connect("a", version, ADDRESS[version], 443) == "refused"
    assert is_in(node, "met", "a", version)
    assert node.kernel.counters()["denied"][0] == 0, "it is nothing that a pod was denied"


@BOTH
def test_what_a_pod_sends_of_its_own_is_proof(node: Node, wire: Wire, version: int) -> None:
    """A refused flow, and a granted one's first packet; not what it sends to the node itself."""
    there = {4: "45.1.0.1", 6: "2600:1::1"}[version]
    wire.connect("a", version, there, 4000)
    assert not is_in(node, "met", "a", version)
    wire.connect("a", version, {4: "45.1.0.2", 6: "2600:1::2"}[version], 4000)
    assert is_in(node, "met", "a", version)
    wire.server(version, socket.SOCK_STREAM, 4001)
    outside = {4: "45.1.0.2", 6: "2600:1::2"}[version]
    node.grant("b", outside, Permit())
    assert wire.connect("b", version, outside, 4001) == "open"
    assert is_in(node, "met", "b", version)


@BOTH
def test_a_policy_that_lets_only_the_node_in_does_not_keep_it_from_being_asked(
    node: Node, lab: Lab, version: int
) -> None:
    """As kube-router's: whatever is not the node's own address is dropped on its way to the pod."""
    family = {4: "ip daddr 10.244.0.0/16", 6: "ip6 daddr fd44::/64"}[version]
    drop = f"chain out {{\ntype filter hook output priority 0\n{family} fib saddr type != local drop\n}}"
    with rules_of_others(lab, drop):
        with pytest.raises(PermissionError):
            ask(node, "a", version, "udp")
        ask(node, "a", version, "tcp")
        assert until(lambda: is_in(node, "met", "a", version))


def test_a_host_that_drops_invalid_packets_early_can_ask(node: Node, lab: Lab) -> None:
    """The other way of asking is one that conntrack knows."""
    drop = "chain pre {\ntype filter hook prerouting priority mangle\nct state invalid drop\n}"
    with rules_of_others(lab, drop):
        ask(node, "a", 4, "tcp")
        ask(node, "b", 4, "udp")
        assert until(lambda: is_in(node, "met", "b", 4))
        assert not is_in(node, "met", "a", 4)


def test_a_redirected_pod_is_not_seen_but_answers_the_node(node: Node, lab: Lab) -> None:
    """What a filter of tc takes meets nothing; its name is found, and its coming is heard."""
    with lab.inside("node"):
        routes = Routes()
        routes.monitor_fd()
    try:
        with redirected(lab, "a"):
            assert until(lambda: "filters" in routes.drain_changes())
            assert routes.filters("pa") == ("u32",)
            assert routes.filters("pb") == routes.filters("gone") == ()
            for version in (4, 6):
                with lab.inside("node"):
                    control = Control(pack(pod_address("a", version)))
                assert until(control.is_answered)
                control.close()
                for by in ("tcp", "udp"):
                    ask(node, "a", version, by)
            ask(node, "b", 4, "tcp")
            assert until(lambda: is_in(node, "met", "b", 4))
            assert not is_in(node, "met", "a", 4)
            assert not is_in(node, "met", "a", 6)
    finally:
        routes.close()


@BOTH
def test_untracked_packets_are_noted_in_both_directions(
    node: Node, lab: Lab, wire: Wire, version: int
) -> None:
    """NOTRACK of what pods send, and of what comes to them: no answer is told from a question then."""
    ip = {4: "ip", 6: "ip6"}[version]
    pre = "chain pre {{\ntype filter hook prerouting priority raw\n{}\n}}"
    with rules_of_others(lab, pre.format('iifname "pa" notrack')):
        ask(node, "a", version, "tcp")
        assert until(lambda: is_in(node, "untracked", "a", version))
    mine = pod_address("b", version)
    with rules_of_others(lab, pre.format(f"{ip} daddr {mine} notrack")):
        sender = wire.udp("world", version)
        sender.sendto(b"x", (mine, 4000))
        assert until(lambda: is_in(node, "untracked", "b", version))


def test_families_without_a_way_out_are_found(lab: Lab) -> None:
    """As the node's routes say now."""
    with lab.inside("node"):
        routes = Routes()
    try:
        assert routes.closed_families() == frozenset()
        lab.ip("node", "-6", "route", "del", "default")
        assert routes.closed_families() == frozenset({6})
    finally:
        lab.ip("node", "-6", "route", "replace", "default", "via", "2600:1::2")
        routes.close()


def test_a_redirect_is_found_named_and_forgotten(node: Node, lab: Lab) -> None:
    """The whole of it: proved, then past us with the filter's name, then proved again."""
    pods = [
        Identity(pack(pod_address(name, v)), f"p{name}", f"uid-{name}", "boot", f"ns/{name}")
        for name in "ab"
        for v in (4, 6)
    ]
    with lab.inside("node"):
        routes = Routes()
        routes.monitor_fd()
        proving = Proving(
            kernel=node.kernel,
            asking=Questions(),
            ways=routes,
            records=LogRecords("node", "error"),
            admitted=lambda: pods,
            awaited=lambda: 0,
            untracked_by=tuple,
            now=time.monotonic,
            later=lambda _, call: None,
            changed=lambda: None,
        )
        proving.pods_changed()

        def ticked(what: Callable[[], object]) -> bool:
            def tick() -> bool:
                if routes.drain_changes() & {"filters", "lost"}:
                    proving.host_changed()
                proving.tick()
                time.sleep(TICK_S)
                return bool(what())

            return until(tick, 60.0)

        try:
            assert ticked(lambda: proving.enforced == {"uid-a", "uid-b"})
            assert proving.doubts == ()
            with redirected(lab, "a"):
                assert ticked(lambda: proving.doubts)
                assert "pod ns/a (pa)" in proving.doubts[0]
                assert "(u32)" in proving.doubts[0]
                assert proving.enforced == {"uid-b"}
            assert ticked(lambda: proving.enforced == {"uid-a", "uid-b"})
            assert proving.doubts == ()
        finally:
            proving.close()
            routes.close()
