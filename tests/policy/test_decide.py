"""The decision, sentence by sentence of policy.md "Order" and "What counts as understood"."""

from __future__ import annotations

import pytest

from policy.addresses import to_packed
from policy.decision import Decision
from policy.pods import Pod
from policy.rules import Destination, Policy, PortRange, Rule, Selector
from policy.snapshot import Snapshot, compile_snapshot
from policy.world import World

EVERYWHERE = (Destination(kind="cidr", cidr="0.0.0.0/0"),)
HTTPS = PortRange(443, 443)
PUBLIC = "93.184.216.34"
POD = Pod(namespace="ns", name="a", uid="u1", addresses=("10.244.0.5",), labels={"app": "a"})


def _permit(*names: str, name: str = "allow", **more: object) -> Rule:
    fields: dict[str, object] = {"destinations": EVERYWHERE, "protocol": "tcp", "ports": HTTPS}
    return Rule(name=name, action="permit", web_groups=names or None, **(fields | more))  # type: ignore[arg-type]


def _deny(name: str = "deny", **more: object) -> Rule:
    return Rule(name=name, action="deny", **({"destinations": EVERYWHERE} | more))  # type: ignore[arg-type]


def _cidr(*cidrs: str) -> tuple[Destination, ...]:
    return tuple(Destination(kind="cidr", cidr=cidr) for cidr in cidrs)


def _policy(*rules: Rule, name: str = "p", namespace: str = "ns") -> Policy:
    return Policy(namespace=namespace, name=name, kind="FirewallPolicy", rules=rules)


def _snapshot(*policies: Policy, **world: object) -> Snapshot:
    return compile_snapshot(World(generation=1, **({"pods": (POD,), "policies": policies} | world)))  # type: ignore[arg-type]


def _ask(
    snapshot: Snapshot, name: str | None, port: int | None = 443, protocol: str = "tcp", at: str | None = None
) -> Decision:
    return snapshot.decide(POD, name, to_packed(at) if at else None, protocol, port)


OBOT = _policy(_permit("api.example.com", "*.corp.example.net"), _deny(name="deny-all-external"))


def test_obots_policy_permits_its_names_on_its_port() -> None:
    """The approved name is permitted, everything else is not, and both say by which rule."""
    snapshot = _snapshot(OBOT)
    permitted = _ask(snapshot, "api.example.com", at=PUBLIC)
    assert (permitted.verdict, permitted.policy, permitted.rule) == ("permit", "ns/p", "allow")
    denied = _ask(snapshot, "evil.org")
    assert denied.reason == "no rule permits evil.org for ns/a"
    assert (denied.policy, denied.rule, denied.nearest) == ("ns/p", "deny-all-external", None)
    raw = _ask(snapshot, None, at=PUBLIC)
    assert raw.reason == f"no rule permits {PUBLIC} without a name for ns/a"
    assert raw.rule == "deny-all-external"


def test_both_families_are_meant_by_obots_only_cidr() -> None:
    """0.0.0.0/0 in a rule with webGroups means IPv6 too."""
    assert _ask(_snapshot(OBOT), "api.example.com", at="2606:2800::1").permitted


@pytest.mark.parametrize(
    ("name", "port", "protocol", "reason"),
    [
        ("api.example.com", 80, "tcp", "port 80 not permitted for api.example.com, only 443"),
        ("api.example.com", 443, "udp", "udp/443 not permitted for api.example.com, only tcp/443"),
        ("api.example.com", None, "icmp", "icmp not permitted for api.example.com, only tcp/443"),
        ("api.example.com", 53, "udp", "port 53 is never granted: DNS is the resolver's"),
        ("api.example.com", 853, "tcp", "port 853 is never granted: DNS is the resolver's"),
        ("a\\046b.com", 443, "tcp", "a\\046b.com is never permitted: only names of a-z, 0-9, - and _ are"),
        ("", 443, "tcp", "the root is never permitted: only names of a-z, 0-9, - and _ are"),
    ],
)
def test_reasons_say_what_would_be_permitted(name: str, port: int | None, protocol: str, reason: str) -> None:
    """A refused port names the ports that are open."""
    assert _ask(_snapshot(OBOT), name, port, protocol).reason == reason


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("corp.example.net", "*.corp.example.net"),
        ("x.api.example.com", "api.example.com"),
        ("example.com", "api.example.com"),
        ("apii.example.com", "api.example.com"),
        ("ap.iexample.com", "api.example.com"),
        ("x.corp.exmaple.net", "*.corp.example.net"),
        ("evil.org", None),
        ("something-else.com", None),
    ],
)
def test_the_nearest_miss(name: str, nearest: str | None) -> None:
    """Apex against wildcard, another depth, a typo; nothing for what is far."""
    assert _ask(_snapshot(OBOT), name).nearest == nearest


