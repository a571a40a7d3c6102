"""Laws of compiling with a memory: whatever was compiled before, a world compiles to the same snapshot."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.addresses import to_packed
from policy.break_glass import BreakGlass
from policy.compilation import Memory
from policy.pods import Pod, Service
from policy.rules import Ceiling, CeilingAllowed, CeilingGrant, Destination, Policy, PortRange, Rule, Selector
from policy.snapshot import Snapshot, compile_snapshot
from policy.world import World

NAMES = ("example.com", "api.example.com", "evil.org", "s.cluster.local", "db.corp.internal")
ADDRESSES = tuple(map(to_packed, ("93.184.216.34", "10.1.2.3", "10.244.0.2", "10.96.0.1", "2606:2800::1")))
PORTS = (("tcp", 443), ("udp", 8080))
LABELS: tuple[dict[str, str], ...] = ({"app": "a"}, {"app": "b"}, {"app": "a", "tier": "x"})

pods = st.builds(
    lambda number, labels, governed, uid: Pod(
        namespace="ns" if number % 2 else "other",
        name=f"p{number}",
        uid=uid or f"u{number}",
        addresses=(f"10.244.0.{number}",),
        labels=labels,
        governed=governed,
    ),
    st.integers(1, 5),
    st.sampled_from(LABELS),
    st.sampled_from([True, True, True, False]),
    st.sampled_from(["", "", "", "shared"]),
)
destinations = st.sampled_from(
    [
        Destination(kind="anywhere"),
        Destination(kind="public"),
        Destination(kind="cidr", cidr="10.1.0.0/16"),
        Destination(kind="cidr", cidr="no cidr"),
        Destination(kind="pods", labels={"app": "a"}),
        Destination(kind="pods", namespace="ns", service="front"),
    ]
)
selectors = st.sampled_from(
    [Selector(), *(Selector(match_labels=each) for each in LABELS), Selector(service="front")]
)
rules = st.builds(
    Rule,
    name=st.sampled_from(["r", "s"]),
    action=st.sampled_from(["permit", "permit", "deny"]),
    destinations=st.lists(destinations, min_size=1, max_size=2).map(tuple),
    selector=selectors,
    web_groups=st.sampled_from([None, ("example.com",), ("*.example.com", "evil.org"), ("*",), ("b*d",)]),
    protocol=st.sampled_from(["any", "tcp"]),
    ports=st.sampled_from([None, PortRange(443, 443)]),
    understood=st.sampled_from([True, True, True, False]),
)
policies = st.builds(
    Policy,
    namespace=st.sampled_from(["ns", "other"]),
    name=st.sampled_from(["p0", "p1", "p2", "p3", "p4"]),
    kind=st.just("FirewallPolicy"),
    rules=st.lists(rules, max_size=3).map(tuple),
)
services = st.sampled_from(
    [
        (),
        (Service(namespace="ns", name="front", selector={"app": "a"}, cluster_ips=("10.96.0.1",)),),
        (Service(namespace="ns", name="front", addresses=("10.244.0.1",)),),
    ]
)
ceilings = st.sampled_from(
    [
        Ceiling(),
        Ceiling(),
        Ceiling(allowed=(CeilingAllowed(namespace="ns", names=("*.example.com", "b*d")),)),
        Ceiling(grant=(CeilingGrant(namespace="", pod_name_prefix="p1", names=("evil.org",)),)),
    ]
)
worlds = st.builds(
    World,
    generation=st.just(1),
    pods=st.lists(pods, max_size=4, unique_by=lambda pod: pod.key).map(tuple),
    policies=st.lists(policies, max_size=5).map(tuple),
    services=services,
    ceiling=ceilings,
    cluster_cidrs=st.sampled_from([(), (), ("10.96.0.0/12",)]),
    cluster_traffic=st.sampled_from(["exempt", "govern", "govern"]),
    break_glass=st.sampled_from([(), (), (BreakGlass("ns", "2026-01-01T00:00:00Z"),)]),
)


@st.composite
def histories(draw: st.DrawFn) -> list[World]:
    """Draw worlds of which each keeps some parts of the one before, as a cluster's do."""
    found = [draw(worlds)]
    for _ in range(draw(st.integers(1, 4))):
        old, new = found[-1], draw(worlds)
        kept = {
            field: getattr(old, field)
            for field in ("pods", "services", "ceiling", "cluster_cidrs", "cluster_traffic", "break_glass")
            if draw(st.booleans())
        }
        left = tuple(policy for policy in old.policies if draw(st.booleans()))
        added = draw(st.integers(0, len(new.policies)))
        found.append(msgspec.structs.replace(new, policies=(*new.policies[:added], *left), **kept))
    return found


def said(snapshot: Snapshot) -> list[object]:
    """Everything that a snapshot says about its pods."""
    found: list[object] = [snapshot.problems, snapshot.policy_hash, snapshot.policies]
    for pod in snapshot.world.pods:
        found += [snapshot.rules_for(pod), snapshot.static_boxes(pod), snapshot.pod(pod.key)]
        for name, address in itertools.product((None, *NAMES), (None, *ADDRESSES)):
            if name is None and address is None:
                continue
            for protocol, port in PORTS:
                found.append(snapshot.decide(pod, name, address, protocol, port))
    return found


