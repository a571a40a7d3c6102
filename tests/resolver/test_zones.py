"""Names with a meaning of their own."""

from __future__ import annotations

import pytest

from resolver.zones import has_cluster_form, is_expansion, is_reverse, is_special, reversed_address


@pytest.mark.parametrize(
    "name",
    ["localhost", "x.localhost", "local", "a.local", "x.onion", "invalid", "x.alt", "resolver.arpa",
     "_dns.resolver.arpa", "use-application-dns.net", "x.use-application-dns.net"],
)  # fmt: skip
def test_special(name):
    """Special-use names and everything under them."""
    assert is_special(name)


@pytest.mark.parametrize("name", ["", "example.com", "notlocal", "my-use-application-dns.net", "arpa", "net"])
def test_not_special(name):
    """Ordinary names, those too that only end alike."""
    assert not is_special(name)


@pytest.mark.parametrize(
    "form",
    ["db.prod.svc", "pod-0.db.prod.svc", "_sql._tcp.db.prod.svc", "10-0-0-1.prod.pod", "10-0-0-1.db.prod.svc",
     "fd00--1.prod.pod", "dns-version"],
)  # fmt: skip
def test_cluster_forms(form):
    """The forms of the Kubernetes DNS specification."""
    assert has_cluster_form(f"{form}.cluster.local", "cluster.local")


@pytest.mark.parametrize(
    "form",
    ["prod.svc", "svc", "www.example.com.prod.svc", "-x.prod.svc", "x_.prod.svc", "a.b.prod.pod",
     "x.prod.pod",
     "999-0-0-1.prod.pod", "_sql._quic.db.prod.svc", "www.example.com", "_a._tcp._b._tcp.db.prod.svc"],
)  # fmt: skip
def test_no_cluster_forms(form):
    """What the search list makes of outside names has no such form, or goes no further."""
    assert not has_cluster_form(f"{form}.cluster.local", "cluster.local")


def test_the_domain_itself_has_no_form():
    """The cluster's domain alone is nothing that a Service has."""
    assert not has_cluster_form("cluster.local", "cluster.local")


def test_reverse_names():
    """Exact form only: 4 octets, 32 nibbles."""
    assert reversed_address("4.3.2.1.in-addr.arpa") == bytes((1, 2, 3, 4))
    assert reversed_address("1." + "0." * 30 + "f.ip6.arpa") == b"\xf0" + bytes(14) + b"\x01"
    for name in ("3.2.1.in-addr.arpa", "0.4.3.2.1.in-addr.arpa", "256.3.2.1.in-addr.arpa",
                 "x.3.2.1.in-addr.arpa",
                 "04.3.2.1.in-addr.arpa", "1.0.ip6.arpa", "10." + "0." * 30 + "f.ip6.arpa",
                 "g." + "0." * 31 + "ip6.arpa"):  # fmt: skip
        assert reversed_address(name) is None, name
        assert is_reverse(name)
    assert not is_reverse("in-addr.arpa.example.com")


def test_expansions():
    """NAME.SUFFIX, on a label border, and not the suffix itself."""
    assert is_expansion("www.example.com.corp.test", ("corp.test",))
    assert not is_expansion("corp.test", ("corp.test",))
    assert not is_expansion("evilcorp.test", ("corp.test",))
    assert not is_expansion("www.example.com", ("",))
