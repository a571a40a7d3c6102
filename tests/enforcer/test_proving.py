"""Who asks the pods, and what the node and the resolvers are told: with a kernel and pods of our own."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Literal

from enforcer.elements import Element, Renew
from enforcer.identity import Identity
from enforcer.proving import FOUND_OUT_S, QUESTIONS_A_TICK, TICK_S, Proving
from enforcer.ruleset import Layout, structure
from enforcer.witness import REMEMBERED_S
from tests.enforcer.rig import Clock, KeptRecords
from tests.fakes import FakeKernel


def packed(number: int) -> bytes:
    """A pod's address."""
    return ipaddress.ip_address(f"10.244.0.{number}").packed


class Control:
    """A question of the node's own."""

    def __init__(self, *, answered: bool) -> None:
        self.answered = answered
        self.closed = False

    def is_answered(self) -> bool:
        return self.answered

    def close(self) -> None:
        self.closed = True


class Pods:
    """Pods that answer, or do not; what they send outside meets the kernel's rules."""

    def __init__(self, kernel: FakeKernel) -> None:
        self.kernel = kernel
        self.is_met = True
        self.answers_node = True
        self.refuses: set[str] = set()
        self.asked: list[tuple[bytes, str]] = []
        self.controls: list[Control] = []

    def ask(self, pod: bytes, *, by: Literal["tcp", "udp"]) -> None:
        self.asked.append((pod, by))
        if by in self.refuses:
            raise PermissionError(1, "Operation not permitted")
        if self.is_met:
            self.see("met4", pod)

    def see(self, name: str, pod: bytes) -> None:
        """Be the rule that notes a packet."""
        self.kernel.commit([Renew(Element(name, pod, timeout_ms=REMEMBERED_S * 1000))])

    def control(self, pod: bytes) -> Control:
        made = Control(answered=self.answers_node)
        self.controls.append(made)
        return made


class Ways:
    """What the host says."""

    def __init__(self) -> None:
        self.closed: frozenset[int] = frozenset()
        self.on: dict[str, tuple[str, ...]] = {}
        self.looked = 0

    def closed_families(self) -> frozenset[int]:
        self.looked += 1
        return self.closed

    def filters(self, interface: str) -> tuple[str, ...]:
        return self.on.get(interface, ())


class Scene:
    """The parts, joined, and a clock."""

    def __init__(self, *numbers: int) -> None:
        self.clock = Clock()
        self.kernel = FakeKernel(self.clock)
        self.kernel.install(structure(Layout()))
        self.pods, self.ways, self.records = Pods(self.kernel), Ways(), KeptRecords()
        self.admitted = [self.identity(number) for number in numbers]
        self.changes = self.awaited = 0
        self.due: list[tuple[float, Callable[[], None]]] = []
        self.chains: Iterable[str] = ()
        self.proving = Proving(
            kernel=self.kernel,
            asking=self.pods,
            ways=self.ways,
            records=self.records,
            admitted=lambda: self.admitted,
            awaited=lambda: self.awaited,
            untracked_by=lambda: self.chains,
            now=self.clock,
            later=lambda seconds, call: self.due.append((seconds, call)),
            changed=self.changed,
        )
        self.proving.pods_changed()

    def identity(self, number: int) -> Identity:
        return Identity(packed(number), f"veth{number}", f"uid-{number}", "boot", f"ns/pod-{number}")

    def changed(self) -> None:
        self.changes += 1

    def run(self, seconds: float) -> Proving:
        """Tick for so long."""
        for _ in range(int(seconds / TICK_S)):
            self.clock.at += TICK_S
            self.proving.tick()
        return self.proving


def test_pods_are_proved_and_that_is_told_once() -> None:
    """One change, then silence."""
    scene = Scene(10, 11)
    assert scene.run(2).enforced == {"uid-10", "uid-11"}
    assert scene.proving.doubts == scene.proving.problems == ()
    changes = scene.changes
    assert scene.run(20).enforced == {"uid-10", "uid-11"}
    assert scene.changes == changes


def test_a_pod_that_is_admitted_is_asked_before_the_next_tick() -> None:
    """A node that starts enforces no sooner than that. Who was asked is not asked again by it."""
    scene = Scene(10)
    ((seconds, ask),) = scene.due
    assert seconds < TICK_S / 10
    scene.clock.at += seconds
    ask()
    assert scene.proving.enforced == {"uid-10"}
    scene.proving.pods_changed()
    assert len(scene.due) == 1


