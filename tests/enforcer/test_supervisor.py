"""The supervisor against real processes: small programs in place of the two daemons."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enforcer.health import Told, ask
from enforcer.tenure import Lock
from enforcer.workers import pause_s

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


@pytest.fixture
def environ() -> dict[str, str]:
    """What a test adds to the supervisor's environment."""
    return {}


@pytest.fixture
def running(tmp_path: Path, environ: dict[str, str]) -> Iterator[Running]:
    """A supervisor; afterwards neither it nor a worker is left."""
    it = Running(tmp_path, environ)
    yield it
    if it.process.poll() is None:
        it.process.kill()
    it.process.communicate()
    for kind in ("enforcer", "resolver"):
        for life in it.lives(kind):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(life[0]), signal.SIGKILL)


def test_a_worker_gets_only_what_is_its_own(running: Running) -> None:
    """The enforcer has the DNS sockets, the lock, the life line; the resolver the life line and its pulse."""
    running.pid("enforcer")
    running.pid("resolver")
    _, names, descriptors = running.lives("enforcer")[0]
    assert names == "udp4"
    assert [kept.partition(":")[0].rpartition("/")[2] for kept in descriptors.split("|")] == [
        "lock",
        "pipe",
        "socket",
    ]
    _, names, descriptors = running.lives("resolver")[0]
    assert names == "pulse"
    assert [kept.partition(":")[0] for kept in descriptors.split("|")] == ["pipe", "socket"]


def test_the_resolvers_code_is_loaded_while_the_enforcer_starts(running: Running) -> None:
    """Once, in the supervisor: the enforcer has more to do, and waits for no code but its own."""
    running.pid("enforcer")
    os.kill(running.pid("resolver"), signal.SIGKILL)
    running.pid("resolver", 1)
    assert (running.folder / "loaded").read_text() == "enforcer beside 0\nresolver beside 1\n"


@pytest.mark.parametrize("kind", ["enforcer", "resolver"])
def test_a_killed_worker_is_back_within_200_ms_and_no_query_is_lost(running: Running, kind: str) -> None:
    """kill -9: a new process sits there at once; what was sent meanwhile waits in the socket."""
    assert running.process.stdout is not None
    port = int(running.process.stdout.readline())
    first, other = running.pid(kind), running.pid({"enforcer": "resolver", "resolver": "enforcer"}[kind])
    killed_at = time.monotonic()
    os.kill(first, signal.SIGKILL)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        assert client.send(b"asked while nobody was there") == 28  # else ECONNREFUSED
    assert running.pid(kind, 1) != first
    assert time.monotonic() - killed_at < 5  # generous: a timed test would be flaky; make bench measures it
    assert not ended(other)


def test_sigterm_ends_the_resolver_first_and_exits_0(running: Running) -> None:
    """The resolver drains with the enforcer's help, so the enforcer ends last."""
    running.pid("enforcer")
    running.pid("resolver")
    running.process.terminate()
    assert running.process.wait(10) == 0
    assert running.told() == ["resolver ended", "enforcer ended"]


def test_sighup_reaches_both(running: Running) -> None:
    """A reload is the workers' matter; nobody ends."""
    running.pid("enforcer")
    running.pid("resolver")
    running.process.send_signal(signal.SIGHUP)
    until(lambda: sorted(running.told()) == ["enforcer reloaded", "resolver reloaded"])
    assert running.process.poll() is None


def test_workers_end_with_a_killed_supervisor(running: Running) -> None:
    """kill -9 of the supervisor: no worker is left, also not one that dropped its privileges."""
    pids = [running.pid("enforcer"), running.pid("resolver")]
    running.process.kill()
    until(lambda: all(ended(pid) for pid in pids))


@pytest.mark.parametrize("environ", [{"stubborn resolver": "1"}])
def test_a_worker_that_does_not_drain_is_killed(running: Running) -> None:
    """SIGTERM is not enough for it: SIGKILL follows, and it is said."""
    running.pid("enforcer")
    running.pid("resolver")
    running.process.terminate()
    _, errors = running.process.communicate(timeout=20)
    assert running.process.returncode == 0
    assert json.loads(errors.splitlines()[0])["event"] == "process.killed"


@pytest.mark.parametrize("environ", [{"usage": "1"}])
def test_a_configuration_that_a_worker_refuses_ends_everything_with_2(running: Running) -> None:
    """Starting it again would not help."""
    assert running.process.wait(10) == 2


def test_one_runtime_folder_has_one_owner(running: Running, tmp_path: Path) -> None:
    """A second supervisor waits for the first, which ends: then it takes over, the lock is its own."""
    running.pid("enforcer")
    lock = running.runtime / "lock"
    assert lock.read_text() == f"{running.process.pid}\n"
    second = tmp_path / "second"
    second.mkdir()
    other = Running(second, {"RUNTIME": str(running.runtime)})
    try:
        running.process.terminate()
        running.process.wait(10)
        other.pid("enforcer")
        assert lock.read_text() == f"{other.process.pid}\n"
    finally:
        other.process.terminate()
        other.process.communicate(timeout=10)


def test_nobody_else_can_hold_the_lock(tmp_path: Path) -> None:
    """flock needs no more than an open file: a hijacked resolver would wait for it, and keep it for good."""
    (tmp_path / "lock").touch(0o644)
    held = Lock(str(tmp_path))
    assert held.try_to_take()
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    held.let_go()


