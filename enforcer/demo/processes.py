"""Programs of the lab: started in a namespace, ended with it.

Owns starting and ending by process id. Never ends anything it did not start. Invariant: a
program started here gets SIGTERM from the kernel when this process dies, however it dies.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from enforcer.demo.failure import LabFailureError
from enforcer.demo.spaces import Space

LONG_S = 30.0
"""How long a slow machine may take for what others do at once. Half of what most grants in the lab last: what
has ended by then was ended."""
_LEASH = """"$@" & program=$!
trap 'kill "$program"; wait "$program"' TERM
wait "$program"
"""
"""Passes SIGTERM on. A program that changes its user loses the kernel's notice of our death
(PR_SET_PDEATHSIG), this shell does not."""


def start(
    space: Space, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a long-lived program in ``space``; both its outputs go to ``log``.

    The process returned is its leash: the program is the leash's only child.
    """
    command = ["setpriv", "--pdeathsig", "TERM", "--", "sh", "-c", _LEASH, "sh", *argv]
    with space.entered(), log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 (arguments are the lab's own)
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env) if env is not None else None,
            start_new_session=True,
        )


def run(
    space: Space,
    argv: Sequence[str],
    text: str = "",
    timeout_s: float = LONG_S,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program in ``space`` to its end, ``text`` on its stdin; never raises for its exit code."""
    with space.entered():
        return subprocess.run(  # noqa: S603 (arguments are the lab's own)
            list(argv),
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=dict(env) if env is not None else None,
        )


def output_of(space: Space, argv: Sequence[str], text: str = "") -> str:
    """Run a program that has to succeed and return what it printed.

    Raises LabFailureError with the program's own words when it fails.
    """
    done = run(space, argv, text)
    if done.returncode != 0:
        raise LabFailureError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def stop(process: subprocess.Popen[bytes], grace_s: float = LONG_S) -> None:
    """End a program and everything that is left of its process group."""
    family = [process.pid, *descendants(process.pid)]
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
    for pid in family:
        if pid == process.pid or parent_of(pid) is not None:
            _kill(process, pid)
    process.wait(grace_s)


def _kill(process: subprocess.Popen[bytes], pid: int) -> None:
    if pid == process.pid:
        if process.poll() is None:
            process.kill()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getsid(pid) == process.pid:
            os.kill(pid, signal.SIGKILL)


def parent_of(pid: int) -> int | None:
    """Return the parent's id of a living process, None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, parent = stat.rpartition(")")[2].split()[:2]
    return None if state in {"Z", "X"} else int(parent)


def descendants(pid: int) -> list[int]:
    """Return the ids of all living processes below ``pid``, parents before children."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := parent_of(int(entry.name))) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(0), [])
        found += below
        waiting += below
    return found


def uid_of(pid: int) -> int | None:
    """Return the effective user id of a living process, None if there is no such process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[2]) for line in lines if line.startswith("Uid:")), None)


def comm_of(pid: int) -> str | None:
    """Return what the kernel calls a process, None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return None


def wait_until(condition: Callable[[], bool], deadline_s: float, pause_s: float = 0.01) -> bool:
    """Poll ``condition`` until it is true or ``deadline_s`` seconds have passed."""
    limit_at = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() >= limit_at:
            return False
        time.sleep(pause_s)
    return True
