"""What others' rulesets do to pods' packets, as the kernel lists it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from enforcer.foreign import Foreign
from enforcer.kernel import Kernel

pytestmark = pytest.mark.kernel


@pytest.fixture
def kernel(lab) -> Iterator[Kernel]:
    """The node's kernel, watched."""
    with lab.inside("node"):
        made = Kernel()
        made.monitor_fd()
    try:
        yield made
    finally:
        made.close()
        lab.nft("flush ruleset")


def test_nothing_is_said_of_a_harmless_ruleset(kernel, lab):
    """NodeLocal's NOTRACK of port 53 and of its own address, and rules that track, are no problem."""
    lab.nft(
        "table ip nodelocal {\n chain raw {\n type filter hook prerouting priority raw;\n"
        " udp dport 53 notrack\n ip daddr 169.254.20.10 tcp dport 8080 notrack\n"
        " tcp dport 80 counter\n }\n}"
    )
    assert kernel.foreign() == Foreign()
    assert kernel.foreign().doubts == kernel.foreign().problems == []


def test_notrack_of_more_than_dns_is_named(kernel, lab):
    """By table and chain, also in a chain that is jumped to."""
    lab.nft(
        "table inet fast {\n chain web {\n tcp dport 443 notrack\n }\n"
        " chain raw {\n type filter hook prerouting priority raw;\n jump web\n }\n}"
    )
    assert kernel.foreign().untracked == ("inet fast web",)
    assert "inet fast web" in kernel.foreign().problems[0]


def test_notrack_of_all_but_dns_is_named(kernel, lab):
    """A comparison with 53 that exempts it narrows nothing."""
    lab.nft(
        "table inet fast {\n chain raw {\n type filter hook prerouting priority raw;\n"
        " ip saddr 10.244.0.0/16 tcp dport != 53 notrack\n }\n}"
    )
    assert kernel.foreign().untracked == ("inet fast raw",)


def test_notrack_of_iptables_is_named(kernel, lab):
    """The CT target in table raw; not where it is for port 53 alone."""
    if shutil.which("iptables-nft") is None:
        pytest.skip("no iptables-nft here")
    words = ["ip", "netns", "exec", lab.ns("node"), "iptables-nft", "-t", "raw", "-A", "PREROUTING", "-p"]
    udp = subprocess.run([*words, "udp", "--dport", "53", "-j", "CT", "--notrack"], check=False)
    if udp.returncode != 0:
        pytest.skip("this kernel has no CT target")
    assert kernel.foreign() == Foreign()
    subprocess.run([*words, "udp", "-j", "CT", "--notrack"], check=True)
    assert kernel.foreign().untracked == ("ip raw PREROUTING",)


def test_a_flowtable_is_seen_at_once_and_is_a_doubt(kernel, lab):
    """It comes and goes as an event; while it is there the node does not call itself enforcing."""
    text = "table inet other {\n flowtable f {\n hook ingress priority 0; devices = { up0 };\n }\n}"
    try:
        lab.nft(text)
    except subprocess.CalledProcessError:
        pytest.skip("this kernel has no flowtables")
    assert "offload" in kernel.drain_events()
    assert kernel.foreign().flowtables == ("inet other f",)
    assert "flowtable inet other f" in kernel.foreign().doubts[0]
    lab.nft("delete table inet other")
    assert "offload" in kernel.drain_events()
    assert kernel.foreign() == Foreign()