@settings(max_examples=60)
@given(histories())
def test_a_memory_changes_nothing(history: list[World]) -> None:
    """Each world of a history says the same with the memory of those before as without one."""
    memory = Memory()
    for world in history:
        assert said(compile_snapshot(world, memory)) == said(compile_snapshot(world))


@settings(max_examples=30)
@given(histories())
def test_a_memory_of_other_objects_changes_nothing(history: list[World]) -> None:
    """The same where every world comes over the wire: equal parts are other objects."""
    memory = Memory()
    for world in history:
        received = msgspec.json.decode(msgspec.json.encode(world), type=World)
        assert said(compile_snapshot(received, memory)) == said(compile_snapshot(world))


@given(histories())
def test_an_old_snapshot_stays_as_it_is(history: list[World]) -> None:
    """What is compiled later does not change what was compiled before."""
    memory = Memory()
    first = compile_snapshot(history[0], memory)
    before = said(first)
    for world in history[1:]:
        said(compile_snapshot(world, memory))
    assert said(first) == before


def test_pods_as_a_destination_are_looked_up_again() -> None:
    """A policy that stays the same means other addresses once there are other pods."""
    to = Destination(kind="pods", labels={"app": "b"})
    rule = Rule(name="r", action="permit", destinations=(to,), selector=Selector(match_labels={"app": "a"}))
    own = Policy(namespace="ns", name="m", kind="FirewallPolicy", rules=(rule,))
    pod = Pod(namespace="ns", name="p", uid="u", addresses=("10.0.0.1",), labels={"app": "a"})
    there = Pod(namespace="ns", name="q", uid="v", addresses=("10.0.0.2",), labels={"app": "b"})
    memory = Memory()
    world = World(generation=1, pods=(pod,), policies=(own,), cluster_traffic="govern")
    for pods, is_open in (((pod,), False), ((pod, there), True), ((pod,), False)):
        snapshot = compile_snapshot(msgspec.structs.replace(world, pods=pods), memory)
        assert snapshot.decide(pod, None, to_packed("10.0.0.2"), "tcp", 443).permitted is is_open


def test_a_world_that_could_not_be_compiled_leaves_nothing_behind() -> None:
    """A policy that went with it permits nothing in the worlds after it."""
    rule = Rule(
        name="r", action="permit", destinations=(Destination(kind="public"),), web_groups=("example.com",)
    )
    good = Policy(namespace="ns", name="m", kind="FirewallPolicy", rules=(rule,))
    bad = msgspec.structs.replace(good, name="\ud800")
    pod = Pod(namespace="ns", name="p", uid="u", addresses=("10.0.0.1",))
    memory = Memory()
    world = World(generation=1, pods=(pod,), policies=(good,))
    assert compile_snapshot(world, memory).access(pod, "example.com").resolvable
    with pytest.raises(UnicodeEncodeError):
        compile_snapshot(msgspec.structs.replace(world, policies=(bad,)), memory)
    without = msgspec.structs.replace(world, policies=())
    assert not compile_snapshot(without, memory).access(pod, "example.com").resolvable


def test_what_did_not_change_is_the_same() -> None:
    """The memory works at all: a pod's answers survive a change that is not its own."""
    own = Rule(
        name="r",
        action="permit",
        destinations=(Destination(kind="public"),),
        selector=Selector(match_labels={"app": "a"}),
        web_groups=("example.com",),
    )
    other = msgspec.structs.replace(own, selector=Selector(match_labels={"app": "b"}))

    def policy(name: str, rule: Rule) -> Policy:
        return Policy(namespace="ns", name=name, kind="FirewallPolicy", rules=(rule,))

    pod = Pod(namespace="ns", name="p", uid="u", addresses=("10.0.0.1",), labels={"app": "a"})
    memory = Memory()
    one = World(generation=1, pods=(pod,), policies=(policy("m", own), policy("z", other)))
    first = compile_snapshot(one, memory).access(pod, "example.com")
    same = msgspec.structs.replace(one, policies=(one.policies[0], policy("y", other)))
    assert compile_snapshot(same, memory).access(pod, "example.com") is first
    assert compile_snapshot(same, memory).decider(pod) is compile_snapshot(one, memory).decider(pod)
    renumbered = msgspec.structs.replace(one, policies=(policy("a", other), one.policies[0]))
    snapshot = compile_snapshot(renumbered, memory)
    assert [rule.group for rule in snapshot.rules_for(pod)] == [1]
    changed = msgspec.structs.replace(one, policies=(policy("m", other),))
    assert not compile_snapshot(changed, memory).access(pod, "example.com").resolvable
    assert compile_snapshot(changed, memory).decider(pod) is not snapshot.decider(pod)
