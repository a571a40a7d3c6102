"""Keep the workers of one node running, and their DNS sockets open while they are not.

Theory of operation: the parent opens the sockets once, loads both programs' code, and forks a
worker for each; at the start the enforcer, which has more to do, is forked before the resolver's
code is loaded. A worker that dies is forked again at once; what arrived meanwhile waits in the
sockets' buffers. SIGHUP goes to the workers, SIGTERM ends them in order (the resolver first: it
drains with the enforcer's help). An enforcer runs while this is the owner of the node's rules
(``tenure``), a resolver always. As a container's first process it reaps whatever ends there. Never
parses DNS or policies, never touches the kernel's rules: they stay when everything here dies.
Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from enforcer.health import SILENT_S, STALE_S, HealthSocket, Pulse, Told
from enforcer.notify import Notifier, Readiness
from enforcer.tenure import Sockets, SupervisorError, Tenure
from enforcer.workers import LONG_LIFE_S, Given, Worker, pause_s, preload, start

__all__ = ["EXIT_FAILED", "EXIT_OK", "EXIT_USAGE", "Node", "Supervisor", "SupervisorError"]

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
_YIELD_S = 1.0
"""How long an enforcer may take to end for a successor: lookups wait meanwhile, and it may be killed."""
_NO_LOCK = -1
_PULSE_EVERY_S = 1.0

OpenSockets = Callable[[Sockets], dict[str, socket.socket]]
"""Open what pods ask; what a predecessor gave need not be opened."""


class Node(NamedTuple):
    """What the supervisor needs of the settings and the command line."""

    name: str
    config_path: str
    runtime_dir: str
    json_log: bool = True
    drain_s: float = 5.0
    """How long a worker may take to end before it is killed."""
    health: str = ""
    """Where to answer for this very pod; "" for nowhere."""
    takes_over: bool = False
    """Take the rules from another Nameward of this node instead of failing, and leave them to the next."""


class _Seat:
    """A worker's place: the process in it now, or when the next one comes."""

    def __init__(self, worker: Worker, selector: selectors.BaseSelector) -> None:
        self.worker = worker
        self.pulse = Pulse(selector)
        self.pid = 0
        self.started_at = 0.0
        self.start_at: float | None = None
        self.starts = 0
        self.short_lives = 0
        self.kill_at: float | None = None


