"""One long-lived program of a cluster: started, frozen, killed and ended by its own process id.

Never ends anything it did not start. Invariant: the program gets SIGKILL from the kernel when the
thread that started it (or this process) ends, however it ends, frozen or not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from enforcer.demo.failure import LabFailureError
from enforcer.demo.processes import descendants, wait_until
from enforcer.demo.spaces import Space

_TAIL_LINES = 12


class Program:
    """``argv`` in ``space`` (None: where we are); what it prints goes to ``log``.

    ``is_wrapped``: the program is the only child of what is started (unshare, nsenter).
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        *,
        space: Space | None = None,
        env: Mapping[str, str] | None = None,
        is_wrapped: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        self._argv = list(argv)
        self._space = space
        self._is_wrapped = is_wrapped
        self._env = None if env is None else dict(env)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        """Say whether the process exists, frozen or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id. Raises LabFailureError if it does not run."""
        if self._process is None or not self.runs:
            raise LabFailureError(f"{self.name} does not run; the end of its log:\n{self.tail()}")
        return self.child_pid if self._is_wrapped else self._process.pid

    @property
    def child_pid(self) -> int:
        """The process id of its first child. Raises LabFailureError if it has none (yet)."""
        below = descendants(self._process.pid) if self._process and self.runs else []
        if not below:
            raise LabFailureError(f"{self.name} has no child; the end of its log:\n{self.tail()}")
        return below[0]

    def start(self) -> None:
        """Start it (again); it may not be ready for a while."""
        command = ["setpriv", "--pdeathsig", "KILL", "--", *self._argv]
        entered = self._space.entered() if self._space else contextlib.nullcontext()
        with entered, self.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 (arguments are the lab's own)
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._env,
                start_new_session=True,
            )

    def await_ready(self, is_ready: Callable[[], bool], deadline_s: float = 120.0) -> None:
        """Wait until ``is_ready``. Raises LabFailureError with the end of its log if it never is."""
        in_time = wait_until(lambda: not self.runs or is_ready(), deadline_s, pause_s=0.05)
        if not self.runs:
            raise LabFailureError(f"{self.name} ended at once; the end of its log:\n{self.tail()}")
        if not in_time:
            raise LabFailureError(
                f"{self.name} was not ready after {deadline_s:.0f} s; the end of its log:\n{self.tail()}"
            )

    def freeze(self) -> None:
        """Stop it in its tracks: connections stay open and nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after ``freeze``."""
        self._signal(signal.SIGCONT)

    def stop(self, grace_s: float = 5.0) -> None:
        """End it: SIGTERM, and SIGKILL after ``grace_s`` seconds (0: at once). Also where it has ended."""
        if self._process is None:
            return
        if self.runs and grace_s > 0:
            self._signal(signal.SIGCONT)
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        if self.runs:
            self._signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        if self.runs:
            self._process.kill()
        self._process.wait(10.0)
        self._process = None

    def tail(self) -> str:
        """Return the last lines of its log."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return "(no log)"
        return "\n".join(lines[-_TAIL_LINES:])

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None or not self.runs:
            return
        if self._is_wrapped:
            with contextlib.suppress(LabFailureError, ProcessLookupError):
                os.kill(self.child_pid, number)
            if number != signal.SIGCONT:
                return
        self._process.send_signal(number)
