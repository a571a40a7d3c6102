"""Is this very pod alive, is it ready: asked over a socket of its own.

Owns the health socket (``--health PATH``), which the supervisor serves, so that it answers while a
worker is being started again. Two pods of one node share runtimeDir; each has its own such socket.
Never waits: what it says is what the supervisor knows. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

MAX_SAID = 500
SILENT_S = 30.0
"""A worker that answers nothing for so long is stuck: not alive."""
STALE_S = 5.0
"""What a worker said so long ago is not believed: not ready."""


class Told(NamedTuple):
    """What there is to tell; ``said`` is one sentence, of whatever characters a worker chose."""

    live: bool
    ready: bool
    said: str


class HealthSocket:
    """Tells everybody who connects, in one JSON line, and closes. ``OSError`` if there can be no socket."""

    def __init__(self, path: str, selector: selectors.BaseSelector, look: Callable[[float], Told]) -> None:
        self._look = look
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        Path(path).unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._socket.bind(path)
        finally:
            os.umask(before)
        self._socket.listen(16)
        self._socket.settimeout(0)
        selector.register(self._socket, selectors.EVENT_READ, self._asked)

    def _asked(self, now: float) -> None:
        with contextlib.suppress(OSError):
            peer, _ = self._socket.accept()
            with peer:
                line = json.dumps(self._look(now)._asdict()) + "\n"
                peer.send(line.encode(), socket.MSG_DONTWAIT)


def ask(path: str, wait_s: float) -> Told:
    """Ask the pod behind ``path``. ``OSError`` if nobody answers; ``ValueError`` if it is no answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as peer:
        peer.settimeout(wait_s)
        peer.connect(path)
        read = b""
        while more := peer.recv(65536):
            read += more
    found = json.loads(read)
    if not isinstance(found, dict):
        raise ValueError("no answer")
    return Told(found.get("live") is True, found.get("ready") is True, str(found.get("said", "")))


class Pulse:
    """What one worker without an inspection socket says of itself, asked over a socket that it inherits.

    Each message is ``+`` (it serves) or ``-`` (it does not), then a sentence. Invariant: a question has one
    answer; whatever a worker writes unasked is not read, so that it cannot keep the supervisor busy.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._ours: socket.socket | None = None
        self._is_asked = False
        self.said_at = float("-inf")
        self.is_ready = False
        self.said = ""

    def begin(self) -> socket.socket:
        """Return the end of a new worker; what the one before it said is forgotten."""
        self.end()
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.settimeout(0)
        return theirs

    def ask(self) -> None:
        """Ask, unless an answer is still to come."""
        if self._ours is None or self._is_asked:
            return
        self._is_asked = True
        self._selector.register(self._ours, selectors.EVENT_READ, self._heard)
        with contextlib.suppress(OSError):  # it is gone: that is read
            self._ours.send(b"?")

    def _heard(self, now: float) -> None:
        if self._ours is None:
            return
        try:
            data = self._ours.recv(1 + MAX_SAID)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.end()
            return
        self._unwatch()
        self.said_at, self.is_ready = now, data[:1] == b"+"
        self.said = data[1:].decode("utf-8", "replace")

    def end(self) -> None:
        """Forget the worker."""
        self.said_at, self.is_ready, self.said = float("-inf"), False, ""
        if self._ours is not None:
            self._unwatch()
            self._ours.close()
            self._ours = None

    def _unwatch(self) -> None:
        if self._is_asked and self._ours is not None:
            self._is_asked = False
            self._selector.unregister(self._ours)