class TestSeveralResolvers:
    """Two resolvers (``dns.processes``)."""

    @pytest.fixture
    def environ(self, tmp_path: Path) -> dict[str, str]:
        """A second resolver, and a supervisor that answers for the pod of both."""
        (tmp_path / "pulse").write_bytes(b"+")
        return {"SECOND": "1", "WORKERS": "resolver", "HEALTH": str(tmp_path / "health")}

    def test_each_has_its_number_and_comes_back_with_it(self, running: Running) -> None:
        """One that dies does not touch the other."""
        until(lambda: len(running.lives("resolver")) == 2)
        first, second = sorted(running.lives("resolver"), key=lambda life: len(life[1]))
        assert (first[1], second[1]) == ("pulse", "number,pulse")
        os.kill(int(second[0]), signal.SIGKILL)
        until(lambda: len(running.lives("resolver")) == 3)
        assert running.lives("resolver")[2][1] == "number,pulse"
        assert not ended(int(first[0]))

    def test_the_pod_is_ready_when_both_are(self, running: Running) -> None:
        """And says what is missing of the one that is not."""

        def told() -> Told:
            with contextlib.suppress(OSError):
                return ask(str(running.folder / "health"), 10)
            return Told(live=False, ready=False, said="")

        until(lambda: told().live)
        (running.folder / "pulse-1").write_bytes(b"-no policy was loaded yet")
        until(lambda: told() == Told(live=True, ready=False, said="no policy was loaded yet"))
        (running.folder / "pulse-1").write_bytes(b"+")
        until(lambda: told().ready)


class TestNotify:
    """sd_notify(3)."""

    @pytest.fixture
    def manager(self, tmp_path: Path) -> Iterator[socket.socket]:
        """The service manager's socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(tmp_path / "notify"))
            manager.settimeout(10)
            yield manager

    @pytest.fixture
    def environ(self, manager: socket.socket, tmp_path: Path) -> dict[str, str]:
        """Where the supervisor finds the service manager."""
        return {"NOTIFY_SOCKET": str(tmp_path / "notify")}

    @pytest.fixture
    def inspection(self, running: Running) -> Iterator[socket.socket]:
        """The enforcer's inspection socket; the test answers there."""
        running.pid("enforcer")
        with socket.socket(socket.AF_UNIX) as inspection:
            inspection.bind(str(running.runtime / "inspect.sock"))
            inspection.listen()
            inspection.settimeout(10)
            yield inspection

    def test_ready_is_said_when_the_node_enforces_and_its_resolver_has_the_policy(
        self, manager: socket.socket, inspection: socket.socket, running: Running
    ) -> None:
        """Not before: first the reasons why not are its status, each once."""
        pulse = running.folder / "pulse"
        self._answer(inspection, enforcing=False, problems=["the guard table is missing"])
        assert manager.recv(500) == b"STATUS=not enforcing: the guard table is missing"
        pulse.write_bytes(b"-no policy was loaded yet")
        self._answer_until(
            manager, inspection, b"STATUS=not ready: the resolver says: no policy was loaded yet"
        )
        pulse.write_bytes(b"+")
        self._answer_until(manager, inspection, b"READY=1\nSTATUS=enforcing")
        running.process.terminate()
        assert manager.recv(500) == b"STOPPING=1"

    def test_a_node_whose_resolver_never_answers_is_not_ready(
        self, manager: socket.socket, inspection: socket.socket, running: Running
    ) -> None:
        """However often the enforcer says that it enforces."""
        (running.folder / "pulse").write_bytes(b"mute")
        for _ in range(20):
            self._answer(inspection, enforcing=True, problems=[])
        assert manager.recv(500) == b"STATUS=not ready: the resolver does not answer yet"
        manager.settimeout(0)
        with pytest.raises(BlockingIOError):
            manager.recv(500)

    def test_a_resolver_tells_the_service_manager_nothing_but_words(
        self, manager: socket.socket, inspection: socket.socket, running: Running
    ) -> None:
        """A hijacked one chooses its sentence: no line of it is a state of the service."""
        (running.folder / "pulse").write_bytes(b"-me\nREADY=1\nMAINPID=1\x1b[2J" + b"x" * 400)
        said = b"STATUS=not ready: the resolver says: me READY=1 MAINPID=1 [2J"
        self._answer_until(manager, inspection, said + b"x" * (200 + len(b"STATUS=not ready: ") - len(said)))

    def _answer_until(self, manager: socket.socket, inspection: socket.socket, said: bytes) -> None:
        """Enforce, until that is said; nothing else may be but that the resolver was not heard yet."""
        heard, until_s = b"", time.monotonic() + 30
        manager.settimeout(0)
        while heard != said:
            assert time.monotonic() < until_s, f"not said; but {heard!r}"
            assert heard in {b"", b"STATUS=not ready: the resolver does not answer yet"}, heard
            inspection.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                self._answer(inspection, enforcing=True, problems=[])
            with contextlib.suppress(BlockingIOError):
                heard = manager.recv(1000)
        manager.settimeout(10)

    def _answer(self, inspection: socket.socket, **row: object) -> None:
        peer, _ = inspection.accept()
        with peer:
            assert json.loads(peer.recv(500)) == {"command": "status"}
            peer.sendall(json.dumps({"row": row}).encode() + b'\n{"end": true}\n')


def test_a_crash_loop_is_slowed_and_a_single_death_is_not() -> None:
    """The first deaths cost nothing, later ones ever more, 5 s at most."""
    pauses = [pause_s(lives) for lives in range(12)]
    assert pauses[:4] == [0, 0, 0, 0]
    assert pauses[4:] == sorted(pauses[4:])
    assert pauses[-1] == 5.0
