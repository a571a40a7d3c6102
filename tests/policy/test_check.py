"""Lints: each says what it says exactly where it is true."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.addresses import to_packed
from policy.check import check
from policy.check_coverage import pattern_covers, rule_covers
from policy.manifest import EVERY_NAMESPACE, Loaded, load_manifests
from policy.patterns import parse_pattern
from policy.pods import Pod
from policy.rules import Destination, Policy, PortRange, Rule, Selector
from policy.snapshot import compile_snapshot
from policy.world import World

HEAD = """apiVersion: networking.aviatrix.com/v1alpha1
kind: FirewallPolicy
metadata: {name: %s, namespace: shop}
spec:
  smartGroups:
  - {name: all, selectors: [{cidr: 0.0.0.0/0}]}
  - {name: data, selectors: [{cidr: 10.1.0.0/16}]}
  - {name: part, selectors: [{cidr: 10.1.2.0/24}]}
  - {name: metadata, selectors: [{cidr: 169.254.169.254/32}]}
  - {name: mixed, selectors: [{cidr: 8.0.0.0/6}]}
  webGroups:
  - {name: api, domains: [api.example.com]}
  - {name: wide, domains: ["*.example.com"]}
  - {name: every, domains: ["*"]}
  - {name: suffix, domains: ["*.co.uk"]}
  rules:
