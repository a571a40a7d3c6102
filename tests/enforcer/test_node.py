"""What ``nameward status`` says of a node, by what the resolver told it."""

from __future__ import annotations

from pathlib import Path

from enforcer.blocked import BlockedRecords
from enforcer.node import Node
from policy.authority import CountersReported
from policy.runtime.settings import load_settings
from tests.enforcer.rig import Rig, permit, policy


def _node(rig: Rig) -> Node:
    return Node(
        settings=load_settings(None, {"NAMEWARD_POLICY_GOVERNEDNAMESPACES": "mcp"}),
        version="1",
        ledger=rig.ledger,
        blocked=BlockedRecords(10),
        authority=rig.authority,
        reconciler=rig.reconciler,
        records=rig.records,
        addresses=frozenset,
        off_loop=lambda _work, _done: None,
        later=lambda _delay_s, _call: None,
        now=rig.clock,
        pending=lambda: 0,
    )


def _report(**gauges: float) -> CountersReported:
    return CountersReported(counters={}, histograms={}, gauges=gauges, upstreams=())


def test_settings_that_the_resolver_alone_refused_are_a_problem(tmp_path: Path) -> None:
    """It may be unable to read a file that root can: status says so until it took the file."""
    node = _node(Rig(tmp_path).settled_with(policy(permit("api.example.com"))))
    said = "the resolver refused the configuration as it is now, and goes on with the old one"
    node.counters_reported(_report(nameward_settings_rejected=0.0))
    assert said not in node.status()["problems"]
    node.counters_reported(_report(nameward_settings_rejected=1.0))
    assert said in node.status()["problems"]
    node.counters_reported(_report(nameward_settings_rejected=0.0))
    assert said not in node.status()["problems"]
