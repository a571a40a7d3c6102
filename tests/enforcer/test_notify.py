"""What the supervisor believes of its workers before it says READY=1, and what it tells meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.health import Pulse
from enforcer.notify import Notifier, Readiness
from tests.enforcer.supervised import Running, supervised, until

NOT_HEARD = {
    b"STATUS=not ready: the resolver does not answer yet",
    b"STATUS=not ready: the resolver-1 does not answer yet",
}


class Stage:
    """A readiness with a service manager, an enforcer to ask, and what else is missing."""

    def __init__(self, folder: Path, manager: socket.socket) -> None:
        manager.settimeout(0)
        self.path = folder / "inspect.sock"
        self.manager = manager
        self.selector = selectors.DefaultSelector()
        self.missing = "a resolver"
        notifier = Notifier({"NOTIFY_SOCKET": str(folder / "notify")})
        self.readiness = Readiness(str(self.path), self.selector, notifier, lambda _now: self.missing)
        self.readiness.begin(0.0)

    def ask(self, now: float, *, enforcing: bool) -> None:
        """Have the question put and answered."""
        with socket.socket(socket.AF_UNIX) as inspection:
            inspection.bind(str(self.path))
            inspection.listen()
            assert self.readiness.ask(now)
            peer, _ = inspection.accept()
            with peer:
                peer.sendall(json.dumps({"row": {"enforcing": enforcing}}).encode() + b'\n{"end": true}\n')
        self.path.unlink()
        for key, _ in self.selector.select(60):
            key.data(now)

    def told(self) -> list[str]:
        """What the service manager was told since."""
        told = []
        while True:
            try:
                told.append(self.manager.recv(500).decode())
            except BlockingIOError:
                return told


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's socket (sd_notify(3))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        yield manager


@pytest.fixture
def stage(tmp_path: Path, manager: socket.socket) -> Iterator[Stage]:
    """A node whose enforcer was just started."""
    stage = Stage(tmp_path, manager)
    with stage.selector:
        yield stage


def test_what_a_dead_enforcer_said_is_not_believed(stage: Stage) -> None:
    """It enforced, and died while its resolver was still missing: the next one has to say it again."""
    stage.ask(1.0, enforcing=True)
    assert stage.told() == ["STATUS=not ready: a resolver"]
    assert stage.readiness.ask(2.0), "nobody is there to ask"
    stage.missing = ""
    assert not stage.readiness.ask(2.01)
    assert stage.told() == []
    stage.ask(3.0, enforcing=False)
    assert stage.told() == []
    stage.ask(4.0, enforcing=True)
    assert stage.told() == ["READY=1\nSTATUS=enforcing"]


def test_what_was_missing_may_come_after_the_enforcers_answer(stage: Stage) -> None:
    """It is not asked again for that."""
    stage.ask(1.0, enforcing=True)
    stage.missing = ""
    stage.readiness.ask(1.01)
    assert stage.told()[-1] == "READY=1\nSTATUS=enforcing"


class TestPulse:
    """The end of the socket that a resolver, hijacked or not, may write to."""

    @pytest.fixture
    def selector(self) -> Iterator[selectors.BaseSelector]:
        """The supervisor's."""
        with selectors.DefaultSelector() as selector:
            yield selector

    def test_nothing_is_read_that_was_not_asked_for(self, selector: selectors.BaseSelector) -> None:
        """One that writes all the time neither turns the supervisor's loop nor has it tell anything."""
        pulse = Pulse(selector)
        with pulse.begin() as theirs:
            for number in range(3):
                theirs.send(b"+%d" % number)
            assert selector.select(0) == []
            for asked in range(2):
                pulse.ask()
                pulse.ask()
                assert theirs.recv(16) == b"?"
                for key, _ in selector.select(60):
                    key.data(float(asked))
                assert (pulse.said_at, pulse.is_ready, pulse.said) == (asked, True, str(asked))
                assert selector.select(0) == []
            theirs.settimeout(0)
            with pytest.raises(BlockingIOError):
                theirs.recv(16)
            pulse.end()

    def test_one_that_hangs_up_is_not_ready(self, selector: selectors.BaseSelector) -> None:
        """Found out with the next question; from then on it is asked nothing."""
        pulse = Pulse(selector)
        with pulse.begin() as theirs:
            theirs.send(b"+")
            pulse.ask()
            for key, _ in selector.select(60):
                key.data(1.0)
            assert pulse.is_ready
        pulse.ask()
        for key, _ in selector.select(60):
            key.data(2.0)
        assert not pulse.is_ready
        pulse.ask()
        assert selector.select(0) == []


