"""A client that asks thousands of questions a second and connects to what it is told, as a program.

Owns one process in a pod's namespace, started by ``Flood``, and its counts: lookups at a steady rate
until too many are open (a machine that is too slow for the rate shall not lose by it), each repeated
after a second as C libraries do, given up after five; answers are connected to. Judges nothing.
Invariant: each question ends as exactly one of answered and lost.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import enforcer
from enforcer.demo import places
from enforcer.demo.failure import LabFailureError
from enforcer.demo.processes import LONG_S
from enforcer.demo.spaces import Space
from enforcer.demo.stub import TRIES, TRY_S

CONNECT_S = 3.0
"""Room for the kernel to repeat a SYN (after 1 s)."""
_TICK_S = 0.004
_SOCKETS = 32
_NO_LINGER = struct.pack("=ii", 1, 0)
_A, _AAAA = 1, 28
_MAIN = """import json, sys
from enforcer.demo.flood import Client, Plan
Client(Plan(**json.loads(sys.argv[1]))).run()
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What to ask whom. ``rate``: lookups a second at most; ``most_open``: lookups not answered yet."""

    server: str
    names: Sequence[str]
    rate: float = 2000.0
    most_open: int = 250
    port: int = places.SINK_PORT


@dataclasses.dataclass(slots=True)
class Counts:
    """What happened to the lookups so far. ``lost``: no good answer after five tries; times in ms."""

    asked: int = 0
    answered: int = 0
    lost: int = 0
    repeated: int = 0
    reached: int = 0
    unreached: int = 0
    took_s: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    failures: dict[str, int] = dataclasses.field(default_factory=dict)
    """How many replies were no answer, by response code; or TIMEOUT."""

    @property
    def rate(self) -> float:
        """Lookups a second."""
        return self.asked / self.took_s if self.took_s else 0.0

    def __sub__(self, earlier: Counts) -> Counts:
        """Return what came since ``earlier``; the times are this one's own."""
        rest = {
            key: getattr(self, key) - getattr(earlier, key)
            for key in ("asked", "answered", "lost", "repeated", "reached", "unreached", "took_s")
        }
        failures = {key: n - earlier.failures.get(key, 0) for key, n in self.failures.items()}
        return dataclasses.replace(self, **rest, failures={key: n for key, n in failures.items() if n})


class Flood:
    """The client's process in a pod's namespace, seen from the lab."""

    def __init__(self, space: Space, plan: Plan) -> None:
        env = {**os.environ, "PYTHONPATH": str(Path(enforcer.__file__).parents[1])}
        text = json.dumps(dataclasses.asdict(plan))
        argv = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-c", _MAIN, text]
        with space.entered():
            self._process = subprocess.Popen(  # noqa: S603 (arguments are the lab's own)
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
            )

    def counts(self) -> Counts:
        """Return the counts so far, with the times that the last mark had."""
        return self._said("count")

    def mark(self) -> Counts:
        """Return the counts so far; its times are those of the answers since the last mark."""
        return self._said("mark")

    def stop(self) -> Counts:
        """Ask nothing more, wait for what is open, return the counts; times since the last mark."""
        counts = self._said("stop")
        self.close()
        return counts

    def _said(self, command: str) -> Counts:
        if self._process.stdin is None or self._process.stdout is None:
            raise LabFailureError("the load has no pipes")
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise LabFailureError(f"the load ended with code {self._process.wait(LONG_S)}")
        return Counts(**json.loads(line))

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(LONG_S)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class _Question:
    __slots__ = ("asked_at", "opened", "tries", "try_at", "wire")

    def __init__(self, wire: bytes, opened: socket.socket, now: float) -> None:
        self.wire, self.opened = wire, opened
        self.asked_at = self.try_at = now
        self.tries = 0