class Supervisor:
    """Runs until it is told to end. ``run`` may be called once; an authority's code is loaded before that."""

    def __init__(self, node: Node, workers: Sequence[Worker], environ: Mapping[str, str]) -> None:
        self._node = node
        self._selector = selectors.DefaultSelector()
        ordered = sorted(workers, key=lambda worker: worker.authority)
        self._seats = [_Seat(worker, self._selector) for worker in ordered]
        self._authority = [seat for seat in self._seats if seat.worker.authority]
        self._notifier = Notifier(environ)
        self._readiness = Readiness(
            f"{node.runtime_dir}/inspect.sock",
            self._selector,
            self._notifier,
            self._missing,
            follows=bool(node.health),
        )
        self._pulse_at: float | None = None
        self._tenure = Tenure(node.runtime_dir, self._selector, self._note, shares=node.takes_over)
        self._life_line = os.pipe()
        self._code: int | None = None
        """The exit code, once it is to end."""

    def run(self, open_sockets: OpenSockets) -> int:
        """Start the workers, keep them running, return the exit code.

        ``open_sockets`` is called as the owner of the rules, with what a predecessor gave. Raises
        ``SupervisorError`` if another Nameward owns the runtime folder (and is not to be waited for).
        """
        self._readiness.stop()
        if self._authority and not self._node.takes_over:
            self._tenure.lock.take()
        wake, waker = socket.socketpair()
        for end in (wake, waker):
            end.settimeout(0)
        self._selector.register(wake, selectors.EVENT_READ, lambda _now: self._woken(wake))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, _noted)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        if self._node.health:
            self._answer_for_health(self._node.health)
        if not self._authority:
            self._readiness.conclude("running; the enforcer is another's")

        def forget() -> None:
            signal.set_wakeup_fd(-1)
            self._selector.close()
            wake.close()
            waker.close()

        while True:
            now = time.monotonic()
            if self._code is None:
                self._keep_running(now, open_sockets, forget)
            elif self._all_ended(now):
                return self._code
            self._wait(now)

    def _answer_for_health(self, path: str) -> None:
        try:
            HealthSocket(path, self._selector, self._told)
        except OSError as error:
            said = f"--health {path}: {error.strerror or error}; name a path in a folder that is there"
            raise SupervisorError(said) from None
        self._pulse_at = 0.0

    # --- starting --------------------------------------------------------------------------------

    def _keep_running(self, now: float, open_sockets: OpenSockets, forget: Callable[[], None]) -> None:
        if self._authority:
            self._hold(now, open_sockets)
        for seat in reversed(self._seats):  # the authority first
            if seat.start_at is None and not seat.pid and not seat.worker.authority:
                seat.start_at = now
            if seat.start_at is not None and seat.start_at <= now:
                self._start(seat, now, forget)
        is_asking = self._readiness.ask(now)
        if self._pulse_at is not None and now >= self._pulse_at:
            self._pulse_at, is_asking = now + _PULSE_EVERY_S, True
        if is_asking:
            for seat in self._seats:
                seat.pulse.ask()

    def _start(self, seat: _Seat, now: float, forget: Callable[[], None]) -> None:
        lock = self._tenure.lock.descriptor if seat.worker.authority else _NO_LOCK
        if not seat.starts and not seat.worker.authority:
            preload(seat.worker)
        given = Given(self._node.config_path, self._tenure.sockets, lock, self._life_line)
        theirs = None if seat.worker.authority else seat.pulse.begin()
        seat.pid, seat.started_at, seat.start_at = start(seat.worker, given, forget, theirs), now, None
        seat.starts += 1
        seat.kill_at = None
        if theirs is not None:
            theirs.close()

    def _hold(self, now: float, open_sockets: OpenSockets) -> None:
        """Be the owner of the rules, or become it, or leave them to a successor."""
        tenure = self._tenure
        was_owner = tenure.state == "owner"
        tenure.step(now)
        if tenure.state == "owner":
            if not was_owner:
                tenure.sockets = open_sockets(tenure.sockets)
            for seat in self._authority:
                if not seat.pid and seat.start_at is None:
                    seat.start_at = now
                    self._readiness.begin(now)
                elif seat.pid and seat.kill_at is not None:
                    self._end_one(seat, now, _YIELD_S)  # it was to end for a successor that is gone
        elif tenure.state == "yielding":
            self._readiness.stop()
            for seat in self._authority:
                seat.start_at = None
                if seat.pid:
                    self._end_one(seat, now, _YIELD_S)
            if not any(seat.pid for seat in self._authority):
                tenure.let_go(now)

    # --- ending ----------------------------------------------------------------------------------

    def _all_ended(self, now: float) -> bool:
        """End the workers one after the other."""
        for seat in self._seats:
            if seat.pid:
                self._end_one(seat, now, self._node.drain_s)
                return False
        return True

    def _end_one(self, seat: _Seat, now: float, within_s: float) -> None:
        """SIGTERM, and SIGKILL for one that drains too long."""
        if seat.kill_at is None:
            seat.kill_at = now + within_s
            os.kill(seat.pid, signal.SIGTERM)
        elif now >= seat.kill_at:
            seat.kill_at = now + within_s
            self._say("process.killed", seat.worker.name, f"did not end within {within_s:g} s")
            os.kill(seat.pid, signal.SIGKILL)

    def _wait(self, now: float) -> None:
        """Sleep until a signal, an answer or the next thing that is due."""
        due = [seat.kill_at for seat in self._seats if seat.pid]
        if self._code is None:
            due += [seat.start_at for seat in self._seats] + [self._readiness.due_at, self._pulse_at]
            due += [self._tenure.due_at] if self._authority else []
        known = [at for at in due if at is not None]
        for key, _ in self._selector.select(max(min(known) - now, 0.0) if known else None):
            key.data(time.monotonic())

    def _woken(self, wake: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in wake.recv(4096):
                self._signalled(number)
        self._reap()

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
        """Take note of every child that ended; as a container's first process that is anybody's."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for seat in self._seats:
                if seat.pid == pid:
                    seat.pid, seat.kill_at = 0, None
                    seat.pulse.end()
                    self._gone(seat, os.waitstatus_to_exitcode(status))

    def _gone(self, seat: _Seat, code: int) -> None:
        """Decide what follows a death; ``code`` is negative for a signal."""
        if self._code is not None or (seat.worker.authority and self._tenure.state != "owner"):
            return
        if code == EXIT_USAGE and seat.starts == 1:
            self._end(EXIT_USAGE)  # it said what is wrong with the configuration; again would not help
            return
        now = time.monotonic()
        seat.short_lives = 0 if now - seat.started_at >= LONG_LIFE_S else seat.short_lives + 1
        seat.start_at = now + pause_s(seat.short_lives)
        reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._say("process.restarted", seat.worker.name, f"ended by {reason}")

    # --- telling ---------------------------------------------------------------------------------

    def _told(self, now: float) -> Told:
        """Say how this pod is: its own workers, whatever others of the node do."""
        found = []
        for seat in self._seats:
            if not seat.worker.authority:
                pulse = seat.pulse
                why = "" if pulse.is_ready else pulse.said
                found.append(self._of(seat, now, pulse.said_at, ready=pulse.is_ready, why=why))
            elif self._tenure.state == "owner":
                asked = self._readiness
                why = "; ".join(asked.problems)
                found.append(self._of(seat, now, asked.said_at, ready=asked.enforcing, why=why))
            else:
                said = "handed over to" if self._tenure.has_handed_over else "waits for"
                found.append(Told(live=True, ready=False, said=f"{said} another Nameward of this node"))
        said = "; ".join(dict.fromkeys(told.said for told in found if told.said))
        return Told(all(told.live for told in found), all(told.ready for told in found), said or "ready")

    def _missing(self, now: float) -> str:
        """Say which resolver does not answer by policy yet; "" if all do."""
        for seat in self._seats:
            pulse = seat.pulse
            if not seat.worker.authority and not (pulse.is_ready and now - pulse.said_at <= STALE_S):
                return (
                    f"the {seat.worker.name} {f'says: {pulse.said}' if pulse.said else 'does not answer yet'}"
                )
        return ""

    def _of(self, seat: _Seat, now: float, said_at: float, *, ready: bool, why: str) -> Told:
        silent_s = now - max(said_at, seat.started_at)
        if seat.pid and silent_s > SILENT_S:
            said = f"the {seat.worker.name} has not answered for {silent_s:.0f} s"
            return Told(live=False, ready=False, said=said)
        if now - said_at > STALE_S:
            return Told(live=True, ready=False, said=f"the {seat.worker.name} does not answer yet")
        said = why or ("" if ready else f"the {seat.worker.name} is not ready")
        return Told(live=True, ready=ready, said=said)

    def _note(self, event: str, reason: str) -> None:
        self._say(event, "supervisor", reason)

    def _say(self, event: str, process: str, reason: str) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        record = {"event": event, "at": at, "node": self._node.name, "process": process, "reason": reason}
        text = " ".join((at, event, process, reason))
        print(json.dumps(record) if self._node.json_log else text, file=sys.stderr, flush=True)


def _noted(_number: int, _frame: object) -> None:
    """Let the wakeup descriptor have it; the loop acts."""
