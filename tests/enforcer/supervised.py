"""A supervisor with small programs in place of the two daemons, for the tests of what it does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = """
import os, pathlib, signal
folder = pathlib.Path(os.environ["FOLDER"])

def preload():
    with (folder / "loaded").open("a") as loaded:
        children = pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        loaded.write(f"{KIND} beside {len(children)}\\n")

def run(config_path, sockets):
    if "usage" in os.environ:
        return 2
    signal.signal(signal.SIGHUP, reloaded)
    signal.signal(signal.SIGTERM, ignored if "stubborn " + KIND in os.environ else ended)
    links = [f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd") if int(n) > 2]
    descriptors = sorted(os.readlink(link) for link in links if os.path.lexists(link))
    global order
    says = os.open(folder / ("pulse-1" if "number" in sockets else "pulse"), os.O_RDONLY | os.O_CREAT)
    order = (folder / "order").open("a")
    with (folder / f"{KIND}.lives").open("a") as lives:
        lives.write(f"{os.getpid()} {','.join(sockets)} {'|'.join(descriptors)}\\n")
    if KIND == "resolver" and os.geteuid() == 0:
        os.setgroups([]); os.setresgid(65353, 65353, 65353); os.setresuid(65353, 65353, 65353)
    if "orphans" in os.environ and KIND == "enforcer":
        with (folder / "orphan").open("w") as orphan:
            orphan.write(str(orphaned()))
    while True:
        if "pulse" in sockets and sockets["pulse"].recv(16) and os.pread(says, 500, 0) != b"mute":
            sockets["pulse"].send(os.pread(says, 500, 0) or b"-")  # nothing would be the end of it
        signal.sigtimedwait([], 0.05)

def orphaned():
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        orphan = os.fork()
        if orphan:
            os.write(tell, str(orphan).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return int(os.read(told, 16))

def reloaded(*_):
    order.write(KIND + " reloaded\\n")
    order.flush()

def ended(*_):
    order.write(KIND + " ended\\n")
    order.flush()
    os._exit(0)

def ignored(*_):
    pass
"""
PARENT = """
import ctypes, os, socket, sys
from enforcer.supervisor import Node, Supervisor, SupervisorError
from enforcer.workers import Worker, preload
workers = [Worker("enforcer", "fake_enforcer", True), Worker("resolver", "fake_resolver", False)]
workers = [worker for worker in workers if worker.name in os.environ.get("WORKERS", "enforcer resolver")]
workers += [Worker("resolver-1", "fake_resolver", False, 1)] * ("SECOND" in os.environ)
for worker in workers:
    if worker.authority:
        preload(worker)
if "REAPER" in os.environ:
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: as a container's first process
def sockets(given):
    if given:
        return dict(given)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    print(udp.getsockname()[1], flush=True)
    return {"udp4": udp}
try:
    health, takes_over = os.environ.get("HEALTH", ""), "TAKES_OVER" in os.environ
    node = Node("n", "c.yaml", os.environ["RUNTIME"], drain_s=0.5, health=health, takes_over=takes_over)
    sys.exit(Supervisor(node, workers, os.environ).run(sockets))
except SupervisorError as error:
    sys.exit(str(error))
"""


class Running:
    """A supervisor with its two fake workers, and the files by which they speak."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.folder = folder
        for kind in ("enforcer", "resolver"):
            (folder / f"fake_{kind}.py").write_text(PROGRAM.replace("KIND", repr(kind)))
        self.runtime = folder / "run"
        own = {"FOLDER": str(folder), "RUNTIME": str(self.runtime)}
        own["PYTHONPATH"] = os.pathsep.join((str(folder), os.getcwd()))
        self.process = subprocess.Popen(
            [sys.executable, "-c", PARENT],
            env={**os.environ, **own, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def lives(self, kind: str) -> list[list[str]]:
        """[pid, names of sockets, descriptors] of every life so far."""
        path = self.folder / f"{kind}.lives"
        return [line.split(" ") for line in path.read_text().splitlines()] if path.exists() else []

    def told(self) -> list[str]:
        """What the workers wrote down, in its order."""
        return (self.folder / "order").read_text().splitlines()

    def pid(self, kind: str, life: int = 0) -> int:
        """Wait for that life of the worker."""
        until(lambda: len(self.lives(kind)) > life)
        return int(self.lives(kind)[life][0])

    def end(self) -> None:
        """Leave neither it nor a worker."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        for kind in ("enforcer", "resolver"):
            for life in self.lives(kind):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(life[0]), signal.SIGKILL)


def until(holds: Callable[[], bool], limit_s: float = 30.0) -> None:
    """Poll until it holds."""
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, "did not come about in time"
        time.sleep(0.005)


def ended(pid: int) -> bool:
    """Whether the process is gone (or a zombie of a parent that is not ours)."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


@contextmanager
def supervised(folder: Path, environ: dict[str, str]) -> Iterator[Running]:
    """A supervisor; afterwards neither it nor a worker is left."""
    running = Running(folder, environ)
    try:
        yield running
    finally:
        running.end()
