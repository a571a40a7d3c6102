"""Containers of the image by runc alone: files, a process, what it may; no daemon, no registry."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enforcer.demo.processes import wait_until

LONG_S = 60.0
Json = dict[str, Any]


@dataclass(frozen=True)
class Image:
    """An unpacked image: its configuration, and its files."""

    config: Json
    root: Path

    @property
    def environ(self) -> list[str]:
        """Its variables, as ``NAME=value``."""
        found: list[str] = self.config["config"]["Env"]
        return found

    @property
    def entrypoint(self) -> list[str]:
        """What every container of it runs."""
        found: list[str] = self.config["config"]["Entrypoint"]
        return found


def unpacked(archive: Path, folder: Path) -> Image:
    """Unpack a docker archive; layer upon layer, as they stand in its manifest."""
    root = folder / "rootfs"
    root.mkdir()
    with tarfile.open(archive) as whole:

        def read(name: str) -> bytes:
            member = whole.extractfile(name)
            assert member is not None
            with member:
                return member.read()

        [manifest] = json.loads(read("manifest.json"))
        config = json.loads(read(manifest["Config"]))
        for layer in manifest["Layers"]:
            whole_layer = folder / "layer.tar"
            whole_layer.write_bytes(read(layer))
            subprocess.run(["tar", "-xpf", str(whole_layer), "-C", str(root)], check=True)
            whole_layer.unlink()
    return Image(config, root)


@dataclass(frozen=True)
class Mount:
    """A folder of ours in a container."""

    source: Path
    at: str
    is_writable: bool = False


@dataclass(frozen=True)
class Rights:
    """Who a container's process is, and what it may."""

    uid: int = 0
    capabilities: Sequence[str] = ()


@dataclass
class Container:
    """One container, its root file system read-only, in a network that is there already."""

    name: str
    image: Image
    folder: Path
    """Its bundle, and runc's state."""
    arguments: Sequence[str]
    rights: Rights
    network: str
    mounts: Sequence[Mount] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> Container:
        """Run it, its output into ``log``."""
        self.folder.mkdir(parents=True)
        (self.folder / "config.json").write_text(json.dumps(self._bundle()))
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._runc, "run", "--bundle", str(self.folder), self.name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self

    @property
    def log(self) -> Path:
        """What it wrote."""
        return self.folder / "log"

    @property
    def _runc(self) -> list[str]:
        return ["runc", "--root", str(self.folder / "runc")]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as a probe does; never raises for its exit code."""
        return subprocess.run(
            [*self._runc, "exec", self.name, *arguments],
            capture_output=True,
            text=True,
            timeout=LONG_S,
            check=False,
        )

    @property
    def _runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> int:
        """SIGTERM to its first process; returns its exit code, after SIGKILL if that does not end it."""
        process = self._process
        if process is None:
            return 0
        try:
            if process.poll() is None:
                subprocess.run([*self._runc, "kill", self.name, "TERM"], capture_output=True, check=False)
            return process.wait(LONG_S)
        finally:
            subprocess.run([*self._runc, "delete", "--force", self.name], capture_output=True, check=False)

    def await_ready(self, path: str) -> None:
        """Wait for its health, asked as the kubelet asks."""
        said: list[str] = []

        def ready() -> bool:
            done = self.run("nameward", "health", "--ready", path)
            said[:] = [done.stdout, done.stderr]
            return done.returncode == 0 or not self._runs

        in_time = wait_until(ready, LONG_S, 0.2)
        assert (in_time, self._runs) == (True, True), f"{said} {self.log.read_text()[-3000:]}"

    def _bundle(self) -> Json:
        capabilities = {
            kind: list(self.rights.capabilities) for kind in ("bounding", "effective", "permitted")
        }
        binds = [
            {
                "destination": mount.at,
                "type": "bind",
                "source": str(mount.source),
                "options": ["rbind", "nosuid", "nodev", "rw" if mount.is_writable else "ro"],
            }
            for mount in self.mounts
        ]
        uid = self.rights.uid
        more = [f"{name}={value}" for name, value in self.environ.items()]
        return {
            "ociVersion": "1.0.2",
            "process": {
                "terminal": False,
                "user": {"uid": uid, "gid": uid},
                "args": [*self.image.entrypoint, *self.arguments],
                "env": [*self.image.environ, *more],
                "cwd": "/",
                "capabilities": capabilities,
                "noNewPrivileges": True,
            },
            "root": {"path": str(self.image.root), "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {**_tmpfs("/dev", "0755"), "options": ["nosuid", "mode=755", "size=64k"]},
                _tmpfs("/run", "0755"),
                *binds,
                _tmpfs("/run/health", "0777"),
            ],
            "linux": {
                "namespaces": [
                    *({"type": kind} for kind in ("pid", "ipc", "uts", "mount")),
                    {"type": "network", "path": self.network},
                ],
                "cgroupsPath": f"/nameward-image-test/{self.name}",
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            },
        }


def _tmpfs(at: str, mode: str) -> Json:
    options = ["nosuid", "nodev", f"mode={mode}", "size=1m"]
    return {"destination": at, "type": "tmpfs", "source": "tmpfs", "options": options}
