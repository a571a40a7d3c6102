"""What is concluded of a pod's packets from what was asked and seen, as values."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.identity import Identity
from enforcer.proofs import (
    AGAIN_S,
    HEARD_WITHIN_S,
    KEPT_S,
    REST_S,
    TRIES,
    UNTRACKED_S,
    Proofs,
    Seen,
    State,
    findings,
)

A, B = (ipaddress.ip_address(f"10.244.0.{number}").packed for number in (10, 11))
A6 = ipaddress.ip_address("fd44::a").packed
MOST = 100


def identity(source: bytes, pod: str = "a", interface: str = "") -> Identity:
    """Whose address it is."""
    return Identity(source, interface or f"veth{pod}", f"uid-{pod}", "boot", f"ns/{pod}")


class Story:
    """Proofs, with a clock that a test moves, pods that answer as told, and a kernel that remembers."""

    def __init__(self, *identities: Identity) -> None:
        self.now = 1000.0
        self.proofs = Proofs()
        self.met: dict[bytes, float] = {}
        self.untracked: dict[bytes, float] = {}
        self.answers_outside = True
        self.answers_node = True
        self.asked: list[tuple[float, bytes]] = []
        self.keep(*identities)

    def keep(self, *identities: Identity) -> None:
        self.proofs.keep(identities, self.now)

    def run(self, seconds: float) -> Story:
        """Tick as ``enforcer.proving`` does."""
        until = self.now + seconds
        while self.now < until:
            due = self.proofs.due(self.now, MOST)
            if self.proofs.wants_look(self.now):
                self.look()
            for source in due:
                count = self.proofs.asked(source, self.now)
                self.asked.append((self.now, source))
                if self.answers_outside:
                    self.met[source] = self.now
                if count >= 3 and self.answers_node:
                    self.proofs.answered(source)
            self.now += 0.25
        self.look()
        return self

    def look(self) -> None:
        ages = [{s: self.now - at for s, at in found.items()} for found in (self.met, self.untracked)]
        self.proofs.look(Seen(*ages), self.now)

    def state(self, source: bytes = A) -> State:
        return self.proofs.state(source, self.now)


def test_a_pod_that_answers_to_the_outside_is_proved() -> None:
    """Soon, and for as long as it goes on answering; asked seldom."""
    story = Story(identity(A))
    assert story.state() == "pending"
    assert story.run(1).state() == "proved"
    story.asked.clear()
    assert story.run(10 * AGAIN_S).state() == "proved"
    assert 9 <= len(story.asked) <= 11


def test_a_pod_whose_answers_go_another_way_is_past_us() -> None:
    """It answers the node, and what it sends outside is never met: eBPF host routing."""
    story = Story(identity(A))
    story.answers_outside = False
    assert story.run(1).state() == "pending"
    assert story.run(9).state() == "past"
    assert story.run(600).state() == "past"


def test_a_pod_that_answers_nobody_is_silent() -> None:
    """Neither proved nor suspected."""
    story = Story(identity(A))
    story.answers_outside = story.answers_node = False
    assert story.run(10).state() == "silent"


def test_a_redirect_that_comes_later_is_found_and_its_end_too() -> None:
    """By asking again; at once when the host says that something changed."""
    story = Story(identity(A)).run(6)
    story.answers_outside = False
    story.proofs.doubt(story.now)
    assert story.run(REST_S + 6).state() == "past"
    story.run(120)
    story.answers_outside = True
    story.proofs.doubt(story.now)
    assert story.run(REST_S + 1).state() == "proved"


def test_a_redirect_is_found_without_any_hint() -> None:
    """A program that is attached silently is found when the proof is old."""
    story = Story(identity(A)).run(6)
    story.answers_outside = False
    assert story.run(AGAIN_S + 8).state() == "past"


def test_a_pods_own_traffic_is_proof_for_a_while() -> None:
    """Where a network policy keeps it from answering, what it sends itself counts."""
    story = Story(identity(A))
    story.answers_outside = False
    assert story.run(12).state() == "past"
    while story.now - story.asked[-1][0] < HEARD_WITHIN_S:
        story.run(0.25)
    story.met[A] = story.now
    assert story.run(60).state() == "proved"
    assert story.run(KEPT_S).state() in {"past", "silent"}


def test_what_another_pod_sent_proves_nothing() -> None:
    """An address that has a new owner, or another interface, begins anew."""
    story = Story(identity(A)).run(3)
    story.answers_outside = False
    for newcomer in (identity(A, "b"), identity(A, "a", "veth99")):
        story.keep(newcomer)
        assert story.state() == "pending"
        assert story.run(2).state() == "pending"


def test_the_same_pod_stays_proved_when_others_come() -> None:
    """A change of pods asks nobody again."""
    story = Story(identity(A)).run(3)
    story.asked.clear()
    story.keep(identity(A), identity(B, "b"))
    assert story.state() == "proved"
    assert {source for _, source in story.run(3).asked} == {B}


def test_untracked_packets_are_told_and_forgotten() -> None:
    """While they come, and a minute longer."""
    story = Story(identity(A)).run(3)
    story.untracked[A] = story.now
    assert story.run(6).state() == "untracked"
    assert story.run(UNTRACKED_S + 6).state() == "proved"


def test_a_family_without_a_way_out_is_not_asked() -> None:
    """A node without an IPv6 route: IPv4 alone decides."""
    story = Story(identity(A), identity(A6))
    story.proofs.closed = frozenset({6})
    assert story.run(3).state(A6) == "no way out"
    assert {source for _, source in story.asked} == {A}
    assert story.proofs.pods(story.now)["uid-a"][0] == "proved"


def test_the_worst_of_a_pods_addresses_counts() -> None:
    """IPv6 past us is a pod past us."""
    story = Story(identity(A), identity(A6)).run(3)
    story.proofs.asked(A6, story.now)
    assert story.proofs.pods(story.now)["uid-a"][0] == "proved"
    story.untracked[A6] = story.now
    story.look()
    assert story.proofs.pods(story.now)["uid-a"][0] == "untracked"


def test_nobody_is_asked_often_however_often_the_host_changes() -> None:
    """Events come by the hundred when pods come."""
    story = Story(identity(A)).run(1)
    story.asked.clear()
    for _ in range(60):
        story.proofs.doubt(story.now)
        story.run(0.25)
    assert len(story.asked) <= 15 / REST_S + 1


def test_only_so_many_are_asked_at_once() -> None:
    """Those who wait longest first."""
    proofs = Proofs()
    proofs.keep([identity(bytes((10, 0, 0, n)), str(n)) for n in range(100)], 1000.0)
    first = proofs.due(1000.0, 32)
    for source in first:
        proofs.asked(source, 1000.0)
    assert len(first) == 32
    assert not set(first) & set(proofs.due(1000.1, 32))


@given(st.lists(st.sampled_from(["ask", "control", "doubt", "wait", "look"]), max_size=60))
def test_nothing_but_a_packet_of_the_pod_proves(steps: list[str]) -> None:
    """Whatever is asked, answered to the node, and waited for: without a packet that was met, no proof."""
    proofs, now = Proofs(), 1000.0
    proofs.keep([identity(A)], now)
    for step in steps:
        now += {"wait": 3.0}.get(step, 0.1)
        if step == "ask" and proofs.due(now, 1):
            proofs.asked(A, now)
        elif step == "control":
            proofs.answered(A)
        elif step == "doubt":
            proofs.doubt(now)
        elif step == "look":
            proofs.look(Seen({A: now - 999.0, B: 0.0}, {}), now)
        assert proofs.state(A, now) in {"pending", "past", "silent"}


def test_conclusions_wait_for_the_last_answer() -> None:
    """After the last question as long as an answer may take."""
    proofs = Proofs()
    proofs.keep([identity(A)], 1000.0)
    for number in range(TRIES):
        proofs.asked(A, 1000.0 + number)
    last = 1000.0 + TRIES - 1
    assert proofs.state(A, last + HEARD_WITHIN_S / 2) == "pending"
    assert proofs.state(A, last + HEARD_WITHIN_S) == "silent"


# --- what is said of it ----------------------------------------------------------------------------


def said(**states: State) -> dict[str, tuple[State, Identity]]:
    """Pods by what is known of them."""
    return {f"uid-{pod}": (state, identity(A, pod)) for pod, state in states.items()}


def test_nothing_is_said_of_proved_and_of_coming_pods() -> None:
    """A pod that came a moment ago keeps nobody from enforcing."""
    found = findings(said(a="proved", b="pending"), {}, ())
    assert (found.doubts, found.problems, found.proved) == ((), (), frozenset({"uid-a"}))


def test_a_pod_past_us_keeps_the_node_from_enforcing() -> None:
    """It is named, with its interface and what tc has there."""
    found = findings(said(a="proved", b="past"), {"vethb": ("bpf cil_from_container",)}, ())
    assert "pod ns/b (vethb) do not meet this node's forward hook" in found.doubts[0]
    assert "(bpf cil_from_container)" in found.doubts[0]


def test_untracked_pods_keep_the_node_from_enforcing() -> None:
    """The chain that does it is named, where it is known."""
    assert "by ip raw PREROUTING:" in findings(said(a="untracked"), {}, ("ip raw PREROUTING",)).doubts[0]
    assert "nf_tables does not list" in findings(said(a="untracked"), {}, ()).doubts[0]


def test_a_silent_pod_is_a_problem_and_all_silent_is_a_doubt() -> None:
    """One pod cannot have the node call itself not ready; a node of which nothing is known is not."""
    one = findings(said(a="proved", b="silent"), {}, ())
    assert not one.doubts
    assert "ns/b" in one.problems[0]
    assert "ns/a (vetha), ns/b (vethb)" in findings(said(a="silent", b="silent"), {}, ()).doubts[0]


@pytest.mark.parametrize("count", [3, 4, 50])
def test_sentences_name_three(count: int) -> None:
    """A hundred pods make no sentence longer."""
    pods = {f"uid-{n:02}": ("past", identity(A, f"{n:02}")) for n in range(count)}
    sentence = findings(pods, {}, ()).doubts[0]  # type: ignore[arg-type]
    assert sentence.count("(veth") == 3
    assert (f"and {count - 3} more" in sentence) == (count > 3)