"""
PERMIT = (
    "{name: %s, action: permit, protocol: tcp, port: 443, "
    "destinationSmartGroups: [{name: all}], webGroups: [{name: %s}]}"
)


def lints(*policies: list[str]) -> list[tuple[str, str]]:
    """(pointer, message) of each lint of policies given as rules in flow style."""
    texts = [HEAD % f"p{n}" + "".join(f"  - {rule}\n" for rule in rules) for n, rules in enumerate(policies)]
    loaded = load_manifests({"a": "---\n".join(texts)}, EVERY_NAMESPACE)
    found = check(loaded)
    assert all(finding.severity == "warning" and finding.fix for finding in found)
    return [(finding.pointer, finding.message) for finding in found]


@pytest.mark.parametrize(
    ("rule", "pointer", "fragment"),
    [
        (PERMIT % ("r", "every"), "/webGroups", "matches every name"),
        (PERMIT % ("r", "suffix"), "/webGroups", "public suffix"),
        ((PERMIT % ("r", "api")).replace("port: 443, ", ""), "", "tcp/80 and tcp/443 only"),
        ((PERMIT % ("r", "api")).replace("tcp, port: 443", "udp"), "", "for udp it opens nothing"),
        ((PERMIT % ("r", "api")).replace("443", "53"), "/port", "never granted"),
        ((PERMIT % ("r", "api")).replace("443", "853"), "/port", "never granted"),
        ((PERMIT % ("r", "api"))[:-1] + ", watch: true}", "/watch", "opens nothing"),
        (
            "{name: r, action: deny, destinationSmartGroups: [{name: all}], watch: true}",
            "/watch",
            "is not a permit",
        ),
        (
            "{name: r, action: permit, destinationSmartGroups: [{name: data}], port: 1}",
            "/destinationSmartGroups",
            "not names",
        ),
        (
            "{name: r, action: permit, destinationSmartGroups: [{name: all}], port: 1}",
            "/destinationSmartGroups",
            "every",
        ),
    ],
)
def test_one_rule_that_is_perhaps_not_meant(rule: str, pointer: str, fragment: str) -> None:
    """Each lint of a single rule points at it and says why."""
    found = [lint for lint in lints([rule]) if fragment in lint[1]]
    assert [where for where, _ in found] == [f"/spec/rules/0{pointer}"]


def test_what_is_plainly_meant_has_no_lint() -> None:
    """Names on a port, and the default stated after them."""
    assert not lints(
        [PERMIT % ("r", "api"), "{name: d, action: deny, destinationSmartGroups: [{name: all}]}"]
    )


@pytest.mark.parametrize(
    ("group", "fragment"), [("metadata", "metadata service"), ("mixed", "special-purpose")]
)
def test_static_permits_of_guarded_addresses(group: str, fragment: str) -> None:
    """The metadata service, and CIDRs of which a part stays closed."""
    rule = (
        f"{{name: r, action: permit, destinationSmartGroups: [{{name: {group}}}], protocol: tcp, port: 80}}"
    )
    assert any(fragment in message for _, message in lints([rule]))


@pytest.mark.parametrize(
    ("first", "second", "shadowed"),
    [
        (PERMIT % ("a", "wide"), PERMIT % ("b", "api"), True),
        (PERMIT % ("a", "api"), PERMIT % ("b", "wide"), False),
        (PERMIT % ("a", "every"), PERMIT % ("b", "wide"), True),
        (PERMIT % ("a", "wide"), (PERMIT % ("b", "api")).replace("443", "8443"), False),
        ("{name: a, action: deny, destinationSmartGroups: [{name: all}]}", PERMIT % ("b", "api"), True),
        (
            "{name: a, action: deny, destinationSmartGroups: [{name: all}], protocol: udp}",
            PERMIT % ("b", "api"),
            False,
        ),
        (
            "{name: a, action: deny, destinationSmartGroups: [{name: data}]}",
            "{name: b, action: deny, destinationSmartGroups: [{name: part}], port: 22}",
            True,
        ),
        (
            "{name: a, action: deny, destinationSmartGroups: [{name: part}]}",
            "{name: b, action: deny, destinationSmartGroups: [{name: data}], port: 22}",
            False,
        ),
        ((PERMIT % ("a", "wide"))[:-1] + ", watch: true}", PERMIT % ("b", "api"), False),
        (
            (PERMIT % ("a", "wide"))[:-1] + ", selector: {matchLabels: {app: a}}}",
            PERMIT % ("b", "api"),
            False,
        ),
        (
            (PERMIT % ("a", "wide"))[:-1] + ", selector: {matchLabels: {app: a}}}",
            (PERMIT % ("b", "api"))[:-1] + ", selector: {matchLabels: {app: a, tier: b}}}",
            True,
        ),
    ],
)
def test_a_rule_that_never_decides(first: str, second: str, shadowed: bool) -> None:
    """A rule is reported if one before it matches whatever it matches."""
    found = [where for where, message in lints([first, second]) if "never decides" in message]
    assert found == (["/spec/rules/1"] if shadowed else [])


def test_a_permit_that_an_explicit_deny_elsewhere_takes_back() -> None:
    """Explicit denies of other policies are looked at; a stated default takes nothing."""
    explicit = "{name: d, action: deny, destinationSmartGroups: [{name: all}], protocol: tcp, port: 443}"
    default = "{name: d, action: deny, destinationSmartGroups: [{name: all}]}"
    assert lints([PERMIT % ("r", "api")], [explicit]) == [
        ("/spec/rules/0", "the permit opens nothing: shop/p1/d denies all of it")
    ]
    assert not lints([PERMIT % ("r", "api")], [default])


def test_permits_that_a_rule_before_them_stops() -> None:
    """The first permit after a rule that is not understood is named."""
    found = lints([PERMIT % ("r", "none"), PERMIT % ("s", "api"), PERMIT % ("t", "wide")])
    assert [where for where, message in found if "do not count" in message] == ["/spec/rules/1"]


def test_lints_of_a_webgroup_policy_point_at_its_domains() -> None:
    """There is no rule to point at."""
    text = (HEAD % "p").split("spec:")[0].replace(
        "Firewall", "Webgroup"
    ) + "spec: {allowedDomains: ['*.com']}\n"
    (finding,) = check(load_manifests({"a": f"---\n{text}"}, EVERY_NAMESPACE))
    assert finding.pointer == "/spec/allowedDomains"


PATTERNS = st.sampled_from(
    [
        "*",
        "*.example.com",
        "*.a.example.com",
        "a.example.com",
        "b.a.example.com",
        "a.*.example.com",
        "x*.a.example.com",
    ]
)
NAMES = [
    "a.example.com",
    "b.a.example.com",
    "xy.a.example.com",
    "a.b.example.com",
    "example.com",
    "x.a.b.example.com",
]


@given(PATTERNS, PATTERNS)
def test_a_pattern_that_covers_another_matches_what_it_matches(wide: str, narrow: str) -> None:
    """Coverage of patterns is sound."""
    if pattern_covers(parse_pattern(wide), narrow):
        assert all(parse_pattern(wide).matches(name) for name in NAMES if parse_pattern(narrow).matches(name))


DESTINATIONS = st.sampled_from(
    [
        Destination("anywhere"),
        Destination("public"),
        Destination("cidr", cidr="198.51.96.0/20"),
        Destination("cidr", cidr="198.51.99.0/24"),
        Destination("cidr", cidr="10.0.0.0/8"),
        Destination("pods", namespace="shop", labels={"app": "a"}),
    ]
)
RULES = st.builds(
    Rule,
    name=st.just("r"),
    action=st.sampled_from(["permit", "deny"]),
    destinations=st.lists(DESTINATIONS, min_size=1, max_size=2).map(tuple),
    selector=st.sampled_from(
        [Selector(), Selector(match_labels={"app": "a"}), Selector(match_labels={"app": "b"})]
    ),
    web_groups=st.one_of(st.none(), st.lists(PATTERNS, max_size=2).map(tuple)),
    protocol=st.sampled_from(["any", "tcp", "udp"]),
    ports=st.sampled_from([None, PortRange(443, 443), PortRange(80, 8443)]),
    watch=st.booleans(),
)
POD = Pod(namespace="shop", name="a", uid="a", addresses=("10.3.0.1",), labels={"app": "a"})
ADDRESSES = [
    to_packed(text) for text in ("198.51.99.7", "198.51.98.7", "10.1.2.3", "2a00:1450::1", "10.3.0.1")
]


def decisions(rules: tuple[Rule, ...]) -> list[str]:
    """Verdicts of one policy over a grid of names, addresses, protocols and ports."""
    policy = Policy(namespace="shop", name="p", kind="FirewallPolicy", rules=rules)
    snapshot = compile_snapshot(World(generation=1, pods=(POD,), policies=(policy,)))
    return [
        snapshot.decide(POD, name, address, protocol, port).verdict
        for name in (None, *NAMES[:4])
        for address in ADDRESSES
        for protocol, port in (("tcp", 443), ("tcp", 8080), ("udp", 443), ("icmp", None))
    ]


@given(st.lists(RULES, min_size=2, max_size=4))
@settings(max_examples=150, deadline=None)
def test_a_rule_that_is_said_never_to_decide_can_be_removed(rules: list[Rule]) -> None:
    """Taking such a rule out changes no decision."""
    named = tuple(msgspec.structs.replace(rule, name=f"r{n}") for n, rule in enumerate(rules))
    policy = Policy(namespace="shop", name="p", kind="FirewallPolicy", rules=named, source="a#1")
    found = check(Loaded((policy,), (POD,), (), {}, ()))
    idle = {int(finding.pointer.split("/")[3]) for finding in found if "never decides" in finding.message}
    kept = tuple(rule for n, rule in enumerate(named) if n not in idle)
    assert decisions(named) == decisions(kept)


def test_a_permit_of_everything_does_not_cover_one_of_a_private_range() -> None:
    """0.0.0.0/0 opens no private address, so the rule that names the range still decides."""
    everything = "{name: a, action: permit, destinationSmartGroups: [{name: all}]}"
    private = "{name: b, action: permit, destinationSmartGroups: [{name: data}]}"
    assert not [where for where, message in lints([everything, private]) if "never decides" in message]


@given(RULES, RULES, RULES)
@settings(max_examples=200, deadline=None)
def test_coverage_is_reflexive_and_transitive(one: Rule, two: Rule, three: Rule) -> None:
    """What covers what covers a rule covers it."""
    assert rule_covers(one, one)
    if rule_covers(one, two) and rule_covers(two, three):
        assert rule_covers(one, three)


def test_what_compares_thousands_of_ranges_in_pairs_has_an_end() -> None:
    """A few rules have their lints as ever; of 200 rules of 80 ranges each not every pair is compared."""
    rules = tuple(
        Rule(
            name=f"r{number}",
            action="permit",
            destinations=tuple(Destination("cidr", cidr=f"{11 + number}.{at}.0.0/25") for at in range(80)),
            protocol="tcp",
            ports=PortRange(443, 443),
        )
        for number in range(200)
    )

    def shadowed(*listed: Rule) -> int:
        policy = Policy(namespace="a", name="p", kind="FirewallPolicy", rules=listed, source="x#1")
        found = check(Loaded((policy,), (), (), {}, ()))
        return sum("never decides" in each.message for each in found)

    again = msgspec.structs.replace(rules[0], name="again")
    assert shadowed(rules[0], again) == 1
    assert shadowed(*rules, again) == 0
