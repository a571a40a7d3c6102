"""The supervisor against real processes: small programs in place of the two daemons."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.health import Told, ask
from enforcer.tenure import Lock
from enforcer.workers import pause_s
from tests.enforcer.supervised import Running, ended, supervised, until


@pytest.fixture
def environ() -> dict[str, str]:
    """What a test adds to the supervisor's environment."""
    return {}


@pytest.fixture
def running(tmp_path: Path, environ: dict[str, str]) -> Iterator[Running]:
    """A supervisor with its workers."""
    with supervised(tmp_path, environ) as running:
        yield running


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
def test_a_killed_worker_is_back_at_once_and_no_query_is_lost(running: Running, kind: str) -> None:
    """kill -9: a new process sits there at once; what was sent meanwhile waits in the socket."""
    assert running.process.stdout is not None
    port = int(running.process.stdout.readline())
    first, other = running.pid(kind), running.pid({"enforcer": "resolver", "resolver": "enforcer"}[kind])
    os.kill(first, signal.SIGKILL)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        assert client.send(b"asked while nobody was there") == 28  # else ECONNREFUSED
    assert running.pid(kind, 1) != first
    assert not ended(other)


def test_sigterm_ends_the_resolver_first_and_exits_0(running: Running) -> None:
    """The resolver drains with the enforcer's help, so the enforcer ends last."""
    running.pid("enforcer")
    running.pid("resolver")
    running.process.terminate()
    assert running.process.wait(60) == 0
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
    _, errors = running.process.communicate(timeout=60)
    assert running.process.returncode == 0
    assert json.loads(errors.splitlines()[0])["event"] == "process.killed"


@pytest.mark.parametrize("environ", [{"usage": "1"}])
def test_a_configuration_that_a_worker_refuses_ends_everything_with_2(running: Running) -> None:
    """Starting it again would not help."""
    assert running.process.wait(60) == 2


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
        running.process.wait(60)
        other.pid("enforcer")
        assert lock.read_text() == f"{other.process.pid}\n"
    finally:
        other.process.terminate()
        other.process.communicate(timeout=60)


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


def test_a_crash_loop_is_slowed_and_a_single_death_is_not() -> None:
    """The first deaths cost nothing, later ones ever more, 5 s at most."""
    pauses = [pause_s(lives) for lives in range(12)]
    assert pauses[:4] == [0, 0, 0, 0]
    assert pauses[4:] == sorted(pauses[4:])
    assert pauses[-1] == 5.0
