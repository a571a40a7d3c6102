"""Keep the workers of one node running, and their DNS sockets open while they are not.

Theory of operation: the parent opens the sockets once, loads both programs' code, and forks a
worker for each. A worker that dies is forked again at once; what arrived meanwhile waits in the
sockets' buffers. SIGHUP goes to the workers, SIGTERM ends them in order (the resolver first: it
drains with the enforcer's help). Never parses DNS or policies, never touches the kernel's rules:
they stay when everything here dies. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from enforcer.notify import Notifier, Readiness
from enforcer.workers import LONG_LIFE_S, Given, Worker, pause_s, start

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
_LOCK_WAIT_S = 10.0


class SupervisorError(Exception):
    """Nothing can be started; the text says why and what to do."""


class Node(NamedTuple):
    """What the supervisor needs of the settings."""

    name: str
    config_path: str
    runtime_dir: str
    json_log: bool = True
    drain_s: float = 5.0
    """How long a worker may take to end before it is killed."""


class _Seat:
    """A worker's place: the process in it now, or when the next one comes."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.pid = 0
        self.started_at = 0.0
        self.start_at: float | None = 0.0
        self.starts = 0
        self.short_lives = 0
        self.kill_at: float | None = None


class Supervisor:
    """Runs until it is told to end. ``run`` may be called once."""

    def __init__(self, node: Node, workers: Sequence[Worker], environ: Mapping[str, str]) -> None:
        self._node = node
        self._seats = [_Seat(worker) for worker in sorted(workers, key=lambda worker: worker.authority)]
        self._notifier = Notifier(environ)
        self._selector = selectors.DefaultSelector()
        self._readiness = Readiness(f"{node.runtime_dir}/inspect.sock", self._selector, self._notifier)
        self._code: int | None = None
        """The exit code, once it is to end."""

    def run(self, open_sockets: Callable[[], Mapping[str, socket.socket]]) -> int:
        """Start the workers, keep them running, return the exit code.

        Raises ``SupervisorError`` if another Nameward owns the runtime folder.
        """
        lock = take_lock(self._node.runtime_dir)
        given = Given(self._node.config_path, open_sockets(), lock, os.pipe())
        wake, waker = socket.socketpair()
        for end in (wake, waker):
            end.settimeout(0)
        self._selector.register(wake, selectors.EVENT_READ)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, _noted)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        if not any(seat.worker.authority for seat in self._seats):
            self._readiness.conclude()  # nobody here enforces

        def forget() -> None:
            signal.set_wakeup_fd(-1)
            self._selector.close()
            wake.close()
            waker.close()

        while True:
            now = time.monotonic()
            if self._code is None:
                self._start_due(now, given, forget)
                self._readiness.ask(now)
            elif self._all_ended(now):
                return self._code
            self._wait(wake, now)

    def _start_due(self, now: float, given: Given, forget: Callable[[], None]) -> None:
        for seat in self._seats:
            if seat.start_at is not None and seat.start_at <= now:
                seat.pid, seat.started_at, seat.start_at = start(seat.worker, given, forget), now, None
                seat.starts += 1

    def _all_ended(self, now: float) -> bool:
        """End the workers one after the other: SIGTERM, and SIGKILL for one that drains too long."""
        for seat in self._seats:
            if not seat.pid:
                continue
            if seat.kill_at is None:
                seat.kill_at = now + self._node.drain_s
                os.kill(seat.pid, signal.SIGTERM)
            elif now >= seat.kill_at:
                seat.kill_at = now + self._node.drain_s
                self._say("process.killed", seat.worker, f"did not end within {self._node.drain_s:g} s")
                os.kill(seat.pid, signal.SIGKILL)
            return False
        return True

    def _wait(self, wake: socket.socket, now: float) -> None:
        """Sleep until a signal, an answer or the next thing that is due."""
        if self._code is None:
            due = [seat.start_at for seat in self._seats] + [self._readiness.due_at]
        else:
            due = [seat.kill_at for seat in self._seats if seat.pid]
        known = [at for at in due if at is not None]
        for key, _ in self._selector.select(max(min(known) - now, 0.0) if known else None):
            if key.fileobj is wake:
                with contextlib.suppress(BlockingIOError):
                    for number in wake.recv(4096):
                        self._signalled(number)
                self._reap()
            else:
                self._readiness.heard(time.monotonic())

    def _signalled(self, number: int) -> None:
        if number == signal.SIGHUP:
            for seat in self._seats:
                if seat.pid:
                    os.kill(seat.pid, signal.SIGHUP)
        elif number in (signal.SIGTERM, signal.SIGINT):
            self._end(EXIT_OK)

    def _end(self, code: int) -> None:
        if self._code is None:
            self._code = code
            self._readiness.stop()
            self._notifier.send("STOPPING=1")

    def _reap(self) -> None:
        for seat in self._seats:
            pid, status = os.waitpid(seat.pid, os.WNOHANG) if seat.pid else (0, 0)
            if pid:
                seat.pid = 0
                self._gone(seat, os.waitstatus_to_exitcode(status))

    def _gone(self, seat: _Seat, code: int) -> None:
        """Decide what follows a death; ``code`` is negative for a signal."""
        if self._code is not None:
            return
        if code == EXIT_USAGE and seat.starts == 1:
            self._end(EXIT_USAGE)  # it said what is wrong with the configuration; again would not help
            return
        now = time.monotonic()
        seat.short_lives = 0 if now - seat.started_at >= LONG_LIFE_S else seat.short_lives + 1
        seat.start_at = now + pause_s(seat.short_lives)
        reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._say("process.restarted", seat.worker, f"ended by {reason}")

    def _say(self, event: str, worker: Worker, reason: str) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        record = {"event": event, "at": at, "node": self._node.name, "process": worker.name, "reason": reason}
        text = " ".join((at, event, worker.name, reason))
        print(json.dumps(record) if self._node.json_log else text, file=sys.stderr, flush=True)


def _noted(_number: int, _frame: object) -> None:
    """Let the wakeup descriptor have it; the loop acts."""


def take_lock(runtime_dir: str) -> int:
    """Become the one owner of this runtime folder; return the descriptor that holds the lock.

    An enforcer shares it, so a new supervisor waits until the old one's enforcer has ended too.
    """
    folder = Path(runtime_dir)
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise SupervisorError(f"{folder}: {error.strerror}; run as root or set runtimeDir") from None
    until = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK or time.monotonic() > until:
                owner = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
                os.close(lock)
                message = (
                    f"another Nameward (process {owner}) uses {folder}; end it or set another runtimeDir"
                )
                raise SupervisorError(message) from None
            time.sleep(0.1)
            continue
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)
        return lock
