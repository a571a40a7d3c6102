"""The Nameward of a cluster: installed with Helm, asked by its node's inspection socket, killed, removed.

Owns the release. Everything it knows comes from the command line, the inspection socket or the API,
as for any administrator.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from enforcer.demo import places
from enforcer.demo.failure import LabFailureError
from enforcer.demo.kube import images
from enforcer.demo.kube.cluster import Cluster
from enforcer.demo.processes import parent_of
from enforcer.demo.ward import Settings, Ward

RELEASE, NAMESPACE = "nameward", "nameward-system"
AGENT = f"{RELEASE}-agent"
RUNTIME_DIR = "/run/nameward"
_INSTALL_S = 180


def values(**changes: Settings) -> Settings:
    """Return the chart's values for the lab: its addresses, its grace; ``changes`` of sections of config."""
    config: Settings = {
        "dns": {"upstreams": [places.UPSTREAM4, places.UPSTREAM6]},
        "enforcement": {
            "podInterfaces": ["veth"],
            "clusterCIDRs": [*places.ALL_CLUSTER_CIDRS, "fd00:10:96::/112", "172.31.255.0/30"],
            "grace": f"{places.GRACE_S}s",
        },
        "limits": {"queriesPerSecond": 20000},
    }
    for section, change in changes.items():
        config[section] = {**config.get(section, {}), **change}
    return {
        "image": {"repository": images.NAME, "tag": images.TAG, "pullPolicy": "Never"},
        "config": config,
    }


class ClusterWard(Ward):
    """The release on the cluster's only node."""

    def __init__(self, cluster: Cluster, **changes: Settings) -> None:
        self.cluster = cluster
        runtime_dir = cluster.machine.path(RUNTIME_DIR)
        self.values = values(**changes)
        settings = {
            "node": places.HOME.name,
            "policy": {"source": "kubernetes", "governedNamespaces": [places.NAMESPACE]},
            "runtimeDir": str(runtime_dir),
            **self.values["config"],
        }
        super().__init__(cluster.space, cluster.folder, settings)
        self._inspect = runtime_dir / "inspect.sock"
        self._is_installed = False

    def start(self, **_environ: str) -> float:
        """Install the chart and wait until everything of it is ready; returns the seconds that took.

        Raises LabFailureError when it does not; ``tail`` shows why.
        """
        started_at = time.monotonic()
        self._is_installed = True
        self.install()
        waited = self.command("status", "--wait", "30s")
        if waited.returncode != 0:
            raise LabFailureError(f"the node does not enforce: {waited.stderr.strip()}")
        return time.monotonic() - started_at

    def install(self, *arguments: str) -> None:
        """Install or upgrade the release and wait for it. Raises LabFailureError with Helm's words."""
        done = self.cluster.run(
            "helm", "upgrade", "--install", RELEASE, str(images.CHART), "-n", NAMESPACE, "--create-namespace",
            "-f", str(self.values_file()), "--wait", f"--timeout={_INSTALL_S}s", *arguments,
            timeout_s=_INSTALL_S + 60,
        )  # fmt: skip
        if done.returncode != 0:
            raise LabFailureError(f"helm: {done.stderr.strip()}")

    def values_file(self) -> Path:
        """Write the chart's values; returns the file."""
        path = self.cluster.folder / "values.json"
        path.write_text(json.dumps(self.values, indent=1))
        return path

    def tail(self, lines: int = 15) -> str:
        """Return what its pods are and the last lines of their logs."""
        said = [self.cluster.run("kubectl", "get", "pods", "-n", NAMESPACE, "-o", "wide").stdout]
        for part in (f"daemonset/{AGENT}", f"deployment/{RELEASE}-controller"):
            logs = ("logs", part, "-n", NAMESPACE, "--all-containers", "--prefix", f"--tail={lines}")
            done = self.cluster.run("kubectl", *logs)
            said.append(done.stdout or done.stderr)
        return "\n".join(said)

    @property
    def runs(self) -> bool:
        """Say whether it was installed and not removed."""
        return self._is_installed

    def pods(self) -> list[str]:
        """Return the uids of the agent's pods that exist now."""
        listed = self.cluster.get(
            "pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=agent",
            "--field-selector=status.phase=Running",
        )  # fmt: skip
        return [str(pod["metadata"]["uid"]) for pod in listed["items"]]

    def worker(self, part: str) -> int:
        """Return the host's process id of the ``resolver`` or the ``enforcer``: the child of its supervisor.

        Raises LabFailureError if there is none. Needs no API server.
        """
        running = [pid for pid in self.cluster.processes_of() if part in _arguments(pid)]
        for pid in running:
            if parent_of(pid) in running:
                return pid
        raise LabFailureError(f"the agent has no {part} process")

    def supervisor(self, part: str) -> int:
        """Return the host's process id of the first process of a container. Raises LabFailureError."""
        above = parent_of(self.worker(part))
        if above is None:
            raise LabFailureError(f"the agent's {part} has just ended")
        return above

    def kill(self, part: str) -> int:
        """Kill one worker as ``kill -9`` does; returns the id it had."""
        pid = self.worker(part)
        os.kill(pid, signal.SIGKILL)
        return pid

    def stop(self) -> None:
        """Remove the release as an administrator does. Raises LabFailureError."""
        if self._is_installed:
            self._is_installed = False
            self.cluster.helm("uninstall", RELEASE, "-n", NAMESPACE, "--wait", f"--timeout={_INSTALL_S}s")


def _arguments(pid: int) -> list[str]:
    """The command line of one of our processes; empty if it is not ours or gone."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []
    return words if any(word.endswith("/nameward") for word in words[:2]) else []
