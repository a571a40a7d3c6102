"""The controller as a process, by the chart's service account."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.charted import RELEASE, SPACE, install, until
from tests.cluster.real import RealApi

Json = dict[str, Any]
ACCOUNT = f"{RELEASE}-controller"
GOVERNED = {"nameward.dev/governed": "true"}


def account_of(api: RealApi) -> Path:
    """Install the chart's permissions; returns the kubeconfig of the controller's account."""
    install(api, "controller-rbac")
    return api.kubeconfig_as(SPACE, ACCOUNT)


class Controller:
    """One replica."""

    def __init__(self, kubeconfig: Path, folder: Path, name: str, lease: str = ACCOUNT) -> None:
        settings = {
            "node": name,
            "policy": {
                "source": "kubernetes",
                "kubernetes": {"kubeconfig": str(kubeconfig), "podNamespace": SPACE},
                "governedNamespaces": {"matchLabels": GOVERNED},
            },
            "enforcement": {"clusterCIDRs": ["10.0.0.0/8"]},
        }
        config = folder / f"{name}.yaml"
        config.write_text(yaml.safe_dump(settings))
        self._log = folder / f"{name}.log"
        self.health = str(folder / f"{name}.sock")
        command = [str(Path(sys.executable).with_name("nameward")), "controller"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--config", str(config), "--lease", lease, "--health", self.health],
                stdout=log,
                stderr=log,
            )

    def events(self) -> list[str]:
        """The names of the records that it wrote."""
        return [record["event"] for record in self.records()]

    def records(self) -> list[Json]:
        """The records that it wrote."""
        lines = self._log.read_text().rpartition("\n")[0].splitlines()  # what follows is being written
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        assert len(found) == len(lines), self._log.read_text()
        return found

    def wait_for(self, event: str, limit_s: float = 60.0) -> None:
        """Wait for a record."""
        until(lambda: self.process.poll() is not None or event in self.events(), event, limit_s)
        assert event in self.events(), self._log.read_text()

    def stop(self) -> int:
        """Ask it to end; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=30)
        finally:
            self.process.kill()
            self.process.wait()
