"""Laws of the decision, against a plain reading of policy.md that tries every tuple by itself."""

from __future__ import annotations

import ipaddress
import itertools
from typing import NamedTuple

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.addresses import to_packed
from policy.break_glass import BreakGlass
from policy.patterns import parse_pattern
from policy.pods import Pod
from policy.rules import (
    Ceiling,
    CeilingAllowed,
    CeilingDenied,
    CeilingGrant,
    Destination,
    Policy,
    PortRange,
    Rule,
    Selector,
)
from policy.snapshot import Snapshot, compile_snapshot
from policy.world import World

OWN, OTHERS = Selector(match_labels={"app": "a"}), Selector(match_labels={"app": "b"})
POD = Pod(namespace="ns", name="a", uid="u", addresses=("10.244.0.5",), labels={"app": "a"})
NAMES = (
    "example.com",
    "api.example.com",
    "a.b.example.com",
    "evil.org",
    "db.corp.internal",
    "s.cluster.local",
)
PATTERNS = ("example.com", "api.example.com", "*.example.com", "*", "evil.org", "db.corp.internal")
ZONE = "corp.internal"
# Each CIDR, and whether it lies wholly inside the guarded ranges.
CIDRS = {
    "0.0.0.0/0": False,
    "::/0": False,
    "8.0.0.0/6": False,
    "93.184.0.0/16": False,
    "2606::/16": False,
    "10.0.0.0/8": True,
    "10.1.0.0/16": True,
    "fd00::/8": True,
}
PUBLIC = ("8.8.8.8", "93.184.216.34", "1.1.1.1", "2606:2800::1", "2a00::1", "64:ff9b::808:808")
GUARDED = ("10.1.2.3", "10.2.0.1", "192.168.1.1", "fd00::1", "fe80::1", "64:ff9b::a01:203")
ADDRESSES = PUBLIC + GUARDED
PORTS: tuple[tuple[str, int | None], ...] = (
    *itertools.product(("tcp", "udp"), (22, 53, 80, 443, 8080)),
    ("icmp", None),
)


class Tuple(NamedTuple):
    """One question: name (or none), address, protocol and port."""

    name: str | None
    address: str
    protocol: str
    port: int | None


destinations = st.one_of(
    st.sampled_from([Destination(kind="anywhere"), Destination(kind="public")]),
    st.sampled_from([Destination(kind="cidr", cidr=cidr) for cidr in CIDRS]),
)
port_ranges = st.sampled_from(
    [None, PortRange(443, 443), PortRange(80, 80), PortRange(1, 1023), PortRange(53, 53)]
)


@st.composite
def rules(draw: st.DrawFn, number: int) -> Rule:
    """Draw one rule, seldom one that is not understood or only watches."""
    protocol = draw(st.sampled_from(["any", "tcp", "udp", "icmp"]))
    plain = protocol == "icmp"
    return Rule(
        name=f"r{number}",
        action=draw(st.sampled_from(["permit", "permit", "deny"])),
        destinations=tuple(draw(st.lists(destinations, min_size=1, max_size=2))),
        selector=draw(st.sampled_from([Selector(), OWN, OWN, OTHERS])),
        web_groups=None
        if plain
        else draw(st.none() | st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=2).map(tuple)),
        protocol=protocol,
        ports=None if plain else draw(port_ranges),
        watch=draw(st.integers(0, 9)) == 0,
        understood=draw(st.integers(0, 9)) != 0,
    )


@st.composite
def policies(draw: st.DrawFn, number: int) -> Policy:
    """Draw one policy of up to four rules."""
    count = draw(st.integers(1, 4))
    return Policy(
        namespace="ns",
        name=f"p{number}",
        kind="FirewallPolicy",
        rules=tuple(draw(rules(i)) for i in range(count)),
    )


