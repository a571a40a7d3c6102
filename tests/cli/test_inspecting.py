"""blocked, grants, status and explain beside a node: forms, filters, escaping, exit codes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

EVIL = "a\x1b[2Jb\u202ec\x07\u200bd\x9b"
ESCAPED = r"a\x1b[2Jb\u202ec\x07\u200bd\x9b"
STATUS = {
    "node": "node-a",
    "version": "0.1.0",
    "enforcing": True,
    "generation": 7,
    "policyHash": "ab12",
    "pods": 3,
    "policies": 2,
    "rejectedPolicies": 0,
    "grants": 11,
    "pending": 0,
    "redis": "off",
    "upstreams": [{"address": "1.1.1.1", "healthy": True, "latencyMs": 12.5}],
    "lastRealizedAt": None,
    "problems": [],
}
GRANT = {
    "namespace": "obot-mcp",
    "pod": "crm-0",
    "uid": "u-1",
    "podIP": "10.244.0.7",
    "node": "node-a",
    "name": "api.crm.example",
    "address": "2001:db8::7",
    "protocol": "tcp",
    "port": "8000-8100",
    "policy": "obot-mcp/crm",
    "rule": "allow-crm",
    "realizedAt": "2026-11-22T10:00:00.000Z",
    "expiresAt": "2026-11-22T10:02:00.000Z",
    "remainingSeconds": 41.5,
}
EXPLAINED = {
    "verdict": "deny",
    "namespace": "obot-mcp",
    "pod": "crm-0",
    "name": "api.crm.exampel",
    "port": 443,
    "protocol": "tcp",
    "policy": "obot-mcp/crm",
    "rule": "deny-all-external",
    "reason": "no rule permits it",
    "nearest": "api.crm.example",
    "grants": [],
}


class TestForms:
    """The same rows as table, wide, JSON and YAML."""

    def test_json_is_one_array_with_exactly_the_rows(self, nameward, node) -> None:
        """Nothing added, nothing lost, whatever is in it."""
        node.rows = [GRANT, {**GRANT, "name": EVIL}]
        assert nameward.json("grants") == node.rows
        node.rows = []
        assert nameward.json("grants") == []

    def test_yaml_is_one_list(self, nameward, node) -> None:
        """The same values."""
        node.rows = [GRANT, {**GRANT, "port": "any"}]
        assert yaml.safe_load(nameward("grants", "-o", "yaml").stdout) == node.rows

    def test_a_table_in_a_pipe_has_no_color_and_one_line_a_row(self, nameward, node) -> None:
        """However long a reason is: grep and awk work."""
        node.rows = [GRANT, {**GRANT, "pod": "x" * 300}]
        done = nameward("grants")
        assert done.returncode == 0
        lines = done.stdout.splitlines()
        assert lines[0].split() == ["POD", "NAME", "ADDRESS", "PORT", "RULE", "REMAINING"]
        assert lines[1].split() == [
            "obot-mcp/crm-0",
            "api.crm.example",
            "2001:db8::7",
            "8000-8100/tcp",
            "obot-mcp/crm/allow-crm",
            "41s",
        ]
        assert len(lines) == 3
        assert "\x1b" not in done.stdout

    def test_wide_shows_more(self, nameward, node) -> None:
        """Identity and times."""
        node.rows = [GRANT]
        assert "u-1" not in nameward("grants").stdout
        assert "u-1" in nameward("grants", "-o", "wide").stdout

    def test_an_empty_table_says_so_on_standard_error(self, nameward, node) -> None:
        """Standard output stays empty for programs."""
        done = nameward("blocked")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "Nothing was blocked.\n")

    @pytest.mark.parametrize("output", ["table", "wide", "json", "yaml"])
    def test_names_cannot_speak_to_the_terminal(self, nameward, node, refusal, output: str) -> None:
        """Escape sequences, bells, bidirectional overrides and invisible characters are spelt out."""
        node.rows = [refusal(name=EVIL, reason=f"no rule permits {EVIL}", pod=EVIL)]
        printed = nameward("blocked", "-o", output).stdout
        assert not set(EVIL) - set("abcd[2J") & set(printed)
        if output in {"table", "wide"}:
            assert ESCAPED in printed

    def test_markup_is_text(self, nameward, node, refusal) -> None:
        """A name in brackets is not a color."""
        node.rows = [refusal(reason="[red]no[/red] :smile:")]
        assert "[red]no[/red] :smile:" in nameward("blocked").stdout


class TestBlocked:
    """``nameward blocked``."""

    def test_it_asks_for_what_was_filtered(self, nameward, node) -> None:
        """The node filters."""
        nameward("blocked", "--since", "1h30m", "-n", "obot-mcp", "--pod", "crm-0", "--node", "b", "--raw")
        assert node.asked == [
            {
                "command": "blocked",
                "namespace": "obot-mcp",
                "pod": "crm-0",
                "node": "b",
                "sinceSeconds": 5400.0,
                "raw": True,
                "follow": False,
            }
        ]

    def test_the_types_of_one_question_are_one_row(self, nameward, node, refusal) -> None:
        """A and AAAA of one name: counts added, first and last time kept, the latest last."""
        later = {"lastSeen": "2026-11-22T10:00:09.000Z", "reason": "latest"}
        node.rows = [
            refusal(),
            refusal(qtype="AAAA", count=3, firstSeen="2026-11-22T09:59:00.000Z", **later),
            refusal(podIP="fd00::7", firstSeen="2026-11-22T10:00:02.000Z"),
            refusal(pod="other", lastSeen="2026-11-22T10:00:01.000Z"),
        ]
        other, crm = nameward.json("blocked")
        assert other["pod"] == "other"
        assert (crm["qtype"], crm["count"], crm["reason"]) == ("A,AAAA", 7, "latest")
        assert (crm["firstSeen"], crm["lastSeen"]) == ("2026-11-22T09:59:00.000Z", later["lastSeen"])
        assert len(nameward.json("blocked", "--raw")) == 4

    def test_a_packet_shows_its_destination(self, nameward, node, refusal) -> None:
        """Address and port, with the name where it is known; an undeclared pod by its address."""
        node.rows = [
            refusal(kind="packet", name="", qtype="", address="203.0.113.9", protocol="tcp", port=80, pod="")
        ]
        printed = nameward("blocked").stdout
        assert "203.0.113.9 80/tcp" in printed
        assert "(unknown) 10.244.0.7" in printed

    def test_follow_prints_an_object_a_line(self, nameward, node, refusal) -> None:
        """Until the node ends."""
        node.rows = [refusal(), refusal(pod="b")]
        done = nameward("blocked", "--follow", "-o", "json")
        assert [json.loads(line)["pod"] for line in done.stdout.splitlines()] == ["crm-0", "b"]
        assert node.asked[0]["follow"] is True
        assert node.asked[0]["raw"] is True

    def test_follow_prints_a_line_for_each(self, nameward, node, refusal) -> None:
        """With the moment first and a header."""
        node.rows = [refusal()]
        header, line = nameward("blocked", "-f").stdout.splitlines()
        assert header.split()[0] == "SEEN"
        assert line.startswith("2026-11-22T10:00:05.000Z")


class TestStatus:
    """``nameward status``."""

    def test_an_enforcing_node_is_success(self, nameward, node) -> None:
        """Exit 0, and every field in the JSON array."""
        node.rows = [STATUS]
        done = nameward("status")
        assert done.returncode == 0
        assert "enforcing" in done.stdout
        assert "1.1.1.1 healthy, 12.5 ms" in done.stdout
        assert nameward.json("status") == [STATUS]

    def test_a_node_that_does_not_enforce_is_failure(self, nameward, node) -> None:
        """Exit 1, and its problems."""
        node.rows = [{**STATUS, "enforcing": False, "problems": [f"bad {EVIL}"]}]
        done = nameward("status")
        assert done.returncode == 1
        assert "NOT ENFORCING" in done.stdout
        assert f"bad {ESCAPED}" in done.stdout

    def test_wait_returns_when_it_enforces(self, nameward, node) -> None:
        """Exit 0."""
        node.rows = [STATUS]
        assert nameward("status", "--wait", "30s").returncode == 0

    def test_wait_gives_up_and_says_why(self, nameward, node) -> None:
        """Exit 1 with the first problem."""
        node.rows = [{**STATUS, "enforcing": False, "problems": ["the guard table is missing"]}]
        done = nameward("status", "--wait", "200ms")
        assert done.returncode == 1
        assert done.stderr == "nameward: the node does not enforce after 0.2 s: the guard table is missing\n"

    def test_wait_for_a_node_that_never_comes(self, nameward) -> None:
        """Exit 1 with what to do."""
        done = nameward("status", "--wait", "200ms")
        assert done.returncode == 1
        assert "no Nameward answers" in done.stderr


class TestExplain:
    """``nameward explain`` beside a node."""

    @pytest.mark.parametrize(
        ("text", "asked"),
        [
            ("API.crm.example.", {"name": "api.crm.example", "address": "", "port": None, "protocol": "tcp"}),
            ("a.example:443", {"name": "a.example", "address": "", "port": 443, "protocol": "tcp"}),
            ("a.example:53/udp", {"name": "a.example", "address": "", "port": 53, "protocol": "udp"}),
            ("192.0.2.1:443", {"name": "", "address": "192.0.2.1", "port": 443, "protocol": "tcp"}),
            ("2001:db8::1", {"name": "", "address": "2001:db8::1", "port": None, "protocol": "tcp"}),
            ("[2001:db8::1]:443/tcp", {"name": "", "address": "2001:db8::1", "port": 443, "protocol": "tcp"}),
            ("192.0.2.1/icmp", {"name": "", "address": "192.0.2.1", "port": None, "protocol": "icmp"}),
        ],
    )
    def test_what_is_asked(self, nameward, node, text: str, asked: dict[str, Any]) -> None:
        """NAME[:PORT[/PROTO]], and addresses."""
        node.rows = [EXPLAINED]
        nameward("explain", "obot-mcp/crm-0", text)
        expected = {"command": "explain", "namespace": "obot-mcp", "pod": "crm-0", "node": "", **asked}
        assert node.asked == [expected]

    def test_a_denial_says_rule_reason_and_nearest(self, nameward, node) -> None:
        """And exits with 1."""
        node.rows = [EXPLAINED]
        done = nameward("explain", "obot-mcp/crm-0", "api.crm.exampel:443")
        assert done.returncode == 1
        assert "denied" in done.stdout
        for text in ("obot-mcp/crm/deny-all-external", "no rule permits it", "api.crm.example"):
            assert text in done.stdout
        assert nameward.json("explain", "obot-mcp/crm-0", "api.crm.exampel:443") == EXPLAINED

    def test_a_permit_shows_what_is_open(self, nameward, node) -> None:
        """And exits with 0."""
        node.rows = [{**EXPLAINED, "verdict": "permit", "nearest": None, "grants": [GRANT]}]
        done = nameward("explain", "obot-mcp/crm-0", "api.crm.example:443")
        assert done.returncode == 0
        assert "open now: 2001:db8::7 8000-8100/tcp, 41s left" in done.stdout

    @pytest.mark.parametrize("arguments", [("crm-0", "a.example"), ("a/b", "a:b:"), ("a/b", "a.example:1/x")])
    def test_wrong_usage_is_2(self, nameward, arguments: tuple[str, str]) -> None:
        """With a sentence that shows the right form."""
        done = nameward("explain", *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("nameward: ")


class TestNoNode:
    """What happens when nobody, or nobody sensible, answers."""

    @pytest.mark.parametrize("command", [("grants",), ("blocked",), ("status",), ("explain", "a/b", "c")])
    def test_nobody_is_there(self, nameward, command: tuple[str, ...]) -> None:
        """One sentence with the socket's path and what to do; exit 1."""
        done = nameward(*command)
        assert (done.returncode, done.stdout) == (1, "") or command[0] == "grants"
        assert done.stderr.count("\n") == 1
        assert "inspect.sock" in done.stderr

    def test_the_node_says_no(self, nameward, node) -> None:
        """Its sentence is ours, escaped."""
        node.lines = [json.dumps({"error": f"no pod {EVIL}"}).encode()]
        done = nameward("explain", "a/b", "c.example")
        assert (done.returncode, done.stderr) == (1, f"nameward: no pod {ESCAPED}\n")

    def test_the_node_ends_in_the_middle(self, nameward, node) -> None:
        """A cut answer is not taken for a whole one."""
        node.lines = [json.dumps({"row": GRANT}).encode()]
        done = nameward("grants")
        assert done.returncode == 1
        assert "ended before its answer" in done.stderr


def test_a_bad_configuration_is_2_with_every_mistake(nameward) -> None:
    """For every command."""
    nameward.config.write_text("policy: {governedNamespaces: [a]}\ndns: {maxTTL: 1}\nquux: 1\n")
    done = nameward("status")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert all(line.startswith(f"nameward: {nameward.config}: ") for line in done.stderr.splitlines())


def test_a_misspelt_command_or_option_is_2(nameward) -> None:
    """With usage, as everywhere."""
    assert nameward("grannts").returncode == 2
    assert nameward("grants", "--podd", "x").returncode == 2
    assert nameward("blocked", "--since", "60").returncode == 2