def test_the_first_rule_that_matches_decides() -> None:
    """Within a policy an earlier deny takes its tuples, an earlier permit keeps its own."""
    deny = _deny(web_groups=("b.example.com",))
    assert not _ask(_snapshot(_policy(deny, _permit("*.example.com"))), "b.example.com").permitted
    assert _ask(_snapshot(_policy(_permit("*.example.com"), deny)), "b.example.com").permitted


def test_webgroups_and_destination_must_both_match() -> None:
    """A rule with webGroups opens only addresses in its destination; others fall through."""
    snapshot = _snapshot(
        _policy(_permit("a.com", destinations=_cidr("93.0.0.0/8")), _permit("a.com", name="rest", ports=None))
    )
    assert _ask(snapshot, "a.com", at=PUBLIC).rule == "allow"
    assert _ask(snapshot, "a.com", at="8.8.8.8").rule == "rest"
    only = _snapshot(_policy(_permit("a.com", destinations=_cidr("93.0.0.0/8"))))
    assert (
        _ask(only, "a.com", at="8.8.8.8").reason == "no rule permits 8.8.8.8 as an address of a.com for ns/a"
    )


def test_an_explicit_deny_wins_over_other_policies_and_says_so() -> None:
    """A deny of a name in one policy closes it in all; the sentence names the deny."""
    ban = _policy(_deny(name="ban", web_groups=("api.example.com",)), name="q")
    denied = _ask(_snapshot(OBOT, ban), "api.example.com")
    assert (denied.reason, denied.policy, denied.rule) == ("ns/q/ban denies api.example.com", "ns/q", "ban")


def test_a_denied_port_names_the_deny() -> None:
    """Where a deny took only a port, the refusal of that port names it."""
    wide = _policy(_permit("api.example.com", ports=PortRange(1, 9000)))
    smtp = _policy(_deny(name="no-smtp", protocol="tcp", ports=PortRange(25, 25)), name="q")
    snapshot = _snapshot(wide, smtp)
    assert _ask(snapshot, "api.example.com", 443).permitted
    assert _ask(snapshot, "api.example.com", 25).reason == "ns/q/no-smtp denies api.example.com tcp/25"
    access = snapshot.access(POD, "api.example.com")
    spans = [(permit.first, permit.last) for permit in access.at(to_packed(PUBLIC)).permits]
    assert spans == [(1, 24), (26, 52), (54, 852), (854, 9000)]


def test_a_deny_of_a_name_does_not_close_its_address_for_another() -> None:
    """Only the name that was asked decides."""
    ban = _policy(_deny(web_groups=("evil.org",)), name="q")
    assert _ask(_snapshot(OBOT, ban), "api.example.com", at=PUBLIC).permitted


@pytest.mark.parametrize(
    ("deny", "explicit"),
    [
        (_deny(), False),
        (_deny(destinations=(Destination(kind="public"),)), False),
        (_deny(protocol="tcp", ports=HTTPS), False),
        (_deny(protocol="tcp", ports=PortRange(80, 443)), True),
        (_deny(protocol="tcp"), True),
        (_deny(destinations=_cidr("93.0.0.0/8")), True),
        (_deny(web_groups=("*",)), True),
    ],
)
def test_the_stated_default_binds_no_other_policy(deny: Rule, explicit: bool) -> None:
    """A deny-all, or one that repeats a permit's protocol and port, is no explicit deny."""
    other = _policy(_permit("b.example.com"), deny, name="q")
    decided = _ask(_snapshot(OBOT, other), "api.example.com", at=PUBLIC)
    assert decided.permitted is not explicit


