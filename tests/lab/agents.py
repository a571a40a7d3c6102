"""Pods of the DaemonSet in the lab, an enforcer and a resolver each, and lookups that none may lose."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import enforcer
from enforcer.demo import places
from enforcer.demo.flood import Counts, Flood, Plan
from enforcer.demo.processes import LONG_S, descendants, start, stop, wait_until
from enforcer.demo.scenes import Stage
from enforcer.demo.spaces import Space
from enforcer.demo.ward import Ward, configuration
from enforcer.health import Told, ask

MAIN = "import sys; from enforcer.cli import main; sys.exit(main())"
LEAST = "-all,+net_admin,+setuid,+chown"
"""What the enforcer's container may have."""
RATE = 200.0


class AgentPod:
    """One pod of the DaemonSet: two containers, which share runtimeDir with every other pod of the node."""

    def __init__(
        self, space: Space, folder: Path, config: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        folder.mkdir()
        self.log = folder / "log"
        self._health = {part: folder / f"{part}.sock" for part in ("enforcer", "resolver")}
        env = {**os.environ, "PYTHONPATH": str(Path(enforcer.__file__).parents[1]), **(environ or {})}
        nameward = [sys.executable, "-c", MAIN]
        self.parts: dict[str, subprocess.Popen[bytes]] = {}

        def begin(part: str) -> None:
            argv = [*nameward, part, "--config", str(config), "--health", str(self._health[part])]
            if part == "enforcer":
                argv = ["setpriv", f"--bounding-set={LEAST}", "--no-new-privs", *argv, "--take-over"]
            self.parts[part] = start(space, argv, self.log, env)

        self._begin = begin
        for part in self._health:
            begin(part)

    def says(self, part: str) -> Told | None:
        """What a container says of itself; None while nobody answers."""
        try:
            return ask(str(self._health[part]), 10)
        except OSError:
            return None

    @property
    def is_ready(self) -> bool:
        """As the kubelet sees it: both containers are."""
        return all((told := self.says(part)) is not None and told.ready for part in self.parts)

    def await_ready(self) -> None:
        """Wait for it; the log says why not."""
        ready = wait_until(lambda: self.is_ready, LONG_S, 0.05)
        assert ready, f"{[self.says(part) for part in self.parts]} {self.log.read_text()[-3000:]}"

    def kill(self) -> None:
        """Kill every process of it, as a node's OOM killer might."""
        for process in self.parts.values():
            _kill_below(process)

    def replace(self, part: str) -> None:
        """Kill one container with all that runs in it, and start it again, as the kubelet does."""
        process = self.parts[part]
        _kill_below(process)
        process.wait(LONG_S)
        self._begin(part)

    def stop(self) -> None:
        """SIGTERM to both, as the kubelet does."""
        for process in self.parts.values():
            process.terminate()
        for process in self.parts.values():
            stop(process)


def _kill_below(process: subprocess.Popen[bytes]) -> None:
    for pid in descendants(process.pid):
        with contextlib.suppress(ProcessLookupError):  # it ended with its parent
            os.kill(pid, signal.SIGKILL)


def configured(ward: Ward, processes: int = 1, **changes: Any) -> Path:
    """Write the configuration of the lab's DaemonSet; ``changes`` as ``configuration``'s.

    A hold may be long: a slow machine loses nothing by it. ``processes``: of the resolver.
    """
    folder = ward.config.parent
    dns = {"upstreams": [places.UPSTREAM4], "holdTimeout": "4s", "deadline": "4.5s", "processes": processes}
    config = folder / ("agent.yaml" if processes == 1 else f"agent-{processes}.yaml")
    settings = configuration(folder, [folder / "manifests"], dns=dns, **changes)
    config.write_text(yaml.safe_dump(settings))
    return config


def flooded(stage: Stage) -> Flood:
    """Two hundred lookups a second whose answers live for a second: the kernel is needed each time."""
    flood = Flood(
        stage.bulk.space, Plan(places.CLUSTER_DNS, places.BULK_NAMES, rate=RATE, most_open=50, port=443)
    )
    assert wait_until(lambda: flood.counts().answered >= RATE, LONG_S, 0.1)
    return flood


def goes_on(flood: Flood, seconds: float = 1.5) -> None:
    """Wait until so many more lookups were answered as that takes."""
    before = flood.counts().answered
    assert wait_until(lambda: flood.counts().answered >= before + seconds * RATE, LONG_S, 0.1)


def none_is_lost(counts: Counts) -> None:
    """Every lookup was answered, each answer led somewhere, none by a failure that a client would believe."""
    assert counts.lost == counts.unreached == 0, counts
    assert set(counts.failures) <= {"TIMEOUT"}, counts
