"""Objects of several files together: duplicates, Services, governed namespaces, and what then decides."""

from __future__ import annotations

import pytest

from policy.addresses import to_packed
from policy.manifest import (
    EVERY_NAMESPACE,
    Finding,
    GovernedNamespaces,
    Loaded,
    assemble,
    load_manifests,
    read_file,
)
from policy.manifest_findings import MAX_MEANT, Place, Report, shown
from policy.pods import Pod
from policy.selection import Roster
from policy.snapshot import compile_snapshot
from policy.world import World

HEAD = """apiVersion: networking.aviatrix.com/v1alpha1
kind: {kind}
metadata: {{name: {name}, namespace: shop}}
"""
GROUPS = """
  smartGroups: [{name: all, selectors: [{cidr: 0.0.0.0/0}]}]
  webGroups: [{name: api, domains: [api.example.com]}, {name: bad, domains: [a.example.com, "https://x"]}]
"""
WEB = HEAD.format(kind="WebgroupPolicy", name="web") + "spec: {allowedDomains: [api.example.com]}\n"
POD = """
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop, uid: u-a, labels: {app: a}}
spec: {nodeName: node-a}
status: {phase: Running, podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}, {ip: "FD00:0:0::1"}]}
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: front, namespace: shop}
spec: {clusterIP: 10.96.0.9, selector: {app: a}}
"""
ALL = "destinationSmartGroups: [{name: all}]"
API = f"{ALL}, webGroups: [{{name: api}}]"
PUBLIC = to_packed("198.51.99.7")


def firewall(rules: str, name: str = "fw") -> str:
    """A FirewallPolicy with these rules in flow style, one a line."""
    lines = "".join(f"\n  - {line.strip()}" for line in rules.strip().splitlines())
    return HEAD.format(kind="FirewallPolicy", name=name) + f"spec:{GROUPS}  rules:{lines}\n"


def load(*texts: str, governed: GovernedNamespaces = EVERY_NAMESPACE) -> Loaded:
    """Load texts as files a, b, c, …"""
    return load_manifests({chr(97 + n): text for n, text in enumerate(texts)}, governed)


def errors(loaded: Loaded) -> list[Finding]:
    """Findings that make `check` fail."""
    return [finding for finding in loaded.findings if finding.severity == "error"]


def verdict(
    loaded: Loaded, name: str | None = "api.example.com", protocol: str = "tcp", port: int = 443
) -> str:
    """What is decided for the first pod, at a public address."""
    world = World(
        generation=1, pods=loaded.pods, policies=loaded.policies, services=loaded.services, node_addresses=()
    )
    decision = compile_snapshot(world).decide(loaded.pods[0], name, PUBLIC, protocol, port)
    return decision.verdict


def test_a_pod_as_kubectl_prints_it() -> None:
    """Identity, labels, node and canonical addresses, each once."""
    assert load(POD).pods == (
        Pod(
            namespace="shop",
            name="a",
            uid="u-a",
            addresses=("10.1.0.1", "fd00::1"),
            labels={"app": "a"},
            node="node-a",
        ),
    )


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("uid: u-1, generation: 7", ("u-1", 7)),
        ("uid: u-1", ("u-1", 0)),
        ("resourceVersion: '5'", ("", 0)),
        ('uid: 5, generation: "7"', ("", 0)),
        ('uid: "\\u202e", generation: true', ("", 0)),
        (f"uid: {'u' * 200}, generation: {1 << 63}", ("", 0)),
        ("uid: u-1, generation: -3", ("u-1", 0)),
    ],
)
def test_a_policy_as_an_api_server_stored_it(metadata: str, expected: tuple[str, int]) -> None:
    """Its uid and generation are kept; what is no such thing is none, and no mistake of the author's."""
    loaded = load(POD, WEB.replace("{name: web", f"{{name: web, {metadata}", 1))
    [policy] = loaded.policies
    assert (policy.uid, policy.generation) == expected
    assert policy.accepted
    assert verdict(loaded) == "permit"


def test_a_permit_that_is_understood_permits() -> None:
    """The control of the tests below."""
    assert verdict(load(POD, WEB)) == "permit"


