"""One supervised process: how it is forked, what it may keep, when it comes back.

Owns the border between the supervisor and its workers. Invariant: a worker keeps exactly the
descriptors it is given (the resolver: standard streams, the life line and its pulse), and ends when
its supervisor is gone. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

LONG_LIFE_S = 2.0
"""A worker that lived so long did not die of its start."""
_FREE_DEATHS = 3
_LONGEST_PAUSE_S = 5.0
PULSE, NUMBER = "pulse", "number"
"""What a worker is given beside sockets by their names."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class Worker(NamedTuple):
    """What runs: a module with ``run(config_path, sockets) -> exit code`` and ``preload()``.

    ``authority``: it gets the DNS sockets and shares the lock; the other kind gets nothing but its pulse, and
    its ``number`` among several of them.
    """

    name: str
    module: str
    authority: bool
    number: int = 0


ENFORCER = Worker("enforcer", "enforcer.service", authority=True)
RESOLVER = Worker("resolver", "resolver.service", authority=False)


def resolvers(processes: int) -> tuple[Worker, ...]:
    """Return so many resolvers."""
    return tuple(
        RESOLVER._replace(name=f"{RESOLVER.name}-{number}" if number else RESOLVER.name, number=number)
        for number in range(processes)
    )


class Given(NamedTuple):
    """What the supervisor holds at the fork. ``life_line`` is a pipe's (read end, write end); ``lock`` is
    -1 where none is needed."""

    config_path: str
    sockets: Mapping[str, socket.socket]
    lock: int
    life_line: tuple[int, int]


def pause_s(short_lives: int) -> float:
    """Return how long to wait before a start, after so many short lives in a row.

    The first deaths are free: a killed worker is back at once. A crash loop is slowed, to 5 s.
    """
    if short_lives <= _FREE_DEATHS:
        return 0.0
    return min(0.1 * 2.0 ** min(short_lives - _FREE_DEATHS - 1, 16), _LONGEST_PAUSE_S)


def preload(worker: Worker) -> None:
    """Import what a worker needs, so that each fork is ready in milliseconds and shares the pages of it."""
    importlib.import_module(worker.module).preload()
    gc.freeze()  # nothing is collected before: what that would free leaves holes, into which forks write


def start(
    worker: Worker, given: Given, forget: Callable[[], None], pulse: socket.socket | None = None
) -> int:
    """Fork the worker and return its pid. ``forget`` closes what only the supervisor may use.

    ``pulse`` is the worker's end of a socket by which its supervisor asks how it is.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            _become(worker, given, forget, parent, pulse)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _become(
    worker: Worker, given: Given, forget: Callable[[], None], parent: int, pulse: socket.socket | None
) -> None:
    """Never returns."""
    code = 1
    try:
        forget()
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        os.setpgid(0, 0)  # a terminal's Ctrl-C goes to the supervisor, which ends us in order
        passed: dict[str, object] = {}
        keep = {0, 1, 2, given.life_line[0]}
        if worker.authority:
            passed |= given.sockets
            keep |= {given.lock, *(kept.fileno() for kept in given.sockets.values())}
        else:
            for unwanted in given.sockets.values():
                unwanted.close()
        if worker.number:
            passed[NUMBER] = worker.number
        if pulse is not None:
            passed[PULSE] = pulse
            keep.add(pulse.fileno())
        _close_all_but(keep)
        _end_with_supervisor(given.life_line[0], parent)
        with contextlib.suppress(OSError):
            Path("/proc/self/comm").write_text(f"nw-{worker.name}", "ascii")
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        code = importlib.import_module(worker.module).run(given.config_path, passed)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - the last frame of the process: report, then die of it
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _close_all_but(keep: set[int]) -> None:
    for number in sorted(int(name) for name in os.listdir("/proc/self/fd")):
        if number not in keep:
            with contextlib.suppress(OSError):
                os.close(number)


def _end_with_supervisor(life_line: int, parent: int) -> None:
    """Have the kernel send SIGTERM when the supervisor's end of the pipe closes.

    PR_SET_PDEATHSIG would not do: the kernel clears it when a process drops its privileges
    (prctl(2)), which is the resolver's first act.
    """
    own = os.open(f"/proc/self/fd/{life_line}", os.O_RDONLY | os.O_CLOEXEC)  # the owner is per open file
    os.close(life_line)
    fcntl.fcntl(own, fcntl.F_SETSIG, signal.SIGTERM)
    fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(own, fcntl.F_SETFL, os.O_ASYNC)
    if os.getppid() != parent:
        raise SystemExit(1)
