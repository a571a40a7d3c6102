"""A node that answers at its inspection socket, and the command line beside it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Rows = list[dict[str, Any]]


class Nameward:
    """Runs ``nameward`` as its users do: a process, its output, its exit code."""

    def __init__(self, config: Path) -> None:
        self.config = config

    def __call__(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        program = "from enforcer.cli import main; main()"
        command = [sys.executable, "-c", program, *arguments, "--config", str(self.config)]
        clean = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path.cwd()), "PYTHONUTF8": "1"}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env={**clean, **environ}
        )

    def json(self, *arguments: str) -> Any:
        """What ``-o json`` prints, parsed."""
        return json.loads(self(*arguments, "-o", "json").stdout)


class FakeNode:
    """The inspection socket of a node: remembers what was asked, answers with ``rows``."""

    def __init__(self, runtime_dir: Path) -> None:
        self.rows: Rows = []
        self.lines: list[bytes] | None = None
        self.asked: list[dict[str, Any]] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(runtime_dir / "inspect.sock"))
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            with peer, peer.makefile("rwb") as stream:
                self.asked.append(json.loads(stream.readline()))
                lines = [json.dumps({"row": row}).encode() for row in self.rows] + [b'{"end": true}']
                stream.write(b"\n".join(lines if self.lines is None else self.lines) + b"\n")

    def close(self) -> None:
        """Answer no more."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose runtime folder is the test's."""
    path = tmp_path / "nameward.yaml"
    path.write_text(f"policy: {{governedNamespaces: [obot-mcp]}}\nruntimeDir: {tmp_path}\n")
    return path


@pytest.fixture
def nameward(config: Path) -> Nameward:
    """The command line."""
    return Nameward(config)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    """A node that runs."""
    made = FakeNode(tmp_path)
    yield made
    made.close()


@pytest.fixture
def refusal() -> Callable[..., dict[str, Any]]:
    """A row of ``blocked``."""

    def made(**fields: Any) -> dict[str, Any]:
        row = {
            "kind": "lookup",
            "namespace": "obot-mcp",
            "pod": "crm-0",
            "podIP": "10.244.0.7",
            "node": "node-a",
            "name": "exfil.attacker.example",
            "qtype": "A",
            "address": "",
            "protocol": "",
            "port": None,
            "policy": "obot-mcp/crm",
            "rule": "deny-all-external",
            "reason": "no rule permits exfil.attacker.example for obot-mcp/crm-0",
            "count": 2,
            "firstSeen": "2026-11-22T10:00:00.000Z",
            "lastSeen": "2026-11-22T10:00:05.000Z",
        }
        return {**row, **fields}

    return made