@pytest.mark.parametrize(
    ("rule", "closed", "open_elsewhere"),
    [
        (f"{{name: r, action: deny, {ALL}, x: y}}", True, False),
        (f"{{name: r, {ALL}}}", True, False),
        (
            "{name: r, action: deny, destinationSmartGroups: [{name: none}], protocol: tcp, port: 443}",
            True,
            True,
        ),
        (
            "{name: r, action: deny, destinationSmartGroups: [{name: none}], protocol: tcp, port: 80}",
            False,
            False,
        ),
        (f"{{name: r, action: deny, {ALL}, webGroups: [{{name: bad}}]}}", True, False),
        (f"{{name: r, action: deny, {ALL}, protocol: TCP, port: 80}}", True, False),
        (f"{{name: r, action: deny, {ALL}, port: '80'}}", True, False),
        (f"{{name: r, action: deny, {ALL}, x: 1, selector: {{matchLabels: {{app: b}}}}}}", False, False),
        (f"{{name: r, action: deny, {ALL}, selector: {{matchLabels: {{app: 7}}}}}}", True, False),
        (f"{{name: r, action: deny, {ALL}, selector: {{service: gone}}}}", True, False),
        ("deny everything", True, False),
        ("{name: r, action: permit, destinationSmartGroups: [{name: none}]}", False, False),
    ],
)
def test_a_deny_that_is_not_understood_is_never_smaller(
    rule: str, closed: bool, open_elsewhere: bool
) -> None:
    """It denies in all policies what its understood parts could match, and no more."""
    loaded = load(POD, WEB, firewall(rule))
    assert errors(loaded)
    assert verdict(loaded) == ("deny" if closed else "permit")
    if open_elsewhere:
        other = (
            WEB.replace("WebgroupPolicy", "FirewallPolicy")
            .split("spec:")[0]
            .replace("name: web", "name: p80")
        )
        other += (
            f"spec:{GROUPS}  rules:\n  - {{name: p, action: permit, destinationSmartGroups: [{{name: all}}], "
        )
        other += "webGroups: [{name: api}], port: 80, protocol: tcp}\n"
        assert verdict(load(POD, WEB, firewall(rule), other), port=80) == "permit"


@pytest.mark.parametrize(
    "spec",
    [
        "spec: deny all",
        "spec: {rules: {name: r, action: deny}}",
        "spec: {rule: [{name: r, action: deny}]}",
        "rules: [{name: r, action: deny}]",
        "spec: {rules: null}",
        "spec: {rules: [], rules: []}",
    ],
)
def test_rules_that_may_be_lost_deny_their_namespace_and_no_other(spec: str) -> None:
    """A policy whose rules cannot be read denies everything to all pods of its namespace only."""
    lost = HEAD.format(kind="FirewallPolicy", name="lost") + spec + "\n"
    assert verdict(load(POD, WEB, lost)) == "deny"
    assert verdict(load(POD, WEB, lost.replace("namespace: shop", "namespace: other"))) == "permit"


def test_a_policy_not_understood_as_a_whole_denies_only_the_pods_its_rules_select() -> None:
    """The rules' selectors bound what is closed for want of understanding."""
    rule = f"{{name: r, action: permit, {API}, selector: %s}}"
    of_others = firewall(rule % "{matchLabels: {app: b}}").replace("spec:", "extra: 1\nspec:")
    assert verdict(load(POD, WEB, of_others)) == "permit"
    assert verdict(load(POD, WEB, of_others.replace("app: b", "app: a"))) == "deny"


@pytest.mark.parametrize("kind", ["domains", "selectors"])
def test_a_small_policy_cannot_become_gigabytes(kind: str) -> None:
    """Every rule refers to every group: not read, and its pods are denied, those of other labels are not."""
    domains = ", ".join(f"a{number}.example.com" for number in range(500 if kind == "domains" else 1))
    cidrs = ", ".join(
        f"{{cidr: 10.0.{number % 256}.0/24}}" for number in range(500 if kind != "domains" else 1)
    )
    rule = (
        "{name: r%d, action: permit, selector: {matchLabels: {app: web}}, protocol: tcp, port: 443,"
        " destinationSmartGroups: [{name: s}], webGroups: [{name: w}]}"
    )
    rules = ", ".join(rule % number for number in range(100))
    loaded = load(
        "apiVersion: networking.aviatrix.com/v1alpha1\nkind: FirewallPolicy\n"
        "metadata: {namespace: shop, name: fw}\nspec:\n"
        f"  webGroups: [{{name: w, domains: [{domains}]}}]\n"
        f"  smartGroups: [{{name: s, selectors: [{cidrs}]}}]\n"
        f"  rules: [{rules}]\n"
    )
    said = " ".join(each.message for each in errors(loaded))
    assert "the rules refer to 50100 domains and selectors together, of at most 16384" in said
    [policy] = loaded.policies
    assert not policy.accepted
    assert not any(each.understood for each in policy.rules)
    assert {each.action for each in policy.rules} == {"deny"}
    assert {tuple((each.selector.match_labels or {}).items()) for each in policy.rules} == {(("app", "web"),)}
    assert sum(len(each.web_groups or ()) + len(each.destinations) for each in policy.rules) == 101