ceilings = st.builds(
    Ceiling,
    denied=st.sampled_from(
        [CeilingDenied(), CeilingDenied(names=("evil.org",)), CeilingDenied(cidrs=("8.0.0.0/6",))]
    ),
    allowed=st.sampled_from(
        [
            (),
            (),
            (CeilingAllowed(namespace="ns", names=("*.example.com",), cidrs=("10.1.0.0/16",)),),
            (CeilingAllowed(namespace="other"),),
        ]
    ),
    grant=st.sampled_from(
        [
            (),
            (CeilingGrant(namespace="ns", pod_name_prefix="a", names=("example.com",)),),
            (CeilingGrant(namespace="ns", names=("evil.org",), cidrs=("10.1.0.0/16",), ports=(80,)),),
        ]
    ),
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Draw a world of one pod and up to three policies."""
    count = draw(st.integers(0, 3))
    return World(
        generation=1,
        pods=(POD,),
        policies=tuple(draw(policies(i)) for i in range(count)),
        ceiling=draw(ceilings),
        private_zones=(ZONE,),
    )


def _named(texts: tuple[str, ...], name: str | None) -> bool:
    if name is None:
        return False
    return any(
        parse_pattern(text).matches(name) and not (text == "*" and name.endswith("cluster.local"))
        for text in texts
    )


def _is_wide(destination: Destination) -> bool:
    return destination.kind != "cidr" or destination.cidr in {"0.0.0.0/0", "::/0"}


def _in_cidr(address: str, cidr: str, *, nat64: bool) -> bool:
    found = ipaddress.ip_address(address)
    if nat64 and address.startswith("64:ff9b::") and "." in cidr:
        found = ipaddress.ip_address(int(found) & 0xFFFFFFFF)
    return found in ipaddress.ip_network(cidr)


def _contains(rule: Rule, destination: Destination, address: str) -> bool:
    guarded = address in GUARDED
    if rule.action == "deny":
        if destination.kind == "public":
            return not guarded
        return _is_wide(destination) or _in_cidr(address, destination.cidr, nat64=True)
    if destination.kind != "cidr" or (rule.web_groups is not None and _is_wide(destination)):
        return not guarded
    return _in_cidr(address, destination.cidr, nat64=False) and (CIDRS[destination.cidr] or not guarded)


def _matches(rule: Rule, asked: Tuple) -> bool:
    if rule.web_groups is not None and not _named(rule.web_groups, asked.name):
        return False
    if rule.protocol not in {"any", asked.protocol}:
        return False
    pruned = rule.action == "permit" and rule.web_groups is not None and rule.ports is None
    if pruned and (asked.protocol != "tcp" or asked.port not in {80, 443}):
        return False
    if rule.ports is not None and (
        asked.port is None or not rule.ports.first <= asked.port <= rule.ports.last
    ):
        return False
    return any(_contains(rule, destination, asked.address) for destination in rule.destinations)


def _states_default(policy: Policy, position: int) -> bool:
    rule = policy.rules[position]
    if rule.web_groups is not None or not any(map(_is_wide, rule.destinations)):
        return False
    if rule.protocol == "any" and rule.ports is None:
        return True
    return any(
        before.action == "permit"
        and before.selector != OTHERS
        and before.web_groups is not None
        and before.understood
        and not before.watch
        and (before.protocol, before.ports) == (rule.protocol, rule.ports)
        for before in policy.rules[:position]
    )


def _one_policy(policy: Policy, asked: Tuple) -> tuple[str, list[Rule]]:
    """Return the outcome of one policy ("", permit, deny, default) and the permits that agree."""
    outcome = ""
    agreeing: list[Rule] = []
    ended = False
    for position, rule in enumerate(policy.rules):
        counts = all(before.understood for before in policy.rules[: position + 1])
        if rule.watch or rule.selector == OTHERS or not _matches(rule, asked):
            continue
        if rule.action == "deny" and not rule.understood:
            return "deny", []
        if ended or (rule.action == "permit" and not counts):
            continue
        if rule.action == "permit":
            outcome = outcome or "permit"
            agreeing.append(rule)
            continue
        ended = True
        if not outcome:
            outcome = "default" if _states_default(policy, position) else "deny"
    return outcome, agreeing


def _permits(world: World, asked: Tuple) -> list[Rule | str] | None:
    """Return the rules that permit a tuple, or None. The ceiling's grants are told by their name."""
    if asked.port in {53, 853}:
        return None
    ceiling = world.ceiling
    if _named(ceiling.denied.names, asked.name) or any(
        _in_cidr(asked.address, cidr, nat64=True) for cidr in ceiling.denied.cidrs
    ):
        return None
    found: list[Rule | str] = []
    for grant in ceiling.grant:
        if asked.protocol == "tcp" and asked.port in grant.ports:
            if _named(grant.names, asked.name) and asked.address not in GUARDED:
                found.append("named grant")
            if any(_in_cidr(asked.address, cidr, nat64=False) for cidr in grant.cidrs):
                found.append("static grant")
    outcomes = [_one_policy(policy, asked) for policy in world.policies]
    verdicts = {verdict for verdict, _ in outcomes}
    if "deny" not in verdicts and "permit" in verdicts:
        for verdict, agreeing in outcomes:
            found += agreeing if verdict == "permit" else []
    return [rule for rule in found if _is_allowed(ceiling, asked, rule)] or None


def _is_allowed(ceiling: Ceiling, asked: Tuple, rule: Rule | str) -> bool:
    entries = [entry for entry in ceiling.allowed if entry.namespace == POD.namespace]
    if not entries or any(_named(entry.names, asked.name) for entry in entries):
        return True
    named = rule == "named grant" if isinstance(rule, str) else rule.web_groups is not None
    return not named and any(
        _in_cidr(asked.address, cidr, nat64=False) for entry in entries for cidr in entry.cidrs
    )


def _resolves(world: World, name: str) -> bool:
    """Say whether some tuple is permitted by a rule that may open a name."""
    allowed = [entry for entry in world.ceiling.allowed if entry.namespace == POD.namespace]
    name_allowed = not allowed or any(_named(entry.names, name) for entry in allowed)
    for address, (protocol, port) in itertools.product(ADDRESSES, PORTS):
        for rule in _permits(world, Tuple(name, address, protocol, port)) or ():
            if rule == "named grant" or name.endswith(ZONE):
                return True
            if isinstance(rule, Rule) and (
                rule.web_groups is not None or (name_allowed and any(map(_is_wide, rule.destinations)))
            ):
                return True
    return False


def _tuples(name: str | None) -> list[Tuple]:
    return [Tuple(name, address, *ports) for address, ports in itertools.product(ADDRESSES, PORTS)]


def _decided(snapshot: Snapshot, asked: Tuple) -> bool:
    found = snapshot.decide(POD, asked.name, to_packed(asked.address), asked.protocol, asked.port)
    assert found.reason
    return found.permitted


def _all_decisions(world: World) -> dict[Tuple, bool]:
    snapshot = compile_snapshot(world)
    return {asked: _decided(snapshot, asked) for name in (*NAMES, None) for asked in _tuples(name)}


slow = settings(max_examples=60)


@slow
@given(worlds(), st.sampled_from((*NAMES, None)))
def test_decide_agrees_with_a_plain_reading(world: World, name: str | None) -> None:
    """Every tuple is decided as reading the rules one by one decides it."""
    snapshot = compile_snapshot(world)
    resolvable = name is None or _resolves(world, name)
    if name is not None:
        assert snapshot.access(POD, name).resolvable == resolvable
    for asked in _tuples(name):
        expected = resolvable and _permits(world, asked) is not None
        assert _decided(snapshot, asked) == expected, asked


@slow
@given(worlds(), st.sampled_from(NAMES))
def test_access_agrees_with_decide(world: World, name: str) -> None:
    """The intervals that a name's address gets are exactly the ports that decide permits."""
    snapshot = compile_snapshot(world)
    access = snapshot.access(POD, name)
    for asked in _tuples(name):
        found = access.at(to_packed(asked.address))
        # A permit of all ports is one interval: the kernel drops 53 and 853 before grants count.
        opened = any(permit.has(asked.protocol, asked.port) for permit in found.permits)
        assert (opened and asked.port != 53) == _decided(snapshot, asked)
        assert bool(found.permits) != bool(found.reason)


@slow
@given(worlds())
def test_static_boxes_agree_with_decide_and_are_disjoint(world: World) -> None:
    """A packet without a name is permitted exactly inside the boxes, by exactly one of them."""
    snapshot = compile_snapshot(world)
    boxes = snapshot.static_boxes(POD)
    for asked in _tuples(None):
        packed = to_packed(asked.address)
        inside = [
            box
            for box in boxes
            if len(box.first) == len(packed)
            and box.first <= packed <= box.last
            and box.protocol in {"any", asked.protocol}
            and box.first_port <= (asked.port or 0) <= box.last_port
        ]
        if asked.port != 53:
            assert len(inside) == _decided(snapshot, asked)
        assert len(inside) <= 1


@slow
@given(worlds(), st.randoms(use_true_random=False))
def test_policies_commute(world: World, random: object) -> None:
    """The order in which policies were listed changes no decision and no attribution."""
    shuffled = list(world.policies)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    other = msgspec.structs.replace(world, policies=tuple(shuffled))
    one, two = compile_snapshot(world), compile_snapshot(other)
    assert one.policy_hash == two.policy_hash
    for name in (*NAMES, None):
        for asked in _tuples(name):
            arguments = (POD, name, to_packed(asked.address), asked.protocol, asked.port)
            assert one.decide(*arguments) == two.decide(*arguments)


@slow
@given(worlds(), rules(9), st.booleans())
def test_adding_an_explicit_deny_never_adds_a_permit(world: World, rule: Rule, understood: bool) -> None:
    """A policy that only denies, understood or not, takes away; it never opens anything."""
    deny = msgspec.structs.replace(rule, action="deny", understood=understood, watch=False)
    more = Policy(namespace="ns", name="q", kind="FirewallPolicy", rules=(deny,))
    before = _all_decisions(world)
    after = _all_decisions(msgspec.structs.replace(world, policies=(*world.policies, more)))
    assert all(before[asked] for asked, permitted in after.items() if permitted)


@slow
@given(worlds(), st.data())
def test_a_watched_rule_decides_nothing(world: World, data: st.DataObject) -> None:
    """Without its watched rules a world decides the same, as long as they are understood."""
    kept = tuple(
        msgspec.structs.replace(
            policy, rules=tuple(r for r in policy.rules if not (r.watch and r.understood))
        )
        for policy in world.policies
    )
    assert _all_decisions(world) == _all_decisions(msgspec.structs.replace(world, policies=kept))


@slow
@given(worlds(), policies(7))
def test_what_is_not_understood_never_opens_more(world: World, policy: Policy) -> None:
    """A rule that is no longer understood permits nothing that it did not permit before."""
    better = msgspec.structs.replace(
        policy, rules=tuple(msgspec.structs.replace(rule, understood=True) for rule in policy.rules)
    )
    worse = _all_decisions(msgspec.structs.replace(world, policies=(*world.policies, policy)))
    before = _all_decisions(msgspec.structs.replace(world, policies=(*world.policies, better)))
    assert all(before[asked] for asked, permitted in worse.items() if permitted)


OPENED = BreakGlass("ns", "2026-11-23T10:00:00Z", "the vendor's names have changed")


def _denied_by_ceiling(world: World, asked: Tuple) -> bool:
    denied = world.ceiling.denied
    return _named(denied.names, asked.name) or any(
        _in_cidr(asked.address, cidr, nat64=True) for cidr in denied.cidrs
    )


@slow
@given(worlds())
def test_break_glass_opens_what_is_not_guarded_and_nothing_else(world: World) -> None:
    """Whatever the policies and the ceiling say: all but guarded addresses, denied ones and DNS's ports."""
    before = _all_decisions(world)
    after = _all_decisions(msgspec.structs.replace(world, break_glass=(OPENED,)))
    for asked, permitted in after.items():
        was = before[asked] or before[asked._replace(name=None)] or _permits(world, asked) is not None
        if asked.port in {53, 853} or _denied_by_ceiling(world, asked):
            assert not permitted
        elif asked.address in GUARDED:
            assert permitted <= was, f"{asked}: through a permit of its own CIDR alone"
        else:
            assert permitted
        assert permitted or not before[asked], "it never closes what was open"


@slow
@given(worlds())
def test_break_glass_of_another_namespace_changes_nothing(world: World) -> None:
    """It is for one namespace alone."""
    other = msgspec.structs.replace(OPENED, namespace="ns-2")
    assert _all_decisions(world) == _all_decisions(msgspec.structs.replace(world, break_glass=(other,)))
