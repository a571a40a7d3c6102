"""The command line where several nodes share their state, and ``nameward inventory``: forms, exit codes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.cli.test_inspecting import ESCAPED, EVIL, EXPLAINED, GRANT, STATUS

POD = {
    "kind": "pod",
    "namespace": "obot-mcp",
    "pod": "crm-0",
    "podIPs": ["10.244.0.7", "fd00::7"],
    "node": "node-a",
    "state": "covered",
    "smartGroups": ["obot-mcp/crm/databases"],
    "policies": ["obot-mcp/crm", "obot-mcp/all"],
    "reason": "",
    "lost": False,
}
HOST = {
    **POD,
    "pod": "agent",
    "podIPs": [],
    "state": "uncontained",
    "policies": [],
    "reason": "it uses the host",
}
IDLE = {
    **POD,
    "kind": "policy",
    "pod": "",
    "podIPs": [],
    "node": "",
    "state": "selects-nothing",
    "smartGroups": [],
    "policies": ["obot-mcp/idle"],
    "reason": "FirewallPolicy: it selects no pod",
}
HERE = {**STATUS, "redis": "up", "lost": False}
THERE = {**HERE, "node": "node-b", "enforcing": False, "problems": ["the guard table is missing", "and more"]}
LOST = {**HERE, "node": "node-c", "enforcing": False, "lost": True, "problems": ["no heartbeat for 42 s"]}


def words(printed: str) -> list[list[str]]:
    """Lines as words."""
    return [line.split() for line in printed.splitlines()]


class TestNodes:
    """NODE columns, ``--node``, warnings."""

    def test_a_table_names_the_nodes_when_there_are_several(self, nameward, node) -> None:
        """And marks what is lost; one node's rows have no such column."""
        node.rows = [GRANT]
        assert "NODE" not in nameward("grants").stdout
        node.rows = [{**GRANT, "lost": False}, {**GRANT, "node": "node-b", "pod": "b", "lost": True}]
        header, other, crm = nameward("grants").stdout.splitlines()
        assert header.split()[-1] == "NODE"
        assert other.endswith("node-b (lost)")
        assert crm.endswith("node-a")
        node.rows = node.rows[1:]
        assert "node-b (lost)" in nameward("grants").stdout

    def test_rows_of_all_nodes_are_in_one_order(self, nameward, node, refusal) -> None:
        """Grants by pod and name, refusals by time."""
        node.rows = [{**GRANT, "node": "a", "pod": "z"}, {**GRANT, "node": "b", "pod": "c"}]
        assert [line[0] for line in words(nameward("grants").stdout)[1:]] == ["obot-mcp/c", "obot-mcp/z"]
        node.rows = [
            refusal(node="a", pod="z", lastSeen="2026-11-22T10:00:09.000Z"),
            refusal(node="b", pod="c", lastSeen="2026-11-22T10:00:01.000Z"),
        ]
        for more in ((), ("--raw",)):
            lines = words(nameward("blocked", *more).stdout)[1:]
            assert [line[0] for line in lines] == ["obot-mcp/c", "obot-mcp/z"]

    @pytest.mark.parametrize(
        "command", [("grants",), ("blocked",), ("status",), ("inventory",), ("explain", "a/b", "c.example")]
    )
    def test_node_is_asked_for(self, nameward, node, command: tuple[str, ...]) -> None:
        """The node that is asked narrows."""
        nameward(*command, "--node", "node-b")
        assert node.asked[0]["node"] == "node-b"

    @pytest.mark.parametrize("output", ["table", "json"])
    def test_warnings_are_on_standard_error(self, nameward, node, output: str) -> None:
        """Escaped; the result is whole without them."""
        node.lines = [
            json.dumps({"row": {**GRANT, "lost": False}}).encode(),
            json.dumps({"warning": f"Redis is lost ({EVIL}): only this node is shown"}).encode(),
            b'{"later": "kinds of lines"}',
            b'{"end": true}',
        ]
        done = nameward("grants", "-o", output)
        assert done.returncode == 0
        assert done.stderr == f"nameward: warning: Redis is lost ({ESCAPED}): only this node is shown\n"
        assert "crm-0" in done.stdout

    def test_follow_names_the_node_where_state_is_shared(self, nameward, node, refusal) -> None:
        """It is asked first."""
        node.rows = [refusal(node="node-b", redis="up")]
        header, line = nameward("blocked", "--follow").stdout.splitlines()
        assert header.split()[-1] == "NODE"
        assert line.endswith("node-b")
        assert [(asked["command"], asked.get("local", False)) for asked in node.asked] == [
            ("status", True),
            ("blocked", False),
        ]

    def test_explain_says_where_the_pod_is(self, nameward, node) -> None:
        """And what is open there; a lost node's grants are not called open."""
        lost = {**GRANT, "node": "node-c", "lost": True}
        row = {**EXPLAINED, "verdict": "permit", "node": "node-b", "grants": [{**GRANT, "lost": False}, lost]}
        node.rows = [row]
        printed = nameward("explain", "obot-mcp/crm-0", "api.crm.example:443").stdout
        assert "  node: node-b\n" in printed
        assert "  open now: 2001:db8::7" in printed
        assert "  still recorded of a lost node: 2001:db8::7" in printed