def test_what_was_meant_is_looked_for_a_few_times_only() -> None:
    """Comparing texts is slow, and their author chooses them: a small policy would cost nodes minutes."""
    place = Place(Report("x", 1))
    known = [f"a-group-of-some-length-{number:03}" for number in range(300)]
    assert place.nearest("a-group-of-some-lenght-007", known) is not None
    for number in range(MAX_MEANT):
        assert place.nearest(known[0].upper(), known) == known[0]
        place.error(f"{number}", "nothing")
    assert place.nearest(known[0].upper(), known) is None


def test_a_number_of_any_length_is_shown() -> None:
    """Python writes no number of more than 4,300 digits."""
    assert shown(10**5000) == shown(-(10**5000)) == "a huge number"


def test_permits_before_a_rule_that_is_not_understood_count_and_those_after_it_do_not() -> None:
    """Order within a policy, with a hole in it."""
    permit = f"{{name: p%d, action: permit, {API}, port: %d}}"
    broken = "{name: b, action: permit, destinationSmartGroups: [{name: none}], port: 1}"
    loaded = load(POD, firewall("\n".join([permit % (1, 443), broken, permit % (2, 8443)])))
    assert verdict(loaded) == "permit"
    assert verdict(loaded, port=8443) == "deny"


def test_a_permit_whose_domains_are_all_bad_permits_no_name_and_no_address() -> None:
    """Skipping every domain does not turn a permit of names into a permit of addresses."""
    bad = HEAD.format(kind="WebgroupPolicy", name="w") + "spec: {allowedDomains: ['https://x', '**']}\n"
    loaded = load(POD, bad)
    assert verdict(loaded) == "deny"
    assert verdict(loaded, name=None) == "deny"


def test_all_addresses_mean_both_families_except_in_a_static_permit() -> None:
    """0.0.0.0/0 in a deny or beside webGroups is everything; in a static permit it is IPv4."""
    rules = """
        {name: d, action: deny, destinationSmartGroups: [{name: all}], port: 25}
        {name: n, action: permit, destinationSmartGroups: [{name: all}], webGroups: [{name: api}], port: 443}
        {name: s, action: permit, destinationSmartGroups: [{name: all}], port: 8443}
    """
    (policy,) = load(firewall(rules)).policies
    assert [rule.destinations[0].kind for rule in policy.rules] == ["anywhere", "anywhere", "cidr"]


def test_an_ipv4_mapped_range_is_the_ipv4_range() -> None:
    """::ffff:a.b.c.d/n denies and permits what the kernel sees: IPv4."""
    text = firewall("{name: d, action: deny, destinationSmartGroups: [{name: all}]}")
    (policy,) = load(text.replace("0.0.0.0/0", '"::ffff:203.0.113.0/120"')).policies
    assert policy.rules[0].destinations[0].cidr == "203.0.113.0/24"


def test_equal_copies_are_one_object() -> None:
    """The same policy in two files is a warning, and counts once."""
    loaded = load(WEB, WEB)
    assert len(loaded.policies) == 1
    (finding,) = loaded.findings
    assert (finding.file, finding.severity, finding.pointer) == ("b", "warning", "/metadata/name")


def test_different_policies_of_one_name_permit_nothing_and_keep_their_denies() -> None:
    """Whichever file comes first: the denies of both count, the permits of neither."""
    permit = f"{{name: p, action: permit, {API}, port: 443}}"
    deny = f"{{name: d, action: deny, {ALL}, port: 25, protocol: tcp}}"
    for texts in ((firewall(permit), firewall(deny)), (firewall(deny), firewall(permit))):
        loaded = load(POD, *texts)
        assert [(finding.file, finding.pointer) for finding in errors(loaded)] == [
            ("b", "/metadata/name"),
            ("c", "/metadata/name"),
        ]
        (policy,) = loaded.policies
        assert [(rule.name, rule.understood) for rule in policy.rules] == [("d", False)]
        assert not policy.accepted
        assert verdict(loaded) == "deny"
        assert verdict(load(POD, WEB, *texts)) == "permit"
        assert verdict(load(POD, WEB.replace("web,", "web2,"), *texts), port=25) == "deny"


def test_names_of_files_are_safe_in_messages() -> None:
    """A file's name is the user's text too."""
    loaded = load_manifests({"\x1b[2J\udc80": WEB, "b": WEB}, EVERY_NAMESPACE)
    assert all(finding.message.isprintable() and finding.message.isascii() for finding in loaded.findings)
    assert loaded.findings[0].message.startswith("the WebgroupPolicy shop/web is also in")


def test_policies_of_different_kinds_may_share_a_name() -> None:
    """A FirewallPolicy and a WebgroupPolicy of one name are two objects."""
    deny = "{name: d, action: deny, destinationSmartGroups: [{name: all}]}"
    loaded = load(WEB, firewall(deny, name="web"))
    assert len(loaded.policies) == 2
    assert not errors(loaded)


