"""The cluster from either node, with the commands that an operator types, on two real nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from enforcer.demo import places, shared
from enforcer.demo.nodes import LabNode
from enforcer.demo.processes import LONG_S, wait_until
from enforcer.demo.scenes_nodes import NodesStage

pytestmark = pytest.mark.kernel
LOST_WITHIN_S = 60.0


def shown(node: LabNode, *arguments: str) -> str:
    """What a command prints on a node."""
    done = node.ward.command(*arguments)
    print(f"$ nameward {' '.join(arguments)}\n{done.stdout}{done.stderr}(exit code {done.returncode})")
    return done.stdout


def rows(node: LabNode, *arguments: str) -> list[dict[str, Any]]:
    """The rows of a command on a node."""
    found: list[dict[str, Any]] = json.loads(shown(node, *arguments, "-o", "json"))
    return found


def _knows(node: LabNode, other: str) -> bool:
    return all(node.ward.ask(command, node=other) for command in ("blocked", "grants"))


@pytest.fixture(scope="module")
def lived(nodes: NodesStage) -> NodesStage:
    """Each node has opened something and refused something, and Redis has heard of it."""
    for pod, name in ((nodes.crm_a, places.CRM), (nodes.ledger, places.LEDGER)):
        assert pod.stub.ask(name).addresses
        assert not pod.stub.ask(places.DROP).addresses
    assert wait_until(lambda: _knows(nodes.a, "node-b") and _knows(nodes.b, "node-a"), LONG_S, 0.1)
    assert not shared.differences(nodes.cluster)
    return nodes


def test_grants_and_refusals_of_all_nodes_from_either(lived: NodesStage) -> None:
    """The same rows, whoever is asked; each node's own from memory, the other's from Redis."""
    fields = ("node", "pod", "name", "address", "port", "policy", "rule")
    for command in ("grants", "blocked"):
        seen = [
            {tuple(row[field] for field in fields) for row in rows(node, command)}
            for node in (lived.a, lived.b)
        ]
        assert seen[0] == seen[1]
        assert {row[0] for row in seen[0]} == {"node-a", "node-b"}
        shown(lived.a, command)
    assert {row["node"] for row in rows(lived.a, "grants", "--node", "node-b")} == {"node-b"}
    assert {row["node"] for row in rows(lived.a, "blocked", "--pod", lived.ledger.name)} == {"node-b"}


def test_status_shows_which_node_is_behind(lived: NodesStage) -> None:
    """One row each; the policy hashes differ, because node A has a policy of its own."""
    a, b = rows(lived.a, "status")
    assert (a["node"], b["node"], a["redis"], b["redis"]) == ("node-a", "node-b", "up", "up")
    assert a["enforcing"]
    assert b["enforcing"]
    assert b["pods"] == len({row["pod"] for row in rows(lived.b, "inventory") if row["node"] == "node-b"})
    assert a["policyHash"] != b["policyHash"]
    shown(lived.a, "status")
    assert lived.a.ward.command("status").returncode == 0


def test_inventory_and_explain_know_where_a_pod_is(lived: NodesStage) -> None:
    """And what is open there."""
    assert lived.ledger.stub.ask(places.LEDGER).addresses
    asked = {"node": "node-b", "name": places.LEDGER}
    assert wait_until(lambda: bool(lived.a.ward.ask("grants", **asked)), LONG_S, 0.1)
    where = {row["pod"]: row["node"] for row in rows(lived.a, "inventory") if row["kind"] == "pod"}
    assert (where[lived.crm_a.name], where[lived.ledger.name]) == ("node-a", "node-b")
    shown(lived.a, "inventory")
    pod = f"{places.NAMESPACE}/{lived.ledger.name}"
    row = rows(lived.a, "explain", pod, f"{places.LEDGER}:443")
    assert row["verdict"] == "permit"  # type: ignore[call-overload]
    assert row["node"] == "node-b"  # type: ignore[call-overload]
    assert [grant["node"] for grant in row["grants"]]  # type: ignore[call-overload]
    shown(lived.a, "explain", pod, f"{places.LEDGER}:443")


def test_follow_hears_the_other_node(lived: NodesStage) -> None:
    """Within a second or so, by its name."""
    program = "from enforcer.cli import main; main()"
    following = ["blocked", "--follow", "--since", "1ms", "-o", "json", "--config", str(lived.a.ward.config)]
    argv = [sys.executable, "-c", program, *following]
    environ = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environ) as process:
        try:
            assert process.stdout is not None
            os.set_blocking(process.stdout.fileno(), False)
            heard: list[str] = []

            def has_heard() -> bool:
                lived.ledger.stub.ask(f"n{time.monotonic_ns()}.{places.DROP}")
                assert process.stdout is not None
                heard.extend(process.stdout.readlines())
                return any(json.loads(line)["node"] == "node-b" for line in heard)

            assert wait_until(has_heard, LONG_S, 0.3)
        finally:
            process.kill()


def test_a_node_that_dies_is_shown_as_lost(lived: NodesStage) -> None:
    """Its grants are not shown as live, its evidence stays; the other enforces on."""
    lived.b.die()

    def is_lost() -> bool:
        return any(row["node"] == "node-b" and row["lost"] for row in lived.a.ward.ask("status"))

    assert wait_until(is_lost, LOST_WITHIN_S, 0.2)
    assert all(row["lost"] for row in rows(lived.a, "grants", "--node", "node-b"))
    assert {row["lost"] for row in rows(lived.a, "blocked", "--node", "node-b")} == {True}
    assert {row["lost"] for row in rows(lived.a, "inventory", "--node", "node-b")} == {True}
    assert "node-b (lost)" in shown(lived.a, "status")
    assert lived.a.ward.command("status").returncode == 1
    assert lived.a.ward.command("status", "--node", "node-a").returncode == 0
