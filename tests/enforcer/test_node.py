"""What ``nameward status`` says of a node, by what the resolver told it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import generate_latest

from enforcer.blocked import BlockedRecords
from enforcer.break_glass import Openings
from enforcer.doors import OffLoop
from enforcer.node import Node
from enforcer.sharing.cluster.rows import node_row
from enforcer.sharing.publishing.facts import facts_of
from enforcer.sharing.records.formats import NodeRecord, node_from
from enforcer.sharing.records.keys import Keys
from enforcer.sources import Seen
from policy.authority import CountersReported, UpstreamState
from policy.manifest import Finding, Loaded
from policy.runtime.settings import load_settings
from tests.enforcer.rig import A, B, Rig, permit, policy


def _nothing(_work: Callable[[], Any], _done: Callable[[Any], None]) -> None:
    """Work in threads never happens."""


def _node(rig: Rig, off_loop: OffLoop = _nothing) -> Node:
    return Node(
        settings=load_settings(None, {"NAMEWARD_POLICY_GOVERNEDNAMESPACES": "mcp"}),
        version="1",
        ledger=rig.ledger,
        blocked=BlockedRecords(10),
        authority=rig.authority,
        reconciler=rig.reconciler,
        records=rig.records,
        openings=Openings(rig.folder / "break-glass", rig.records),
        addresses=frozenset,
        off_loop=off_loop,
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


class _LostRedis:
    state = "lost"
    problems = ("Redis at redis:6379 does not answer: is it running?",)
    counts = {  # noqa: RUF012
        ("nameward_redis_errors_total", ("timeout",)): 2.0,
        ("nameward_shared_records_total", ("forged",)): 3.0,
        ("nameward_remote_requests_total", ("realized",)): 4.0,
    }


def test_without_shared_state_redis_is_off(tmp_path: Path) -> None:
    """The row says so, and the metric is 0."""
    node = _node(Rig(tmp_path))
    assert (node.status()["redis"], node.status()["lost"]) == ("off", False)
    assert "nameward_redis_up 0.0" in generate_latest(node.metrics.registry).decode()


def test_what_the_shared_state_says_is_shown(tmp_path: Path) -> None:
    """Its state, its problems, its counters; being lost does not keep the node from enforcing."""
    node = _node(Rig(tmp_path).settled_with(policy(permit("api.example.com"))))
    node.doubts = ()
    node.shared = _LostRedis()  # type: ignore[assignment]
    row = node.status()
    assert (row["redis"], row["enforcing"]) == ("lost", True)
    assert _LostRedis.problems[0] in row["problems"]
    text = generate_latest(node.metrics.registry).decode()
    assert "nameward_redis_up 0.0" in text
    assert 'nameward_redis_errors_total{reason="timeout"} 2.0' in text
    assert 'nameward_shared_records_total{outcome="forged"} 3.0' in text
    assert 'nameward_remote_requests_total{outcome="realized"} 4.0' in text
    node.shared = _LostRedis()  # type: ignore[assignment]
    node.shared.state = "up"  # type: ignore[misc]
    assert "nameward_redis_up 1.0" in generate_latest(node.metrics.registry).decode()


def test_facts_of_the_heartbeat_are_those_of_the_row(tmp_path: Path) -> None:
    """What a node says of itself elsewhere is what it shows here."""
    node = _node(Rig(tmp_path).settled_with(policy(permit("api.example.com"))))
    upstreams = (UpstreamState("1.1.1.1", healthy=True, latency_ms=2.5),)
    node.counters_reported(CountersReported(counters={}, histograms={}, gauges={}, upstreams=upstreams))
    row = node.status()
    facts = facts_of(row, "2026-11-22T10:00:00.000Z")
    record = NodeRecord("n1", "s", 1, "c", "now", facts)
    key = Keys("default", "n1").heartbeat
    shown = node_row(node_from(key, record.fields()))
    assert shown == {**row, "node": "n1", "redis": "up"}
    assert facts.started_at == "2026-11-22T10:00:00.000Z"


def _seen(loaded: Loaded, *, is_fresh: bool) -> Seen:
    return Seen(loaded, complete=True, problems=(), detected_at=0.0, is_fresh=is_fresh)


def test_who_came_is_admitted_once_the_source_says_the_same_again(tmp_path: Path) -> None:
    """From a saved copy nobody new is; the world need not change for it when the server is back."""
    rig = Rig(tmp_path).begin()
    node = _node(rig, off_loop=lambda work, done: done(work()))
    loaded = Loaded((policy(permit("api.example.com")),), (A,), (), {}, ())
    node.source_seen(_seen(loaded, is_fresh=False))
    rig.run_threads()
    assert not rig.ledger.accounts
    assert [pod.key for pod in node.unadmitted] == [A.key]
    assert "cannot be asked" in "".join(node.status()["problems"])
    generation = node.status()["generation"]
    node.source_seen(_seen(loaded, is_fresh=True))
    rig.run_threads()
    assert len(rig.ledger.accounts) == len(A.addresses)
    assert node.status()["generation"] == generation
    node.source_seen(_seen(loaded, is_fresh=False))
    assert len(rig.ledger.accounts) == len(A.addresses)


def test_a_rejected_policy_is_told_once(tmp_path: Path) -> None:
    """Not again with every change of something else."""
    rig = Rig(tmp_path).begin()
    node = _node(rig)
    wrong = Finding("FirewallPolicy n/x", 0, "/spec", "error", "is wrong", "correct it")
    for pods in ((A,), (A, B), (A,)):
        node.source_seen(_seen(Loaded((), pods, (), {}, (wrong,)), is_fresh=True))
    told = [fields["why"] for event, fields in rig.records.told if event == "policy.rejected"]
    assert told == ["FirewallPolicy n/x /spec: is wrong; correct it"]