def test_a_deny_on_a_port_without_a_permit_before_it_is_explicit() -> None:
    """The repeated protocol and port count only in the deny's own policy, and before it."""
    trailing = _policy(_deny(protocol="tcp", ports=HTTPS), _permit("b.example.com"), name="q")
    assert not _ask(_snapshot(OBOT, trailing), "api.example.com").permitted


def test_a_deny_states_the_default_only_for_pods_of_the_permit_before_it() -> None:
    """For pods that the permit does not apply to, the deny of the same port is an explicit one."""
    mine, others = Selector(match_labels={"app": "a"}), Selector(match_labels={"app": "b"})
    deny = _deny(protocol="tcp", ports=HTTPS)
    more = _policy(_permit("other.example.com"), name="q")
    foreign = _policy(_permit("api.example.com", selector=others), deny)
    assert not _ask(_snapshot(foreign, more), "other.example.com").permitted
    own = _policy(_permit("api.example.com", selector=mine), deny)
    assert _ask(_snapshot(own, more), "other.example.com").permitted


def test_the_stated_default_ends_its_own_policy() -> None:
    """Permits after a deny-all are never reached."""
    assert not _ask(_snapshot(_policy(_deny(), _permit("a.com"))), "a.com").permitted


def test_a_permit_that_is_not_understood_ends_the_permits_after_it() -> None:
    """It opens nothing, nor do those behind it; the sentence says which rule is at fault."""
    snapshot = _snapshot(
        _policy(
            _permit("a.com", name="one"),
            _permit("b.com", name="two", understood=False),
            _permit("c.com", name="three"),
        )
    )
    assert _ask(snapshot, "a.com").permitted
    assert _ask(snapshot, "b.com").reason == "ns/p/two would permit b.com, but it is not understood"
    assert (
        _ask(snapshot, "c.com").reason
        == "ns/p/three would permit c.com, but a rule before it is not understood"
    )


def test_a_deny_that_is_not_understood_denies_in_all_policies() -> None:
    """What its understood parts could match is denied, permits of its own policy included."""
    bad = _policy(
        _permit("b.com"), _deny(name="odd", destinations=_cidr("93.0.0.0/8"), understood=False), name="q"
    )
    snapshot = _snapshot(OBOT, bad)
    for name in ("api.example.com", "b.com"):
        assert not _ask(snapshot, name, at=PUBLIC).permitted
        assert _ask(snapshot, name, at="8.8.8.8").permitted
    everything = _policy(_deny(name="odd", understood=False), name="q")
    refused = _ask(_snapshot(OBOT, everything), "api.example.com")
    assert "ns/q/odd is not understood" in refused.reason


def test_a_bad_domain_is_skipped_in_a_permit_and_widens_a_deny() -> None:
    """A permit keeps its good names; a deny with a bad one denies every name."""
    snapshot = _snapshot(_policy(_permit("a.com", "b.com:443")))
    assert _ask(snapshot, "a.com").permitted
    assert any("b.com:443 has a port" in problem for problem in snapshot.problems)
    banned = _policy(_deny(web_groups=("b.com", "**")), name="q")
    assert not _ask(_snapshot(OBOT, banned), "api.example.com").permitted


def test_a_permit_with_webgroups_and_no_port_opens_web_ports_only() -> None:
    """The port may have been pruned by the API server; the problems say so."""
    snapshot = _snapshot(_policy(_permit("a.com", protocol="any", ports=None)))
    assert [_ask(snapshot, "a.com", port).permitted for port in (80, 443, 8080)] == [True, True, False]
    assert not _ask(snapshot, "a.com", 443, "udp").permitted
    assert snapshot.problems == ("ns/p/allow has webGroups and no port: it opens tcp/80 and tcp/443 only",)