class Client:
    """The program itself: one thread, one epoll."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.counts = Counts()
        self._times_s: list[float] = []
        self._wires = [(_wire(name), kind) for name in plan.names for kind in (_A, _AAAA)]
        self._poll = select.epoll()
        self._asking = {opened.fileno(): opened for opened in (self._ask_socket() for _ in range(_SOCKETS))}
        self._senders = list(self._asking.values())
        self._open: dict[int, _Question] = {}
        self._connecting: dict[int, tuple[socket.socket, float]] = {}
        self._next = 0
        self._started_at = 0.0
        self._stopping = False

    def _ask_socket(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._plan.server else socket.AF_INET
        opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        opened.connect((self._plan.server, 53))
        self._poll.register(opened, select.EPOLLIN)
        return opened

    def run(self) -> None:
        """Ask until told to stop; each line on stdin is answered with the counts."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the lab's to obey
        self._poll.register(sys.stdin, select.EPOLLIN)
        self._started_at = paced_at = time.monotonic()
        while not (self._stopping and not self._open and not self._connecting):
            for number, _ in self._poll.poll(_TICK_S):
                self._ready(number)
            now = time.monotonic()
            if not self._stopping:
                due = int((now - paced_at) * self._plan.rate)
                paced_at += due / self._plan.rate  # what is not asked now is not made up for
                for _ in range(min(due, self._plan.most_open - len(self._open))):
                    self._ask(now)
            self._look_after(now)
        self._say(timed=True)

    def _ready(self, number: int) -> None:
        if number in self._asking:
            self._read(self._asking[number])
        elif number in self._connecting:
            opened, _ = self._connecting[number]
            self._reached(opened, opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0)
        else:
            word = sys.stdin.readline().strip()
            if word in {"mark", "count"}:
                self._say(timed=word == "mark")
            else:  # "stop", or the lab is gone
                self._stopping = True
                self._poll.unregister(sys.stdin)

    def _ask(self, now: float) -> None:
        wire, kind = self._wires[self.counts.asked % len(self._wires)]
        self._next = (self._next + 1) & 0xFFFF
        while self._next in self._open:
            self._next = (self._next + 1) & 0xFFFF
        number = self._next
        question = struct.pack("!H", number) + wire + struct.pack("!HH", kind, 1)
        opened = self._senders[number % _SOCKETS]
        self._open[number] = asked = _Question(question, opened, now)
        self.counts.asked += 1
        self._send(asked)

    def _send(self, question: _Question) -> None:
        question.tries += 1
        question.try_at = time.monotonic() + TRY_S
        with contextlib.suppress(OSError):
            question.opened.send(question.wire)

    def _read(self, opened: socket.socket) -> None:
        while True:
            try:
                reply = opened.recv(4096)
            except OSError:
                return
            question = self._open.get(int.from_bytes(reply[:2], "big"))
            if question is None or question.wire[12:] != reply[12 : len(question.wire)]:
                continue
            if (code := reply[3] & 15) or not reply[7]:
                self._failed(f"rcode {code}" if code else "no data")
                continue  # asked again when its second is over
            now = time.monotonic()
            del self._open[int.from_bytes(reply[:2], "big")]
            self.counts.answered += 1
            self._times_s.append(now - question.asked_at)
            self._connect(reply, question, now)

    def _failed(self, how: str) -> None:
        self.counts.failures[how] = self.counts.failures.get(how, 0) + 1

    def _connect(self, reply: bytes, question: _Question, now: float) -> None:
        """Connect to the last address of the answer; there is no other record behind it (no EDNS)."""
        v4 = int.from_bytes(question.wire[-4:-2], "big") == _A
        family = socket.AF_INET if v4 else socket.AF_INET6
        address = socket.inet_ntop(family, reply[-4:] if v4 else reply[-16:])
        opened = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._connecting[opened.fileno()] = opened, now + CONNECT_S
        self._poll.register(opened, select.EPOLLOUT)
        if opened.connect_ex((address, self._plan.port)) not in {0, 115}:  # EINPROGRESS
            self._reached(opened, ok=False)

    def _reached(self, opened: socket.socket, ok: bool) -> None:
        del self._connecting[opened.fileno()]
        self._poll.unregister(opened)
        opened.close()
        self.counts.reached += ok
        self.counts.unreached += not ok

    def _look_after(self, now: float) -> None:
        """Repeat what is due, give up what is too old. Both tables are in order of age, but for repeats."""
        late = [number for number, question in self._open.items() if question.try_at <= now]
        for number in late:
            question = self._open[number]
            if question.tries < TRIES:
                self.counts.repeated += 1
                self._send(question)
            else:
                del self._open[number]
                self.counts.lost += 1
                self._failed("TIMEOUT")
        for opened, until_at in list(self._connecting.values()):
            if until_at > now:
                break
            self._reached(opened, ok=False)

    def _say(self, *, timed: bool) -> None:
        self.counts.took_s = round(time.monotonic() - self._started_at, 3)
        times_ms = sorted(time_s * 1000 for time_s in self._times_s) if timed else []
        if times_ms:
            self._times_s.clear()
            self.counts.p50_ms = round(times_ms[len(times_ms) // 2], 2)
            self.counts.p99_ms = round(times_ms[len(times_ms) * 99 // 100], 2)
            self.counts.max_ms = round(times_ms[-1], 2)
        sys.stdout.write(json.dumps(dataclasses.asdict(self.counts)) + "\n")
        sys.stdout.flush()


def _wire(name: str) -> bytes:
    """Return header (without id) and name of a question, recursion desired (RFC 1035 section 4.1)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!5H", 0x0100, 1, 0, 0, 0) + labels + b"\0"
