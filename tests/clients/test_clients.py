"""What programs in pods see: glibc, musl, c-ares (Node), dig and kdig, through the real node."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from enforcer.demo import places
from enforcer.demo.scenes import Stage

pytestmark = pytest.mark.kernel

InPod = Callable[..., subprocess.CompletedProcess[str]]
Compiled = Callable[[str, str], str]

LIBCS = ["gcc", "musl-gcc"]
PAIRS = 10_000


@pytest.mark.parametrize("compiler", LIBCS)
@pytest.mark.parametrize("name", [places.CRM, places.SHOP])
def test_getaddrinfo_gives_addresses_that_can_be_connected_to(
    in_pod: InPod, compiled: Compiled, compiler: str, name: str
) -> None:
    """With a cluster's search list both libcs resolve an approved name, and each address is open."""
    done = in_pod(compiled("addrinfo", compiler), name, "443")
    first, *rest = done.stdout.splitlines()
    assert first.startswith("OK "), done.stdout + done.stderr
    assert set(rest) == {f"{address} connected" for address in places.SITE_OF[name]}


@pytest.mark.parametrize("compiler", LIBCS)
def test_getaddrinfo_fails_for_a_blocked_name_as_for_one_that_is_not_there(
    in_pod: InPod, compiled: Compiled, compiler: str
) -> None:
    """A blocked name is a name that does not exist: no time-out, no "try again"."""
    done = in_pod(compiled("addrinfo", compiler), places.DROP, "443")
    words, _, _ = done.stdout.strip().rpartition(" ")
    assert words in {"Name or service not known", "Name does not resolve"}


@pytest.mark.parametrize("server", [places.CLUSTER_DNS, "fd00:10:96::a"])
@pytest.mark.parametrize("way", ["mmsg", "threads"])
def test_of_10000_back_to_back_pairs_none_is_lost(
    in_pod: InPod, compiled: Compiled, server: str, way: str
) -> None:
    """A and AAAA from one fresh port, sent at once or by two threads: every question is answered."""
    done = in_pod(compiled("pairs", "gcc"), server, places.CRM, str(PAIRS), way, timeout_s=600.0)
    assert done.stdout.split() == [str(2 * PAIRS), "0"], done.stdout + done.stderr


_NODE = """
const dns = require('dns');
const [name] = process.argv.slice(1);
const seen = {};
const done = (key) => (error, found) => { seen[key] = error ? error.code : found; };
const texts = (found) => found.map(each => each.address);
dns.lookup(name, {all: true}, (error, found) => { seen.lookup = error ? error.code : texts(found); });
dns.resolve4(name, done('resolve4'));
dns.resolve6(name, done('resolve6'));
process.on('exit', () => console.log(JSON.stringify(seen)));
"""


def test_node_and_c_ares_resolve_an_approved_name(in_pod: InPod) -> None:
    """Node's lookup (getaddrinfo) and resolve (c-ares) give the same addresses."""
    seen = json.loads(in_pod("node", "-e", _NODE, places.CRM).stdout)
    v4, v6 = places.SITE_OF[places.CRM]
    assert seen == {"lookup": seen["lookup"], "resolve4": [v4], "resolve6": [v6]}
    assert set(seen["lookup"]) == {v4, v6}


def test_node_and_c_ares_see_a_blocked_name_as_not_found(in_pod: InPod) -> None:
    """Both ways of Node report ENOTFOUND."""
    seen = json.loads(in_pod("node", "-e", _NODE, places.DROP).stdout)
    assert seen == {"lookup": "ENOTFOUND", "resolve4": "ENOTFOUND", "resolve6": "ENOTFOUND"}


def test_dig_shows_why_a_name_is_blocked(in_pod: InPod) -> None:
    """With EDNS the reply carries extended error 15 and names what did not permit it."""
    text = in_pod("dig", places.DROP).stdout
    assert "status: NXDOMAIN" in text
    assert "EDE: 15 (Blocked)" in text
    assert f"SERVER: {places.CLUSTER_DNS}#53" in text


def test_dig_gets_500_addresses_over_tcp_after_truncation(in_pod: InPod) -> None:
    """A truncated UDP reply still holds whole records, and TCP holds all of them."""
    cut = in_pod("dig", "+ignore", "+bufsize=1232", places.MANY).stdout
    assert " tc " in cut.replace(";", " ")
    assert 0 < cut.count("\tA\t44.31.") < places.MANY_COUNT
    assert in_pod("dig", "+tcp", "+short", places.MANY).stdout.count("44.31.") == places.MANY_COUNT


@pytest.mark.parametrize("option", ["+notcp", "+tcp"])
def test_kdig_is_answered_by_the_server_it_aimed_at(in_pod: InPod, stage: Stage, option: str) -> None:
    """Whatever server a pod aims at, the reply comes from there and the attacker hears nothing."""
    text = in_pod("kdig", option, f"@{places.ATTACKER_DNS4}", places.CRM).stdout
    assert "status: NOERROR" in text
    assert places.SITE_OF[places.CRM][0] in text
    assert f"From {places.ATTACKER_DNS4}@53" in text
    assert stage.lab.world.counted("attacker") == 0
