"""A host that refuses the routing rule: lookups are translated, and status says so."""

from __future__ import annotations

import errno

import pytest

from enforcer.way import Way, rewrite_to, way_of_dns
from policy.addresses import to_packed


class _Routes:
    def __init__(self, refuses: int = 0) -> None:
        self._refuses = refuses
        self.calls: list[str] = []

    def install_dns_rule(self) -> None:
        self.calls.append("install")
        if self._refuses:
            raise OSError(self._refuses, "Operation not supported")

    def remove_dns_rule(self) -> None:
        self.calls.append("remove")

    def addresses(self) -> frozenset[bytes]:
        return frozenset()


def test_the_rule_is_used_where_the_host_takes_it() -> None:
    """And nothing is asked of a host whose lookups are not captured."""
    routes = _Routes()
    assert way_of_dns(routes, capture=True) == Way("rule", ())
    assert routes.calls == ["install"]
    assert way_of_dns(_Routes(errno.EPERM), capture=False) == Way()


def test_a_refused_rule_leaves_nothing_and_is_told() -> None:
    """What was made of it before the refusal is taken away again."""
    routes = _Routes(errno.EOPNOTSUPP)
    way = way_of_dns(routes, capture=True)
    assert way.capture_by == "rewrite"
    assert "refuses the DNS routing rule (Operation not supported)" in way.problems[0]
    assert routes.calls == ["install", "remove"]


@pytest.mark.parametrize(
    ("addresses", "chosen"),
    [
        (("127.0.0.1", "::1", "fe80::1", "169.254.1.1"), ()),
        (("127.0.0.1", "10.0.0.5", "192.168.0.1", "fe80::1"), ("10.0.0.5",)),
        (("2600:1::1", "45.1.0.1", "::1"), ("45.1.0.1", "2600:1::1")),
    ],
)
def test_lookups_are_translated_to_an_address_that_pods_can_be_answered_from(
    addresses: tuple[str, ...], chosen: tuple[str, ...]
) -> None:
    """One per family; loopback and link-local addresses are none."""
    assert rewrite_to(map(to_packed, addresses)) == chosen
