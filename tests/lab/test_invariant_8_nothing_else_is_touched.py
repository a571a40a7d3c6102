"""Invariant 8: Nameward owns its tables, its ip rule and one routing table, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.demo import places, prerequisites
from enforcer.demo.failure import CannotRunHereError
from enforcer.demo.lab import Lab, running
from enforcer.demo.processes import output_of
from enforcer.demo.scenes import set_stage
from enforcer.wiring import THREADS

pytestmark = pytest.mark.kernel

FOREIGN = """
table ip nat { chain leaving { type nat hook postrouting priority srcnat; oifname "uplink0" masquerade; }; }
table inet filter { set s { type ipv4_addr; elements = { 192.0.2.1 }; }; }
"""
OWN_TABLES = {"table inet nameward", "table inet nameward_guard", "table bridge nameward"}
OWN_PREFERENCES = {"53", "54", "55"}
"""The one rule of the design is three: what the node itself sends goes round it (enforcer.routes)."""
LISTENS = "0A"
"""A TCP socket's state in /proc/net/tcp."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab with foreign rules in which Nameward has not been started yet."""
    try:
        prerequisites.require()
    except CannotRunHereError as error:
        pytest.skip(str(error))
    with running(enforced=False) as made:
        output_of(made.node, ["nft", "-f", "-"], FOREIGN)
        set_stage(made)
        yield made


def _host(lab: Lab) -> dict[str, list[str]]:
    """Return what a node has that could be touched, without counters."""
    return {
        "foreign tables": [
            output_of(lab.node, ["nft", "-s", "list", "table", *family_and_name])
            for family_and_name in (("ip", "nat"), ("inet", "filter"))
        ],
        "tables": output_of(lab.node, ["nft", "list", "tables"]).splitlines(),
        "rules": [
            line
            for family in ("-4", "-6")
            for line in output_of(lab.node, ["ip", family, "rule"]).splitlines()
        ],
        "routes": [
            line
            for family in ("-4", "-6")
            for line in output_of(lab.node, ["ip", family, "route", "show", "table", "main"]).splitlines()
        ],
        "settings": output_of(
            lab.node, ["sysctl", "-a", "-r", r"net\.(ipv4|ipv6)\.(conf|ip_forward|ip_nonlocal)"]
        ).splitlines(),
    }


def test_start_and_end_touch_nothing_of_others(lab: Lab) -> None:
    """Foreign tables, routes and settings are the same while it runs and after it has ended."""
    before = _host(lab)
    lab.ward.start()
    while_running = _host(lab)
    lab.ward.stop()
    after = _host(lab)
    for kept in ("foreign tables", "routes", "settings"):
        assert while_running[kept] == before[kept], kept
        assert after[kept] == before[kept], kept
    assert set(while_running["tables"]) - set(before["tables"]) <= OWN_TABLES
    assert set(before["tables"]) <= set(while_running["tables"])
    added = [rule for rule in while_running["rules"] if rule not in before["rules"]]
    assert {rule.split(":")[0] for rule in added} == OWN_PREFERENCES, added
    assert set(before["rules"]) <= set(while_running["rules"])


def test_without_redis_there_is_no_thread_and_no_connection_for_it(lab: Lab) -> None:
    """A node on its own has the threads of its own work, and speaks to nobody over TCP."""
    lab.ward.start()
    try:
        assert next(iter(lab.pods.values())).stub.ask(places.CRM).addresses
        process = Path(f"/proc/{lab.ward.worker('enforcer')}")
        assert len(list((process / "task").iterdir())) <= 1 + THREADS
        sockets = {str(link.readlink()) for link in (process / "fd").iterdir()}
        tables = [(process / "net" / name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
        lines = [line.split() for table in tables for line in table]
        states = {words[3] for words in lines if f"socket:[{words[9]}]" in sockets}
        assert states == {LISTENS}
        row = lab.ward.status()
        assert (row["redis"], row["problems"]) == ("off", [])
        assert lab.ward.metric("nameward_redis_up") == 0
        assert "redis" not in lab.ward.log.read_text()
    finally:
        lab.ward.stop()