class TestStatus:
    """``nameward status`` of several nodes."""

    def test_several_nodes_are_a_table(self, nameward, node) -> None:
        """A line each; exit 1 because not all enforce."""
        node.rows = [HERE, THERE, LOST]
        done = nameward("status")
        assert done.returncode == 1
        header, here, there, lost = done.stdout.splitlines()
        assert header.split()[:2] == ["NODE", "STATE"]
        assert here.split()[:2] == ["node-a", "enforcing"]
        assert "NOT ENFORCING" in there
        assert there.endswith("the guard table is missing (and 1 more)")
        assert lost.split()[:3] == ["node-c", "(lost)", "lost"]
        assert lost.endswith("no heartbeat for 42 s")

    def test_all_enforcing_is_success(self, nameward, node) -> None:
        """Exit 0."""
        node.rows = [HERE, {**HERE, "node": "node-b"}]
        assert nameward("status").returncode == 0

    def test_one_node_is_shown_in_detail(self, nameward, node) -> None:
        """As ever; of a lost one there is only why."""
        node.rows = [LOST]
        done = nameward("status", "--node", "node-c")
        assert done.returncode == 1
        assert words(done.stdout)[0] == ["state", "lost"]
        assert words(done.stdout)[1] == ["node", "node-c"]
        assert words(done.stdout)[-1] == ["problem", "no", "heartbeat", "for", "42", "s"]
        assert "generation" not in done.stdout

    def test_no_node_is_failure(self, nameward, node) -> None:
        """A name that nobody has."""
        done = nameward("status", "--node", "node-x")
        assert (done.returncode, done.stdout, done.stderr) == (1, "", "No such node.\n")

    def test_wait_looks_at_this_node_only(self, nameward, node) -> None:
        """What others do not enforce keeps no script waiting."""
        node.rows = [HERE]
        assert nameward("status", "--wait", "30s").returncode == 0
        assert node.asked[0]["local"] is True

    def test_json_and_yaml_are_all_rows(self, nameward, node) -> None:
        """With every field."""
        node.rows = [HERE, THERE, LOST]
        assert nameward.json("status") == node.rows
        assert yaml.safe_load(nameward("status", "-o", "yaml").stdout) == node.rows

    @pytest.mark.parametrize("output", ["table", "wide"])
    def test_other_nodes_texts_are_escaped(self, nameward, node, output: str) -> None:
        """Whatever a hijacked node says of itself."""
        node.rows = [HERE, {**THERE, "version": EVIL, "policyHash": EVIL, "problems": [EVIL]}]
        printed = nameward("status", "-o", output).stdout
        assert not set(EVIL) - set("abcd[2J") & set(printed)
        assert ESCAPED in printed


class TestInventory:
    """``nameward inventory``."""

    def test_pods_and_policies(self, nameward, node) -> None:
        """What covers whom; exit 0 while all are contained."""
        node.rows = [POD, IDLE]
        done = nameward("inventory")
        assert done.returncode == 0
        header, pod, policy = words(done.stdout)
        assert header == ["POD", "OR", "POLICY", "STATE", "POLICIES", "REASON"]
        assert pod == ["obot-mcp/crm-0", "covered", "obot-mcp/crm,", "obot-mcp/all"]
        assert policy == [
            "policy",
            "obot-mcp/idle",
            "selects-nothing",
            *["FirewallPolicy:", "it", "selects", "no", "pod"],
        ]

    def test_an_uncontained_pod_is_a_finding(self, nameward, node) -> None:
        """Exit 1: the promise does not hold for it."""
        node.rows = [POD, HOST]
        done = nameward("inventory")
        assert done.returncode == 1
        assert ["obot-mcp/agent", "uncontained", "it", "uses", "the", "host"] in words(done.stdout)
        assert nameward("inventory", "-o", "json").returncode == 1

    def test_wide_shows_addresses_and_groups(self, nameward, node) -> None:
        """And the node."""
        node.rows = [POD]
        assert "fd00::7" not in nameward("inventory").stdout
        printed = nameward("inventory", "-o", "wide").stdout
        for text in ("10.244.0.7, fd00::7", "obot-mcp/crm/databases", "node-a"):
            assert text in printed

    def test_json_yaml_and_nothing(self, nameward, node) -> None:
        """The rows as they are; an empty table says so on standard error."""
        node.rows = [POD, IDLE]
        assert nameward.json("inventory") == node.rows
        assert yaml.safe_load(nameward("inventory", "-o", "yaml").stdout) == node.rows
        node.rows = []
        done = nameward("inventory")
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr == "No pod of a governed namespace is known here.\n"

    def test_it_asks_for_what_was_filtered(self, nameward, node) -> None:
        """The node filters."""
        nameward("inventory", "-n", "obot-mcp", "--pod", "crm-0")
        asked: dict[str, Any] = {"command": "inventory", "namespace": "obot-mcp", "pod": "crm-0", "node": ""}
        assert node.asked == [asked]

    @pytest.mark.parametrize("output", ["table", "wide", "json", "yaml"])
    def test_names_cannot_speak_to_the_terminal(self, nameward, node, output: str) -> None:
        """Of pods, groups, policies, nodes."""
        node.rows = [
            {**POD, "pod": EVIL, "smartGroups": [EVIL], "policies": [EVIL], "node": EVIL, "reason": EVIL}
        ]
        printed = nameward("inventory", "-o", output).stdout
        assert not set(EVIL) - set("abcd[2J") & set(printed)
