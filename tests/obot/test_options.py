"""What `nameward bridge` says to wrong options: one sentence, exit code 2, nothing started."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from enforcer.cli import main

GOOD = {
    "--storage-url": "https://obot.obot.svc:8443",
    "--token-file": "/nowhere/apiKey",
    "--namespace": "obot-mcp",
    "--kubeconfig": "/nowhere/kubeconfig",
}


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--storage-url", "http://obot:8080", "https://SERVICE.NAMESPACE.svc:8443"),
        ("--storage-url", "obot", "is no storage"),
        ("--namespace", "Obot MCP", "no name of a namespace"),
        ("--certificate-sha256", "abc", "64 hexadecimal digits"),
        ("--always-allow", "https://packages.example.com", "has a scheme"),
        ("--managed-by", "a b", "label's value"),
        ("--adopt", "x" * 64, "label's value"),
        ("--listen", "somewhere:http", "ADDRESS:]PORT"),
        ("--kubeconfig", "/nowhere/kubeconfig", "/nowhere/kubeconfig cannot be read"),
    ],
)
def test_a_wrong_option_is_said(option: str, value: str, said: str) -> None:
    """And what to write instead."""
    chosen = {**GOOD, option: value}
    done = CliRunner().invoke(main, ["bridge", *(part for pair in chosen.items() for part in pair)])
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