def test_a_pod_that_goes_is_not_enforced_any_more() -> None:
    """At once, not with the next look."""
    scene = Scene(10, 11)
    scene.run(2)
    scene.admitted.pop()
    scene.proving.pods_changed()
    assert scene.proving.enforced == {"uid-10"}


def test_both_ways_of_asking_are_tried() -> None:
    """Where others' rules refuse the one, the other proves; a refusal is no error."""
    scene = Scene(10)
    scene.pods.refuses = {"tcp"}
    assert scene.run(2).enforced == {"uid-10"}
    assert {by for _, by in scene.pods.asked} == {"tcp", "udp"}


def test_a_redirect_is_a_doubt_with_its_culprit_and_is_told() -> None:
    """And over with the redirect; what was open is closed."""
    scene = Scene(10)
    scene.run(6)
    scene.ways.on = {"veth10": ("bpf cil_from_container",)}
    scene.pods.is_met = False
    scene.proving.host_changed()
    assert "(bpf cil_from_container)" in scene.run(12).doubts[0]
    assert scene.proving.enforced == frozenset()
    assert scene.records.events() == ["pods.unproved"]
    scene.pods.is_met = True
    assert scene.run(35).doubts == ()
    assert scene.records.events() == ["pods.unproved", "pods.proved"]
    scene.proving.close()
    assert all(control.closed for control in scene.pods.controls)


def test_where_proof_is_only_reported_it_is_a_problem() -> None:
    """The node calls itself enforcing, says what is wrong, and every admitted pod counts."""
    scene = Scene(10)
    scene.proving.is_required = False
    scene.pods.is_met = False
    scene.run(12)
    assert scene.proving.doubts == ()
    assert "do not meet this node's forward hook" in scene.proving.problems[0]
    assert scene.proving.enforced == {"uid-10"}


def test_untracked_packets_name_their_chain() -> None:
    """What is known of others' rules is looked up then."""
    scene = Scene(10)
    scene.run(3)
    scene.chains = ("ip raw PREROUTING",)
    scene.pods.see("untracked4", packed(10))
    assert "ip raw PREROUTING" in scene.run(6).doubts[0]


def test_a_burst_of_pods_is_asked_in_pieces() -> None:
    """A hundred pods at once hold the loop for a part of a tick."""
    scene = Scene(*range(2, 112))
    scene.clock.at += TICK_S
    scene.proving.tick()
    assert len(scene.pods.asked) == QUESTIONS_A_TICK
    assert len(scene.run(3).enforced) == 110


def test_without_tables_nothing_is_concluded() -> None:
    """Somebody flushed the ruleset: that is seen and said elsewhere."""
    scene = Scene(10)
    scene.run(2)
    scene.kernel.flush()
    assert scene.run(1).enforced == {"uid-10"}


def test_a_family_without_a_way_out_is_a_problem() -> None:
    """Looked up again when routes change."""
    scene = Scene(10)
    scene.ways.closed = frozenset({4})
    assert "no default route" in scene.run(6).problems[0]
    scene.ways.closed = frozenset()
    scene.proving.ways_changed()
    assert scene.run(6).problems == ()
    assert scene.ways.looked == 2


def test_a_node_that_begins_says_nothing_before_it_knows() -> None:
    """Between the start and the first proof it does not call itself enforcing."""
    scene = Scene(10)
    assert "is being found out" in scene.proving.doubts[0]
    assert scene.run(2).doubts == ()
    scene.admitted.append(scene.identity(11))
    scene.pods.is_met = False
    scene.proving.pods_changed()
    assert scene.run(1).doubts == (), "a pod that comes later keeps nobody waiting"


def test_a_node_without_pods_has_nothing_to_prove() -> None:
    """At once, and when its first pod comes after a while."""
    scene = Scene()
    assert scene.run(30).doubts == ()
    scene.admitted.append(scene.identity(10))
    scene.proving.pods_changed()
    assert scene.proving.doubts == ()
    assert scene.run(2).enforced == {"uid-10"}


def test_a_node_that_admits_none_of_its_pods_does_not_enforce() -> None:
    """Pods on Open vSwitch or netkit: no interface leads to any of them, and nothing of theirs is seen."""
    scene = Scene()
    scene.run(30)
    scene.awaited = 2
    assert scene.proving.doubts == ()
    scene.run(FOUND_OUT_S + 1)
    assert "none of this node's 2 governed pods is admitted" in scene.proving.doubts[0]
    scene.admitted.append(scene.identity(10))
    scene.proving.pods_changed()
    scene.awaited = 1
    assert scene.run(2).doubts == ()
