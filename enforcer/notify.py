"""Tell systemd, by sd_notify(3), and learn from the enforcer when there is something to tell.

Owns the datagrams to ``NOTIFY_SOCKET`` and the one question to the inspection socket ("are you
enforcing?"). Never blocks: the supervisor that uses it must restart workers meanwhile. Standard
library only.
"""

from __future__ import annotations

import json
import selectors
import socket
from collections.abc import Mapping

_ANSWER_BYTES = 1 << 20
_ASK_EVERY_S = 0.2
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

    ``follows``: goes on asking, every second, and keeps the last answer.
    """

    def __init__(
        self, path: str, selector: selectors.BaseSelector, notifier: Notifier, *, follows: bool = False
    ) -> None:
        self._path, self._selector, self._notifier = path, selector, notifier
        self._follows = follows
        self._question: Question | None = None
        self._is_concluded = False
        self.due_at: float | None = 0.0
        """When to call ``ask`` again; None once it is over."""
        self.said_at = float("-inf")
        self.enforcing = False
        self.problems: tuple[str, ...] = ()

    def ask(self, now: float) -> None:
        """Put the question anew if it is due; one without an answer is given up."""
        if self.due_at is None or now < self.due_at:
            return
        self._drop()
        question = Question(self._path)
        if question.done:
            self.due_at = now + _ASK_EVERY_S
            return
        self._question, self.due_at = question, now + _ANSWER_WITHIN_S
        self._selector.register(question, selectors.EVENT_READ, self.heard)

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
        self.due_at = now + (_FOLLOW_EVERY_S if question.enforcing else _ASK_EVERY_S)
        if question.answered:
            self.said_at, self.enforcing, self.problems = now, question.enforcing, question.problems
        if question.enforcing and not self._is_concluded:
            self.conclude()
        elif question.problems and not self._is_concluded:
            self._notifier.send(f"STATUS=not enforcing: {question.problems[0]:.200}")

    def conclude(self) -> None:
        """Say that the service is ready, and ask no more unless it follows."""
        self._is_concluded = True
        if not self._follows:
            self.due_at = None
        self._notifier.send("READY=1", "STATUS=enforcing")

    def begin(self, now: float) -> None:
        """Ask from now on: there is an enforcer of ours to ask."""
        if self._follows or not self._is_concluded:
            self.due_at = now

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
