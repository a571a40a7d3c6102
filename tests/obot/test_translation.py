"""One MCPNetworkPolicy, one FirewallPolicy: what other providers of Obot's write, and never more."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from enforcer.obot.domains import MAX_DOMAINS, read_domains
from enforcer.obot.naming import LEFT_OUT, policy_name
from enforcer.obot.translation import Shape, Unreadable, translate, wishes
from policy.manifest import EVERY_NAMESPACE, load_manifests

SHAPE = Shape("obot-mcp", "nameward")
Json = dict[str, Any]


def source(name: str = "policy-a", **spec: Any) -> Json:
    """An MCPNetworkPolicy as Obot's storage gives it."""
    whole = {"mcpServerName": "server-a", "podSelector": {"app": "server-a"}, **spec}
    return {"metadata": {"name": name, "namespace": "default", "uid": "uid-a"}, "spec": whole}


def spec_of(shape: Shape = SHAPE, **spec: Any) -> Json:
    """The FirewallPolicy's spec for these fields."""
    found: Json = translate(source(**spec), shape).body["spec"]
    return found


def domains_of(shape: Shape = SHAPE, **spec: Any) -> list[str] | None:
    """The domains that are permitted; None without a permit."""
    groups = spec_of(shape, **spec).get("webGroups")
    return groups[0]["domains"] if groups else None


def test_domains_are_permitted_on_443_and_the_rest_is_denied() -> None:
    """In this order; domains sorted, wildcards kept."""
    spec = spec_of(egressDomains=["b.example.com", "*.google.com", "a.example.com"])
    assert [rule["name"] for rule in spec["rules"]] == ["allow-approved-egress", "deny-all-external"]
    permit, deny = spec["rules"]
    assert (permit["action"], permit["protocol"], permit["port"]) == ("permit", "tcp", 443)
    assert permit["selector"] == deny["selector"] == {"matchLabels": {"app": "server-a"}}
    assert permit["destinationSmartGroups"] == [{"name": "any-destination"}]
    assert (deny["action"], deny["protocol"], "webGroups" in deny) == ("deny", "any", False)
    assert spec["webGroups"] == [
        {
            "name": "obot-server-a-approved-domains",
            "domains": ["*.google.com", "a.example.com", "b.example.com"],
        }
    ]


def test_it_is_marked_as_other_providers_mark_it() -> None:
    """Name, namespace, labels, the source's uid."""
    metadata = translate(source(egressDomains=["api.example.com"]), SHAPE).body["metadata"]
    assert metadata == {
        "name": "obot-policy-a-fw",
        "namespace": "obot-mcp",
        "labels": {
            "obot.ai/managed-by": "nameward",
            "obot.ai/mcp-network-policy-name": "policy-a",
            "obot.ai/mcp-server-name": "server-a",
        },
        "annotations": {"obot.ai/mcp-network-policy-uid": "uid-a"},
    }


def test_deny_all_is_the_deny_alone() -> None:
    """No permit, no WebGroup."""
    spec = spec_of(denyAllEgress=True)
    assert [rule["action"] for rule in spec["rules"]] == ["deny"]
    assert "webGroups" not in spec


def test_nothing_said_is_every_name_on_443() -> None:
    """What Obot calls "allow all" is no more than that; null is nothing said."""
    assert domains_of() == domains_of(egressDomains=[]) == domains_of(egressDomains=None) == ["*"]


def test_deny_all_wins_over_domains() -> None:
    """Obot's validation refuses the two together; a storage may hold them all the same."""
    wanted = translate(source(denyAllEgress=True, egressDomains=["a.example.com"]), SHAPE)
    assert "webGroups" not in wanted.body["spec"]
    assert "denied too" in wanted.said[0]


def test_domains_are_put_in_order() -> None:
    """Obot stores them as typed."""
    typed = [" api.example.com ", "API.Example.COM", "api.example.com.", "bücher.example", "*.B.example"]
    assert domains_of(egressDomains=typed) == ["*.b.example", "api.example.com", "xn--bcher-kva.example"]


@pytest.mark.parametrize(
    "bad",
    ["https://example.com", "example.com/path", "example.com:443", " ", "169.254.169.254", "1.1", 7, None],
)
def test_a_domain_that_means_nothing_is_left_out_and_said(bad: object) -> None:
    """The others stay; the object and a sentence say what is missing."""
    wanted = translate(source(egressDomains=["a.example.com", bad]), SHAPE)
    assert wanted.body["spec"]["webGroups"][0]["domains"] == ["a.example.com"]
    assert len(wanted.said) == 1
    assert wanted.said[0].startswith("MCPNetworkPolicy policy-a: ")
    assert wanted.body["metadata"]["annotations"][LEFT_OUT]


