"""A machine of its own on this one: its processes, mounts and network are apart from the host's.

Owns a first process with namespaces of its own, in which programs are started. ``/run`` is memory of
its own. Never changes the host: mounts are private, kernel settings that kubelet would write look to
it as if they were written. Invariant: when the first process ends, the kernel ends everything else in
it, with every mount; it ends with this process, however that one ends.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from enforcer.demo.failure import CannotRunHereError, LabFailureError
from enforcer.demo.kube.program import Program
from enforcer.demo.processes import LONG_S, wait_until
from enforcer.demo.spaces import Space

_CGROUPS = Path("/sys/fs/cgroup")
_PREFIX = "nameward-demo-"
_WANTED_BY_KUBELET = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""What kubelet would set for the whole host if it did not find it (setupKernelTunables)."""

_START = """
set -e
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/machine/cgroup /run/netns /run/lock
mount --rbind /sys/fs/cgroup /run/machine/cgroup
mount -t sysfs sysfs /sys
mount --rbind /run/machine/cgroup /sys/fs/cgroup
umount -l /run/machine/cgroup
{settings}
mount --make-rshared /
touch /run/machine/ready
trap : TERM
while :; do sleep 3600; done
"""
"""The loop waits for any child: so nobody stays a zombie."""


class Machine:
    """Its network is ``space``; make one, ``start`` it, run programs in it, ``stop`` it."""

    def __init__(self, space: Space, log: Path) -> None:
        self.space = space
        self.cgroup = f"{_PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
        settings = "\n".join(
            f"echo {value} >/run/machine/{index}\nmount --bind /run/machine/{index} /proc/sys/{path}"
            for index, (path, value) in enumerate(_WANTED_BY_KUBELET.items())
            if Path("/proc/sys", path).exists()
        )
        script = _START.format(settings=settings)
        apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc"]
        apart += ["--propagation", "slave"]  # what the host unmounts is not held here
        self._first = Program("machine", [*apart, "sh", "-c", script], log, space=space)

    def start(self) -> None:
        """Make it. Raises CannotRunHereError where this machine forbids that."""
        remove_leftovers()
        self._first.start()
        ready = wait_until(lambda: not self._first.runs or self._is_ready(), LONG_S)
        if not ready or not self._first.runs:
            raise CannotRunHereError(
                "A machine with processes and mounts of its own cannot be made here (in a container: "
                f"--privileged is needed): {self._first.tail()}"
            )
        for folder in _controllers():
            (folder / self.cgroup).mkdir(exist_ok=True)

    @property
    def pid(self) -> int:
        """The host's id of its first process. Raises LabFailureError if there is none."""
        return self._first.child_pid

    def _is_ready(self) -> bool:
        try:
            return self.path("/run/machine/ready").exists()
        except LabFailureError:
            return False

    def path(self, inside: str) -> Path:
        """Where the host sees a file of the machine."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def entering(self, argv: Sequence[str]) -> list[str]:
        """The command that runs ``argv`` in the machine, as its root."""
        return ["nsenter", "-t", str(self.pid), "-p", "-m", "-u", "-i", "-n", "--", *argv]

    def program(self, name: str, argv: Sequence[str], log: Path) -> Program:
        """A long-lived program of the machine, not started yet."""
        return Program(name, self.entering(argv), log, is_wrapped=True)

    def run(self, argv: Sequence[str], text: str = "", timeout_s: float = 60.0) -> str:
        """Run a program in the machine and return what it printed. Raises LabFailureError if it fails."""
        done = subprocess.run(  # noqa: S603 (arguments are the lab's own)
            self.entering(argv), input=text, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if done.returncode != 0:
            raise LabFailureError(f"{shlex.join(argv)}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def stop(self) -> None:
        """End everything in it at once, and remove its control groups."""
        self._first.stop(grace_s=0)
        wait_until(lambda: _removed(self.cgroup), 10.0, pause_s=0.05)


def remove_leftovers() -> list[str]:
    """Remove the control groups of machines whose maker is gone; returns their names."""
    gone: set[str] = set()
    for folder in _controllers():
        for group in folder.glob(f"{_PREFIX}*"):
            maker = group.name.removeprefix(_PREFIX).partition("-")[0]
            if not Path("/proc", maker).exists() and _removed(group.name):
                gone.add(group.name)
    return sorted(gone)


def _controllers() -> list[Path]:
    """The roots of the control groups: one (version 2), or one for each controller (version 1)."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [folder for folder in _CGROUPS.iterdir() if folder.is_dir() and not folder.is_symlink()]


def _removed(name: str) -> bool:
    """Remove a control group and those below it; say whether all are gone."""
    for root in _controllers():
        group = root / name
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        if group.exists():
            return False
    return True
