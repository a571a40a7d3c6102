"""Tell systemd, by sd_notify(3), and learn from the enforcer when there is something to tell.

Owns the datagrams to ``NOTIFY_SOCKET`` and the one question to the inspection socket ("are you
enforcing?"). Never blocks: the supervisor that uses it must restart workers meanwhile. Invariant:
ready is said of a node of which both hold: the enforcer enforces, and nothing else is missing
(its resolvers answer by policy). Standard library only.
"""

from __future__ import annotations

import json
import selectors
import socket
from collections.abc import Callable, Mapping

_ANSWER_BYTES = 1 << 20
_ASK_AFTER_S, _ASK_AFTER_AT_MOST_S = 0.04, 1.0
_ASK_SHARE = 40
"""What took so long is asked for again after this part of it: a start is noticed within a fortieth."""
_FOLLOW_EVERY_S = 1.0
_ANSWER_WITHIN_S = 2.0


class Notifier:
    """Sends states to the service manager; does nothing where there is none."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")

    def send(self, *lines: str) -> bool:
        """Send lines such as ``READY=1``; False if nobody listens."""
        if not self._address:
            return False
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as peer:
            try:
                peer.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, address)
            except OSError:
                return False
        return True


class Question:
    """One ``status`` request to the inspection socket, as far as it got.

    Call ``step`` when ``fileno`` is readable. It is over once ``done`` is true; then ``enforcing``
    tells (``answered``: somebody did), and ``problems`` are the node's own words. A node that is not there
    yet is not enforcing.
    """

    def __init__(self, path: str) -> None:
        self.done = False
        self.answered = False
        self.enforcing = False
        self.problems: tuple[str, ...] = ()
        self._read = b""
        self._peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._peer.settimeout(0)
        try:
            self._peer.connect(path)
            self._peer.send(b'{"command": "status"}\n')
        except OSError:
            self.close()

    def fileno(self) -> int:
        """Descriptor to wait on."""
        return self._peer.fileno()

    def step(self) -> None:
        """Read what has come."""
        try:
            more = self._peer.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        self._read += more
        if not more or b'"end"' in self._read or len(self._read) > _ANSWER_BYTES:
            self._conclude()
            self.close()

    def _conclude(self) -> None:
        for line in self._read.splitlines():
            try:
                row = json.loads(line).get("row", {})
            except (ValueError, AttributeError):
                return
            if isinstance(row, dict) and "enforcing" in row:
                self.answered = True
                self.enforcing = row["enforcing"] is True
                self.problems = tuple(str(problem) for problem in row.get("problems", ()))

    def close(self) -> None:
        """Give up; what was not answered counts as no."""
        self.done = True
        self._peer.close()


class Readiness:
    """Asks until the answer is yes, then tells the service manager; registers in ``selector``.

    ``missing`` says what else keeps the node from being ready, "" for nothing. ``follows``: goes on asking,
    every second, and keeps the last answer.
    """

    def __init__(
        self,
        path: str,
        selector: selectors.BaseSelector,
        notifier: Notifier,
        missing: Callable[[float], str],
        *,
        follows: bool = False,
    ) -> None:
        self._path, self._selector, self._notifier = path, selector, notifier
        self._missing = missing
        self._follows = follows
        self._began_at = 0.0
        self._status = ""
        self._question: Question | None = None
        self._is_answered = False
        """The question that was put last: who was asked before may be dead."""
        self._is_concluded = False
        self.due_at: float | None = 0.0
        """When to call ``ask`` again; None once it is over."""
        self.said_at = float("-inf")
        self.enforcing = False
        self.problems: tuple[str, ...] = ()

    def ask(self, now: float) -> bool:
        """Put the question anew if it is due; one without an answer is given up. Returns whether it was due.

        Call it at every turn: what else was missing may have come.
        """
        self._look(now)
        if self.due_at is None or now < self.due_at:
            return False
        self._drop()
        self._is_answered = False
        question = Question(self._path)
        if question.done:
            self.due_at = now + self._pause_s(now)
        else:
            self._question, self.due_at = question, now + _ANSWER_WITHIN_S
            self._selector.register(question, selectors.EVENT_READ, self.heard)
        return True

    def heard(self, now: float) -> None:
        """Take what the question's descriptor has."""
        question = self._question
        if question is None:
            return
        number = question.fileno()
        question.step()
        if not question.done:
            return
        self._question = None
        self._selector.unregister(number)
        self._is_answered = question.answered
        if question.answered:
            self.said_at, self.enforcing, self.problems = now, question.enforcing, question.problems
        self._look(now)
        if self.due_at is not None:
            follows = self._is_concluded and question.enforcing
            self.due_at = now + (_FOLLOW_EVERY_S if follows else self._pause_s(now))

    def _look(self, now: float) -> None:
        """Say that the service is ready if it is, or what keeps it."""
        if self._is_concluded:
            return
        if not self.enforcing:
            if self.problems:
                self._say(f"not enforcing: {self.problems[0]:.200}")
        elif missing := self._missing(now):
            self._say(f"not ready: {missing:.200}")
        elif self._is_answered:
            self.conclude("enforcing")

    def _say(self, status: str) -> None:
        """Tell it once, on one line: the words are a worker's, and each line is a state of the service."""
        status = "".join(char if char.isprintable() else " " for char in status)
        if status != self._status:
            self._status = status
            self._notifier.send(f"STATUS={status}")

    def _pause_s(self, now: float) -> float:
        return min(max(_ASK_AFTER_S, (now - self._began_at) / _ASK_SHARE), _ASK_AFTER_AT_MOST_S)

    def conclude(self, status: str) -> None:
        """Say that the service is ready, and ask no more unless it follows."""
        self._is_concluded = True
        if not self._follows:
            self.due_at = None
        self._notifier.send("READY=1", f"STATUS={status}")

    def begin(self, now: float) -> None:
        """Ask from now on: there is an enforcer of ours to ask."""
        if self._follows or not self._is_concluded:
            self.due_at = self._began_at = now

    def stop(self) -> None:
        """Ask no more, and believe nothing that was said."""
        self._drop()
        self.due_at = None
        self.said_at, self.enforcing, self.problems = float("-inf"), False, ()

    def _drop(self) -> None:
        if self._question is not None:
            self._selector.unregister(self._question)
            self._question.close()
            self._question = None
