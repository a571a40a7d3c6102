"""A denied packet's reason is the one that helps most, and its class is one of a few."""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.reasons import CLASSES, Tuple, Why, why
from policy.addresses import to_packed
from policy.rules import Destination, Rule
from tests.enforcer.rig import API, OTHER, A, Rig, permit, policy

SOURCE = to_packed(A.addresses[0])
DENY = Rule(name="no-partner", action="deny", destinations=(Destination(kind="cidr", cidr="9.9.9.0/24"),))

DENY_ALL = Rule(name="deny-all-external", action="deny", destinations=(Destination(kind="anywhere"),))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """An enforcer whose pod may reach one name, and never one range."""
    return Rig(tmp_path).settled_with(policy(DENY, permit("api.example.com")))


def _why(
    rig: Rig,
    to: str,
    port: int = 443,
    protocol: str = "tcp",
    *,
    prefix: str = "denied",
    source: bytes = SOURCE,
) -> Why:
    account = rig.ledger.accounts.get(source)
    found = why(
        prefix, Tuple(source, to_packed(to), protocol, port), rig.authority.snapshot, account, rig.clock()
    )
    assert found.reason_class in CLASSES
    return found


def test_an_address_that_no_lookup_gave(rig: Rig) -> None:
    """Hard-coded, or resolved elsewhere."""
    assert _why(rig, "8.8.8.8").reason == "never resolved by this pod (hard-coded address?)"


def test_a_port_that_is_not_permitted_names_those_that_are(rig: Rig) -> None:
    """With the name that the address stands for."""
    rig.ask("api.example.com", API)
    assert _why(rig, API, 80) == Why(
        "port-not-permitted",
        "port 80 not permitted for api.example.com, only 443",
        "api.example.com",
        "mcp/p",
        "allow",
    )
    assert "udp port 443" in _why(rig, API, 443, "udp").reason


def test_an_expired_grant_says_since_when(rig: Rig) -> None:
    """While its live twin exists, and after it was collected."""
    rig.ask("api.example.com", API)
    rig.clock.at += 161
    assert _why(rig, API).reason == "grant of api.example.com expired 41 s ago"
    rig.collection.begin()
    rig.run_threads()
    rig.clock.at += 1
    assert rig.ledger.count == 0
    assert _why(rig, API) == Why(
        "grant-expired", "grant of api.example.com expired 42 s ago", "api.example.com", "mcp/p", "allow"
    )


def test_a_revoked_grant_says_so(rig: Rig) -> None:
    """Until something better is known."""
    rig.ask("api.example.com", API)
    rig.apply(policy(permit("else.example.net")))
    rig.clock.at += 3
    assert _why(rig, API).reason == "grant of api.example.com revoked 3 s ago"


def test_a_deny_rule_is_named(rig: Rig) -> None:
    """The rule that a person would have to change."""
    found = _why(rig, "9.9.9.9")
    assert (found.reason_class, found.policy, found.rule) == ("deny-rule", "mcp/p", "no-partner")


def test_the_stated_default_is_no_deny_rule(rig: Rig) -> None:
    """Obot's trailing deny of everything says what holds anyway; the useful reason is another."""
    rig.apply(policy(permit("api.example.com"), DENY_ALL))
    found = _why(rig, OTHER)
    assert found.reason == "never resolved by this pod (hard-coded address?)"
    assert (found.reason_class, found.policy, found.rule) == ("never-resolved", "mcp/p", DENY_ALL.name)


@pytest.mark.parametrize(("to", "said"), [("169.254.169.254", "metadata"), ("10.1.2.3", "private-use")])
def test_a_guarded_address_is_named_by_its_class(rig: Rig, to: str, said: str) -> None:
    """Special-purpose ranges are opened by no name."""
    found = _why(rig, to, 80)
    assert found.reason_class == "address-class"
    assert said in found.reason


@pytest.mark.parametrize(
    ("prefix", "port", "source", "wanted"),
    [
        ("forged", 443, SOURCE, "forged-source"),
        ("unknown", 443, b"\x01\x02\x03\x04", "unknown-pod"),
        ("denied", 443, b"\x01\x02\x03\x04", "unknown-pod"),
        ("port", 853, SOURCE, "dns-elsewhere"),
        ("fence", 443, SOURCE, "resolver-fenced"),
        ("guard", 443, SOURCE, "unmarked"),
    ],
)
def test_the_chain_that_denied_it_says_enough(
    rig: Rig, prefix: str, port: int, source: bytes, wanted: str
) -> None:
    """Some chains have one reason only."""
    assert _why(rig, OTHER, port, prefix=prefix, source=source).reason_class == wanted


def test_before_anything_is_loaded_every_source_is_unknown() -> None:
    """There is no snapshot to ask."""
    assert (
        why("denied", Tuple(SOURCE, to_packed(API), "tcp", 443), None, None, 0.0).reason_class
        == "unknown-pod"
    )