class Managed:
    """A supervisor with its workers, between a service manager and the enforcer's inspection socket."""

    def __init__(self, running: Running, manager: socket.socket, inspection: socket.socket) -> None:
        self.running, self.manager = running, manager
        self._inspection = inspection

    def says(self, said: bytes, number: int = 0) -> None:
        """Have a resolver say this from now on."""
        (self.running.folder / (f"pulse-{number}" if number else "pulse")).write_bytes(said)

    def answer(self, **row: object) -> None:
        """Answer the question that is put next, as an enforcer."""
        peer, _ = self._inspection.accept()
        with peer, contextlib.suppress(BrokenPipeError):  # it was not answered in time: it is put again
            assert json.loads(peer.recv(500)) == {"command": "status"}
            peer.sendall(json.dumps({"row": row}).encode() + b'\n{"end": true}\n')

    def enforce_until(self, said: bytes) -> None:
        """Enforce, until that is told; nothing else may be but that a resolver was not heard yet."""
        heard, until_s = b"", time.monotonic() + 60
        self.manager.settimeout(0)
        self._inspection.settimeout(0.05)
        while heard != said:
            assert time.monotonic() < until_s, f"not told; but {heard!r}"
            assert heard in {b"", *NOT_HEARD}, heard
            with contextlib.suppress(TimeoutError):
                self.answer(enforcing=True, problems=[])
            with contextlib.suppress(BlockingIOError):
                heard = self.manager.recv(1000)
        self._inspection.settimeout(60)
        self.manager.settimeout(60)


@pytest.fixture
def environ() -> dict[str, str]:
    """What a test adds to the supervisor's environment."""
    return {}


@pytest.fixture
def managed(tmp_path: Path, manager: socket.socket, environ: dict[str, str]) -> Iterator[Managed]:
    """A node that starts, as a service."""
    with (
        supervised(tmp_path, {"NOTIFY_SOCKET": str(tmp_path / "notify"), **environ}) as running,
        socket.socket(socket.AF_UNIX) as inspection,
    ):
        running.pid("enforcer")
        inspection.bind(str(running.runtime / "inspect.sock"))
        inspection.listen()
        inspection.settimeout(60)
        yield Managed(running, manager, inspection)


def test_ready_is_said_when_the_node_enforces_and_its_resolver_has_the_policy(managed: Managed) -> None:
    """Not before: first the reasons why not are its status, each once."""
    managed.answer(enforcing=False, problems=["the guard table is missing"])
    assert managed.manager.recv(500) == b"STATUS=not enforcing: the guard table is missing"
    managed.says(b"-no policy was loaded yet")
    managed.enforce_until(b"STATUS=not ready: the resolver says: no policy was loaded yet")
    managed.says(b"+")
    managed.enforce_until(b"READY=1\nSTATUS=enforcing")
    managed.running.process.terminate()
    assert managed.manager.recv(500) == b"STOPPING=1"


def test_a_node_whose_resolver_never_answers_is_not_ready(managed: Managed) -> None:
    """However often the enforcer says that it enforces."""
    managed.says(b"mute")
    for _ in range(20):
        managed.answer(enforcing=True, problems=[])
    assert managed.manager.recv(500) == b"STATUS=not ready: the resolver does not answer yet"
    managed.manager.settimeout(0)
    with pytest.raises(BlockingIOError):
        managed.manager.recv(500)


def test_a_resolver_tells_the_service_manager_nothing_but_words(managed: Managed) -> None:
    """A hijacked one chooses its sentence: no line of it is a state of the service."""
    managed.says(b"-me\nREADY=1\nMAINPID=1\x1b[2J" + b"x" * 400)
    said = b"STATUS=not ready: the resolver says: me READY=1 MAINPID=1 [2J"
    managed.enforce_until(said + b"x" * (200 + len(b"STATUS=not ready: ") - len(said)))


@pytest.mark.parametrize("environ", [{"SECOND": "1"}])
def test_each_of_several_resolvers_has_to_have_the_policy(managed: Managed) -> None:
    """And one that died meanwhile has to say it again, in its next life."""
    managed.says(b"+")
    managed.says(b"-no policy was loaded yet", 1)
    managed.enforce_until(b"STATUS=not ready: the resolver-1 says: no policy was loaded yet")
    running = managed.running
    until(lambda: len(running.lives("resolver")) == 2)
    [second] = [life for life in running.lives("resolver") if "number" in life[1]]
    managed.says(b"", 1)  # nothing yet
    os.kill(int(second[0]), signal.SIGKILL)
    until(lambda: len(running.lives("resolver")) == 3)
    managed.says(b"+", 1)
    managed.enforce_until(b"READY=1\nSTATUS=enforcing")
