"""The real ``nameward node`` of the lab: started, asked, killed, stopped.

Owns its configuration file, its process and its inspection. Never reaches into it: everything it
knows comes from the command line or the inspection socket, as for any user.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import enforcer
from enforcer.demo import places
from enforcer.demo.failure import LabFailureError
from enforcer.demo.places import NodePlace
from enforcer.demo.processes import LONG_S, descendants, run, start, stop, uid_of, wait_until
from enforcer.demo.spaces import Space

Settings = dict[str, Any]
"""Keys and values of one section of a configuration, or of all of it."""

Row = dict[str, Any]
"""One row of a listing, with the field names of the JSON output."""

_MAIN = "import sys; from enforcer.cli import main; sys.exit(main())"
_READY_S = 60
_METRICS_PORT = 9153


def configuration(
    folder: Path, manifests: Sequence[Path], place: NodePlace = places.HOME, **changes: Settings | str
) -> Settings:
    """Return the configuration of a node: defaults, but for the lab's addresses, grace and load.

    ``changes``: more keys of a section by its name, or a value by its key. One workload of the lab asks
    faster than any pod should, so its query limit is raised.
    """
    made: Settings = {
        "node": place.name,
        "policy": {
            "source": "files",
            "manifests": [str(path) for path in manifests],
            "governedNamespaces": [places.NAMESPACE],
        },
        "dns": {
            "upstreams": [places.UPSTREAM4, places.UPSTREAM6],
            "clusterUpstreams": [places.UPSTREAM4],
            "searchDomains": [],
        },
        "enforcement": {
            "podInterfaces": ["veth"],
            "clusterCIDRs": list(places.CLUSTER_CIDRS),
            "grace": f"{places.GRACE_S}s",
        },
        "limits": {"queriesPerSecond": 20000},
        "runtimeDir": str(folder / "run"),
    }
    for key, change in changes.items():
        made[key] = {**made.get(key, {}), **change} if isinstance(change, dict) else change
    return made


class Ward:
    """The node's daemon. ``folder`` must be searchable by the resolver's user."""

    def __init__(self, space: Space, folder: Path, settings: Settings) -> None:
        self._space = space
        self.name = str(settings["node"])
        self.config = folder / "nameward.yaml"
        self.config.write_text(yaml.safe_dump(settings, sort_keys=False))
        self.log = folder / "nameward.log"
        self._inspect = folder / "run" / "inspect.sock"
        self._env = {**os.environ, "PYTHONPATH": str(Path(enforcer.__file__).parents[1])}
        self._process: subprocess.Popen[bytes] | None = None
        self.warned: list[str] = []
        """What the last ``ask`` warned of."""

    def start(self, **environ: str) -> float:
        """Start it and wait until it says that it enforces; returns the seconds that took.

        ``environ``: what its environment has besides. Raises LabFailureError when it does not; ``tail``
        shows why.
        """
        started_at = time.monotonic()
        argv = [sys.executable, "-c", _MAIN, "node", "--config", str(self.config)]
        self._process = start(self._space, argv, self.log, {**self._env, **environ})
        waited = self.command("status", "--wait", f"{_READY_S}s")
        if waited.returncode != 0:
            said = (waited.stderr or waited.stdout).strip().splitlines() or ["no reason given"]
            raise LabFailureError(f"nameward node does not enforce: {said[-1]}")
        return time.monotonic() - started_at

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def command(self, *arguments: str, timeout_s: float = _READY_S + 10) -> subprocess.CompletedProcess[str]:
        """Run ``nameward ARGUMENTS --config …`` as a user would."""
        argv = [sys.executable, "-c", _MAIN, *arguments, "--config", str(self.config)]
        return run(self._space, argv, timeout_s=timeout_s, env=self._env)

    def ask(self, command: str, **arguments: object) -> list[Row]:
        """Ask the inspection socket; returns the rows, of all nodes if it knows of others.

        Raises OSError, or LabFailureError if it objects.
        """
        request = json.dumps({"command": command, **arguments}).encode() + b"\n"
        rows: list[Row] = []
        self.warned.clear()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as opened:
            opened.settimeout(LONG_S)
            opened.connect(str(self._inspect))
            opened.sendall(request)
            with opened.makefile("rb") as stream:
                for line in stream:
                    message = json.loads(line)
                    if "error" in message:
                        raise LabFailureError(f"inspect {command}: {message['error']}")
                    if message.get("end"):
                        break
                    if "row" in message:
                        rows.append(message["row"])
                    else:
                        self.warned.append(str(message["warning"]))
        return rows

    def grants(self, pod: str) -> list[Row]:
        """Return the live grants of one pod of the lab's namespace."""
        return self.ask("grants", namespace=places.NAMESPACE, pod=pod)

    def blocked(self, pod: str, **match: object) -> list[Row]:
        """Return the blocked lookups and packets of one pod whose fields equal ``match``."""
        rows = self.ask("blocked", namespace=places.NAMESPACE, pod=pod)
        return [row for row in rows if all(row.get(key) == value for key, value in match.items())]

    def await_blocked(self, pod: str, within_s: float = LONG_S, **match: object) -> Row | None:
        """Wait for a matching record; None if none comes in time."""
        found: list[Row] = []

        def seen() -> bool:
            found[:] = self.blocked(pod, **match)
            return bool(found)

        return found[-1] if wait_until(seen, within_s, 0.05) else None

    def status(self, node: str = "") -> Row:
        """Return this node's status object, or another's as this one knows it. Raises LookupError."""
        return self.ask("status", node=node or self.name)[0]

    def metric(self, name: str, label: str = "") -> float:
        """Return the sum of a metric's series whose labels have ``label`` as a value."""
        with self._space.socket(socket.AF_INET, socket.SOCK_STREAM) as opened:
            opened.settimeout(LONG_S)
            opened.connect(("127.0.0.1", _METRICS_PORT))
            opened.sendall(b"GET /metrics HTTP/1.0\r\nHost: lab\r\n\r\n")
            with opened.makefile("r") as stream:
                lines = stream.read().splitlines()
        series = (line.rpartition(" ") for line in lines if line.startswith((f"{name} ", f"{name}{{")))
        return sum(float(value) for labels, _, value in series if not label or f'="{label}"' in labels)

    def await_policy(self, changed: Mapping[str, object], within_s: float = LONG_S) -> bool:
        """Wait until the status shows another generation than ``changed`` (an earlier status) did."""
        return wait_until(lambda: self.status()["generation"] != changed["generation"], within_s, 0.005)

    @property
    def runs(self) -> bool:
        """Say whether it was started and is not stopped."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The id of its first process, the leash. Raises LabFailureError if it does not run."""
        if self._process is None:
            raise LabFailureError("nameward node is not running")
        return self._process.pid

    def worker(self, part: str) -> int:
        """Return the process id of the ``resolver`` (unprivileged) or the ``enforcer`` (root).

        Below the leash is the supervisor, below that only workers. Raises LabFailureError if there is none.
        """
        for pid in descendants(self.pid)[1:]:
            uid = uid_of(pid)
            if uid is not None and (uid != 0) == (part == "resolver"):
                return pid
        raise LabFailureError(f"nameward node has no {part} process")

    def kill(self, part: str) -> int:
        """Kill one worker as ``kill -9`` does; returns the id it had."""
        pid = self.worker(part)
        os.kill(pid, signal.SIGKILL)
        return pid

    def stop(self) -> None:
        """End it as systemd would."""
        if self._process is not None:
            stop(self._process)
            self._process = None