def test_a_watched_rule_opens_nothing_denies_nothing_and_is_reported() -> None:
    """What it would have decided is known for the lookup and for the packet."""
    snapshot = _snapshot(
        OBOT, _policy(_permit("evil.org", watch=True), _deny(name="dry", watch=True), name="q")
    )
    refused = _ask(snapshot, "evil.org")
    assert refused.reason == "ns/q/allow matches evil.org, but it only watches"
    assert snapshot.access(POD, "evil.org").watched == (("ns/q", "allow", "permit"), ("ns/q", "dry", "deny"))
    assert snapshot.access(POD, "api.example.com").watched == (("ns/q", "dry", "deny"),)
    assert _ask(snapshot, "api.example.com").permitted
    packet = to_packed(PUBLIC)
    assert snapshot.watched(POD, None, packet, "tcp", 443) == (("ns/q", "dry", "deny"),)
    assert snapshot.watched(POD, "evil.org", packet, "tcp", 443)[0] == ("ns/q", "allow", "permit")


def test_a_permit_of_a_dns_port_only_makes_no_name_resolvable() -> None:
    """53 is never granted, so nothing of the name is permitted."""
    snapshot = _snapshot(_policy(_permit("a.com", ports=PortRange(53, 53))))
    refused = _ask(snapshot, "a.com")
    assert refused.reason == "ns/p/allow permits a.com, but on no address and port that can be granted"


def test_rules_apply_to_selected_pods_of_their_namespace() -> None:
    """Other namespaces' policies and other labels' rules do not select the pod."""
    elsewhere = _policy(_permit("a.com"), namespace="other")
    labelled = _policy(_permit("a.com", selector=Selector(match_labels={"app": "b"})))
    for policy in (elsewhere, labelled):
        snapshot = _snapshot(policy)
        assert _ask(snapshot, "a.com").reason == "no policy selects ns/a"
        assert _ask(snapshot, None, at=PUBLIC).reason == "no policy selects ns/a"
    both = _policy(_permit("a.com", selector=Selector(match_labels={"app": "a"})))
    assert _ask(_snapshot(both), "a.com").permitted


def test_what_is_not_known_or_not_governed() -> None:
    """An unknown pod may do nothing, an ungoverned one anything; a question needs a subject."""
    stranger = Pod(namespace="ns", name="b", uid="u2", addresses=("10.244.0.6",))
    snapshot = _snapshot(OBOT)
    assert snapshot.decide(stranger, "api.example.com", None, "tcp", 443).reason == "ns/b is not known here"
    assert not snapshot.access(stranger, "api.example.com").resolvable
    free = Pod(namespace="free", name="b", uid="u2", addresses=("10.244.0.6",), governed=False)
    snapshot = _snapshot(OBOT, pods=(POD, free))
    assert snapshot.decide(free, "evil.org", None, "tcp", 25).reason == "namespace free is not governed"
    assert snapshot.access(free, "evil.org").resolvable
    assert snapshot.static_boxes(free) == ()
    with pytest.raises(ValueError, match="a name or an address"):
        snapshot.decide(POD, None, None, "tcp", 443)
    assert _ask(_snapshot(OBOT, loaded=False), "api.example.com").reason == "nothing was loaded yet"


def test_the_order_of_rules_does_not_depend_on_their_selectors() -> None:
    """A labelled deny before a permit for all pods of the namespace comes first."""
    deny = _deny(web_groups=("b.example.com",), selector=Selector(match_labels={"app": "a"}))
    snapshot = _snapshot(_policy(deny, _permit("*.example.com")))
    assert not _ask(snapshot, "b.example.com").permitted
    assert _ask(snapshot, "c.example.com").permitted


def test_a_static_permit_before_a_named_one_takes_no_name_away() -> None:
    """Both permit the same tuples: the name stays resolvable, the first is named for them."""
    static = Rule(name="static", action="permit", destinations=_cidr("93.0.0.0/8"))
    snapshot = _snapshot(_policy(static, _permit("a.com", destinations=_cidr("93.0.0.0/8"))))
    assert snapshot.access(POD, "a.com").resolvable
    assert _ask(snapshot, "a.com", at=PUBLIC).rule == "static"
