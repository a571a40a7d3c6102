"""The administrators' ceiling: decided before any policy, exceeded by none."""

from __future__ import annotations

from policy.addresses import to_packed
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
)
from policy.snapshot import Snapshot, compile_snapshot
from policy.world import World

SERVER = Pod(
    namespace="obot-mcp", name="ms1abc", uid="u1", addresses=("10.244.0.5",), labels={"app": "ms1abc"}
)
PREVIEW = Pod(namespace="obot-mcp", name="tool-preview-0f3a", uid="u2", addresses=("10.244.0.6",))
PUBLIC = to_packed("93.184.216.34")
ANYWHERE = (Destination(kind="anywhere"),)


def _policy(*rules: Rule) -> Policy:
    return Policy(namespace="obot-mcp", name="p", kind="FirewallPolicy", rules=rules)


def _named(*names: str) -> Rule:
    return Rule(
        name="allow",
        action="permit",
        destinations=ANYWHERE,
        web_groups=names,
        protocol="tcp",
        ports=PortRange(443, 443),
    )


def _snapshot(ceiling: Ceiling, *rules: Rule) -> Snapshot:
    policies = (_policy(*rules),) if rules else ()
    return compile_snapshot(World(generation=1, pods=(SERVER, PREVIEW), policies=policies, ceiling=ceiling))


def test_denied_names_are_denied_everywhere() -> None:
    """A policy, a static permit of everything and a grant do not open them."""
    ceiling = Ceiling(
        denied=CeilingDenied(names=("*.pastebin.example",)),
        grant=(CeilingGrant(namespace="obot-mcp", names=("a.pastebin.example",)),),
    )
    static = Rule(name="all", action="permit", destinations=ANYWHERE)
    for rule in (_named("*"), static):
        snapshot = _snapshot(ceiling, rule)
        decided = snapshot.decide(SERVER, "a.pastebin.example", None, "tcp", 443)
        assert (decided.verdict, decided.policy, decided.rule) == ("deny", "ceiling", "denied")
        assert decided.reason == "the ceiling denies a.pastebin.example everywhere"
        assert snapshot.decide(SERVER, "pastebin.example", None, "tcp", 443).permitted


def test_denied_cidrs_are_in_no_answer_and_no_box() -> None:
    """Their addresses are refused with the ceiling as the reason, behind NAT64 too."""
    ceiling = Ceiling(denied=CeilingDenied(cidrs=("93.184.0.0/16",)))
    snapshot = _snapshot(ceiling, _named("*"), Rule(name="all", action="permit", destinations=ANYWHERE))
    found = snapshot.access(SERVER, "a.com").at(PUBLIC)
    assert (found.permits, found.policy) == ((), "ceiling")
    assert found.reason == "the ceiling denies 93.184.216.34 everywhere"
    assert not snapshot.access(SERVER, "a.com").at(to_packed("64:ff9b::5db8:1")).permits
    assert not any(
        box.first <= PUBLIC <= box.last for box in snapshot.static_boxes(SERVER) if len(box.first) == 4
    )


def test_allowed_is_all_that_may_be_permitted() -> None:
    """Names and CIDRs beyond it stay closed in that namespace, for that pod-name prefix."""
    ceiling = Ceiling(
        allowed=(
            CeilingAllowed(
                namespace="obot-mcp", pod_name_prefix="ms1", names=("*.example.com",), cidrs=("8.8.8.0/24",)
            ),
        )
    )
    static = Rule(name="static", action="permit", destinations=(Destination(kind="cidr", cidr="8.0.0.0/8"),))
    snapshot = _snapshot(ceiling, _named("*"), static)
    assert snapshot.decide(SERVER, "api.example.com", PUBLIC, "tcp", 443).permitted
    refused = snapshot.decide(SERVER, "evil.org", PUBLIC, "tcp", 443)
    assert (refused.reason, refused.policy, refused.rule) == (
        "the ceiling does not allow evil.org for obot-mcp/ms1abc",
        "ceiling",
        "allowed",
    )
    assert snapshot.decide(SERVER, None, to_packed("8.8.8.8"), "tcp", 22).permitted
    assert not snapshot.decide(SERVER, None, to_packed("8.9.9.9"), "tcp", 22).permitted
    assert snapshot.decide(PREVIEW, "evil.org", PUBLIC, "tcp", 443).permitted


def test_an_empty_allowed_entry_allows_nothing() -> None:
    """An entry without names and CIDRs closes its pods."""
    ceiling = Ceiling(allowed=(CeilingAllowed(namespace="obot-mcp"),))
    assert not _snapshot(ceiling, _named("*")).access(SERVER, "a.com").resolvable


def test_grants_reach_pods_by_their_name() -> None:
    """Pods with random labels get what they need, on those ports; no policy closes it."""
    ceiling = Ceiling(
        grant=(
            CeilingGrant(
                namespace="obot-mcp", pod_name_prefix="tool-preview-", names=("packages.example.com",)
            ),
        )
    )
    deny_all = Rule(name="odd", action="deny", destinations=ANYWHERE, understood=False)
    for rules in ((), (deny_all,)):
        snapshot = _snapshot(ceiling, *rules)
        decided = snapshot.decide(PREVIEW, "packages.example.com", PUBLIC, "tcp", 443)
        assert (decided.verdict, decided.policy, decided.rule) == ("permit", "ceiling", "grant")
        assert snapshot.access(PREVIEW, "packages.example.com").exact
        assert not snapshot.decide(PREVIEW, "packages.example.com", PUBLIC, "tcp", 80).permitted
        assert not snapshot.decide(
            PREVIEW, "packages.example.com", to_packed("10.0.0.1"), "tcp", 443
        ).permitted
        assert not snapshot.access(SERVER, "packages.example.com").resolvable


def test_granted_cidrs_are_static_permits() -> None:
    """They open without DNS, and as the guard has it."""
    ceiling = Ceiling(grant=(CeilingGrant(namespace="obot-mcp", cidrs=("10.1.0.0/16",), ports=(5432, 53)),))
    snapshot = _snapshot(ceiling)
    (box,) = snapshot.static_boxes(SERVER)
    assert (box.protocol, box.first_port, box.last_port, box.policy) == ("tcp", 5432, 5432, "ceiling")
    assert not snapshot.access(SERVER, "a.com").resolvable


def test_entries_that_cannot_be_read_fail_closed() -> None:
    """A bad denied entry denies everything until it is corrected; a bad permit is left out."""
    denied = _snapshot(Ceiling(denied=CeilingDenied(names=("**",), cidrs=("x",))), _named("*"))
    assert not denied.access(SERVER, "a.com").resolvable
    assert all("everything is denied" in problem for problem in denied.problems)
    grant = _snapshot(
        Ceiling(grant=(CeilingGrant(namespace="obot-mcp", names=("a:1", "b.com"), cidrs=("x",)),))
    )
    assert grant.access(SERVER, "b.com").resolvable
    assert len(grant.problems) == 2


def test_names_that_are_not_allowed_are_not_even_resolved() -> None:
    """A static permit of everything opens the allowed CIDR, and no other name, at no address."""
    ceiling = Ceiling(
        allowed=(CeilingAllowed(namespace="obot-mcp", names=("a.com",), cidrs=("93.184.0.0/16",)),)
    )
    snapshot = _snapshot(ceiling, Rule(name="all", action="permit", destinations=ANYWHERE))
    assert snapshot.decide(SERVER, None, PUBLIC, "tcp", 22).permitted
    assert snapshot.access(SERVER, "a.com").resolvable
    assert not snapshot.access(SERVER, "b.com").resolvable