def test_two_pods_of_one_name_are_none() -> None:
    """Pods that differ under one name are not loaded; their addresses are unknown, so denied."""
    loaded = load(POD, POD.replace("10.1.0.1", "10.1.0.2"))
    assert not loaded.pods
    assert len(errors(loaded)) == 2


def test_two_pods_of_one_uid_or_address_are_reported() -> None:
    """Each claim that is made twice is an error at the second pod."""
    loaded = load(POD, POD.replace("name: a,", "name: b,"))
    assert [finding.pointer for finding in errors(loaded)] == ["/metadata/uid", "/status", "/status"]


def test_a_service_selects_its_pods() -> None:
    """selector.service is resolved, and a rule for it decides."""
    rule = f"{{name: p, action: permit, selector: {{service: front}}, {ALL}, port: 443}}"
    loaded = load(POD, SERVICE, firewall(rule))
    assert not errors(loaded)
    assert verdict(loaded, name=None) == "permit"
    assert verdict(load(POD, firewall(rule)), name=None) == "deny"


def test_slices_give_addresses_to_services() -> None:
    """All slices of a Service add up; which pods are behind it a selector says, where there is one."""
    slices = "".join(
        f"""
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: front-{n}, namespace: shop, labels: {{kubernetes.io/service-name: front}}}}
endpoints: [{{addresses: [10.1.0.{n}]}}]
"""
        for n in (1, 2)
    )
    (service,) = load(SERVICE.replace(", selector: {app: a}", ""), slices).services
    assert (service.selector, service.addresses) == (None, ("10.1.0.1", "10.1.0.2"))
    loaded = load(SERVICE, slices)
    (service,) = loaded.services
    assert (service.selector, service.cluster_ips) == ({"app": "a"}, ("10.96.0.9",))
    assert service.addresses == ("10.1.0.1", "10.1.0.2")
    other = Pod(namespace="shop", name="z", uid="z", addresses=("10.1.0.1",))
    assert Roster((other,), loaded.services).pods_behind("shop", "front") == []


NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {tier: agents}}\n"


@pytest.mark.parametrize(
    ("governed", "texts", "expected"),
    [
        (GovernedNamespaces(names=("shop",)), (), True),
        (GovernedNamespaces(names=("other",)), (), False),
        (GovernedNamespaces(), (), False),
        (GovernedNamespaces(match_labels={}), (), True),
        (GovernedNamespaces(match_labels={"tier": "agents"}), (NAMESPACE,), True),
        (GovernedNamespaces(match_labels={"tier": "web"}), (NAMESPACE,), False),
        (GovernedNamespaces(match_labels={"tier": "web"}), (), True),
        (GovernedNamespaces(match_labels={"kubernetes.io/metadata.name": "shop"}), (NAMESPACE,), True),
        (GovernedNamespaces(match_labels={"kubernetes.io/metadata.name": "other"}), (), False),
    ],
)
def test_which_pods_are_governed(
    governed: GovernedNamespaces, texts: tuple[str, ...], expected: bool
) -> None:
    """By name or by labels; a namespace whose labels nobody declared is governed."""
    loaded = load(POD, WEB, *texts, governed=governed)
    assert loaded.pods[0].governed is expected
    without_effect = any("is not governed" in finding.message for finding in loaded.findings)
    assert without_effect is not expected


def test_files_can_be_read_one_by_one() -> None:
    """read_file and assemble give what load_manifests gives, so unchanged files need no reading."""
    files = {"a": POD, "b": WEB, "c": "a: [", "d": SERVICE}
    read = {name: read_file(name, text) for name, text in files.items()}
    assert [name for name, file in read.items() if not file.readable] == ["c"]
    assert assemble(read.values(), EVERY_NAMESPACE) == load_manifests(files, EVERY_NAMESPACE)


def test_sources_lead_back_to_the_file() -> None:
    """A policy in a List knows file, document and pointer."""
    listed = "kind: List\napiVersion: v1\nitems:\n- " + WEB.replace("\n", "\n  ")
    assert load("---\n---\n" + listed).policies[0].source == "a#2/items/0"


def test_a_thousand_policies_in_one_file_are_a_thousand_policies() -> None:
    """Nothing is lost to a bound that honest folders reach."""
    text = "---\n".join(WEB.replace("name: web", f"name: web-{n}") for n in range(1000))
    loaded = load(text)
    assert len(loaded.policies) == 1000
    assert not loaded.findings


def test_a_part_of_a_name_may_be_long() -> None:
    """Names have at most 253 characters, their parts any length: a static pod's name ends in its node's."""
    name = "kube-proxy-" + "a-node-with-a-long-name-" * 6 + "1"
    loaded = load_manifests({"pod.yaml": POD.replace("name: a,", f"name: {name},")}, EVERY_NAMESPACE)
    assert [pod.name for pod in loaded.pods] == [name]
    assert loaded.findings == ()