def test_only_bad_domains_permit_nothing() -> None:
    """An empty list would be every name: this is none."""
    assert domains_of(egressDomains=["1.2.3.4", "https://x.example"]) is None


def test_what_every_server_may_reach_is_added() -> None:
    """But not where everything is denied, and not to what is every name already."""
    shape = SHAPE._replace(always=("packages.example.com",))
    assert domains_of(shape, egressDomains=["a.example.com"]) == ["a.example.com", "packages.example.com"]
    assert domains_of(shape, egressDomains=["1.2.3.4"]) == ["packages.example.com"]
    assert domains_of(shape, denyAllEgress=True) is None
    assert domains_of(shape) == ["*"]


def test_more_domains_than_an_object_holds_are_cut() -> None:
    """Permitting less, and saying so."""
    found = read_domains(f"h{number:05d}.example.com" for number in range(MAX_DOMAINS + 5))
    assert len(found.patterns) == MAX_DOMAINS
    assert found.left_out == (f"5 domains beyond the first {MAX_DOMAINS} are left out",)


def test_what_is_said_is_bounded() -> None:
    """However many domains mean nothing."""
    assert len(read_domains(["1.2.3.4"] * 5000 + [f"x:{n}" for n in range(5000)]).left_out) == 21


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"podSelector": {}}, "every pod of the namespace"),
        ({"podSelector": None}, "podSelector"),
        ({"podSelector": {"app": 7}}, "podSelector"),
        ({"podSelector": {"app": "a b"}}, "podSelector"),
        ({"mcpServerName": ""}, "names no server"),
        ({"mcpServerName": "a\nb"}, "names no server"),
        ({"egressDomains": "api.example.com"}, "no list"),
        ({"denyAllEgress": "true"}, "true or false"),
    ],
)
def test_what_cannot_be_read_is_refused(wrong: Json, said: str) -> None:
    """With a sentence that names the object."""
    with pytest.raises(Unreadable, match=said) as refused:
        translate(source(**wrong), SHAPE)
    assert "policy-a" in str(refused.value)


@pytest.mark.parametrize(
    "broken", [{}, {"metadata": {"name": "A b"}}, {"metadata": {"name": "a"}, "spec": []}]
)
def test_no_object_of_obots_is_refused(broken: Json) -> None:
    """No name, no spec."""
    with pytest.raises(Unreadable):
        translate(broken, SHAPE)


def test_a_source_that_cannot_be_read_keeps_what_stands() -> None:
    """The others are carried over, and its own name is not taken for an orphan."""
    found = wishes([source("bad", podSelector={}), source("good")], SHAPE)
    assert set(found.policies) == {"obot-good-fw"}
    assert found.kept == {"obot-bad-fw"}
    assert len(found.refused) == 1


def test_two_sources_of_one_name_are_one_and_a_sentence() -> None:
    """Nothing that Obot makes; whoever comes first by name counts, whatever the order."""
    both = [source("a.b"), source("a-b", denyAllEgress=True)]
    one, other = wishes(both, SHAPE), wishes(both[::-1], SHAPE)
    assert one == other
    assert len(one.policies) == len(one.refused) == 1


def test_names_are_the_ones_that_other_providers_give() -> None:
    """Short ones readable, long ones cut with eight digits; never longer than a label."""
    assert policy_name("policy-a") == "obot-policy-a-fw"
    assert policy_name("Policy_A..x") == "obot-policy-a-x-fw"
    assert len(policy_name("p" * 55)) == 63
    long = policy_name("policy-" + "a" * 80)
    assert long.startswith("obot-policy-aaaa")
    assert len(long) == 63
    assert long != policy_name("policy-" + "a" * 81)


@given(st.lists(st.text(max_size=40), max_size=6), st.booleans())
def test_whatever_obot_stores_the_result_is_understood(domains: list[str], deny: bool) -> None:
    """By the reader of policies, without an error; and it never holds a name that was not in the list."""
    wanted = translate(source(egressDomains=domains, denyAllEgress=deny), SHAPE)
    found = load_manifests({"bridge.yaml": yaml.safe_dump(wanted.body)}, EVERY_NAMESPACE).findings
    assert [finding for finding in found if finding.severity == "error"] == []
    patterns = [each for group in wanted.body["spec"].get("webGroups", ()) for each in group["domains"]]
    assert len(patterns) <= max(len(domains), 1)
    if domains:
        assert "*" not in patterns or any(each.strip() in {"*", "*."} for each in domains)
