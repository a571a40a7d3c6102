"""The inspection socket: one JSON line asked, JSON lines answered.

Owns ``<runtimeDir>/inspect.sock``. Anyone on the node may read; nobody can change anything. Every
answer ends with ``{"end": true}`` or ``{"error": text}``, before which ``{"warning": text}`` may say what is
missing; ``blocked`` with ``follow`` goes on until the asker closes. Invariant: an asker that does not read
costs one piece of its answer, and what other nodes had to say for ``READ_WITHIN_S``, no more; it is not
heard again before its answer has left, be that an error. All askers together get half of the loop, a piece at
a time: lookups wait for one piece.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import msgspec
from twisted.internet.interfaces import IListeningPort, IReactorUNIX
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.unix import Server
from twisted.python.failure import Failure

from enforcer.asked import Request, RequestError, Row
from enforcer.inspection import Answer, Inspection

MAX_REQUEST_BYTES = 4096
MAX_ASKERS = 64
ROWS_A_PIECE = 50
"""About a millisecond."""
TURN_S = 0.0005
"""Calls that take less share a turn: those of askers who have gone do not pile up."""
READ_WITHIN_S = 60.0
"""An answer that holds other nodes' rows is read by then, or the connection ends."""
SOCKET = "inspect.sock"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Request).decode


class Asker(TwistedProtocol):
    """One connection: one request at a time, its rows written as fast as they are read."""

    transport: Server
    """What Twisted connects a unix listener\'s protocol with."""

    def __init__(self, factory: InspectFactory) -> None:
        self._of = factory
        self._asked = b""
        self._rows: Iterator[Row] = iter(())
        self._request: Request | None = None
        self._refusal = ""
        self._is_busy = False
        """From a request until all of its answer has left."""
        self._is_answered = False
        """The last line of the answer was written, and has to leave."""
        self._warnings: tuple[str, ...] = ()
        self._end_search: Callable[[], None] = _nothing
        self._close: Callable[[], None] = _nothing
        self._answers = 0
        self._stop: Callable[[], None] | None = None
        self._paused = False
        self._is_gone = False
        self._is_read = True

    def connectionMade(self) -> None:
        """Refuse more askers than we serve."""
        self._of.askers += 1
        if self._of.askers > MAX_ASKERS:
            self._say({"error": "too many are asking; try again"})
            self._lose()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        """Forget what was asked."""
        self._of.askers -= 1
        self._is_gone = self._is_read = True
        self._rows = iter(())
        self._end_search()
        self._close()
        if self._stop is not None:
            self._stop()
            self._stop = None

    def dataReceived(self, data: bytes) -> None:
        """Collect a request line; answer it once it is whole."""
        if self._is_busy:
            return  # one at a time
        self._asked += data
        line, whole, _ = self._asked.partition(b"\n")
        if len(line) > MAX_REQUEST_BYTES:
            self._say({"error": f"a request has at most {MAX_REQUEST_BYTES} octets"})
            self._lose()
        elif whole:
            self._asked = b""
            self._is_busy = True
            self._of.turns(lambda: self._answer(line))

    def _answer(self, line: bytes) -> None:
        if self._is_gone:
            return
        try:
            self._request = _decode(line)
            self._end_search = self._of.inspection.answer(self._request, self._of.now, self._answered)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._fail(f"no request: {error}")
        except RequestError as error:
            self._fail(str(error))

    def _answered(self, answer: Answer) -> None:
        """Write the answer, which may come long after the request, as fast as it is read."""
        if self._is_gone:
            return
        if answer.refusal:
            self._warn(answer.warnings)
            self._fail(answer.refusal)
            answer.close()
            return
        self._rows, self._warnings, self._close = answer.rows, answer.warnings, answer.close
        self._answers += 1
        self._is_read = False
        if answer.is_held:
            number = self._answers
            self._of.later(READ_WITHIN_S, lambda: self._hurry(number))
        self.transport.registerProducer(self, streaming=False)

    def _hurry(self, number: int) -> None:
        """End an asker that still reads the answer of that number."""
        if self._answers == number and not self._is_read:
            self.transport.abortConnection()

    def _fail(self, text: str) -> None:
        self._refusal = text
        self.transport.registerProducer(self, streaming=False)

    def resumeProducing(self) -> None:
        """Write the next piece of rows (Twisted asks for it when the last one is written)."""
        if self._stop is not None:
            self._paused = False
            return
        if self._is_answered:
            self._is_answered = self._is_busy = False
            self.transport.unregisterProducer()
            return
        self._of.turns(self._go_on)

    def _go_on(self) -> None:
        """Write the next piece of the answer."""
        if self._is_gone:
            return
        if self._refusal:
            self._request, refusal, self._refusal = None, self._refusal, ""
            self._is_answered = True
            self._say({"error": refusal})
            return
        piece = list(islice(self._rows, ROWS_A_PIECE))
        if piece:
            self._write(b"".join(_encode({"row": row}) + b"\n" for row in piece))
            return
        self._rows, self._close, close = iter(()), _nothing, self._close
        self._is_read = True
        close()
        request, self._request = self._request, None
        self._warn(self._warnings)
        if request is not None and request.command == "blocked" and request.follow:
            self.transport.unregisterProducer()
            follow = self._of.inspection.follow
            self._stop = follow(request, self._followed, lambda text: self._warn([text]), self._of.now)
            self.transport.registerProducer(self, streaming=True)
        else:
            self._is_answered = True
            self._say({"end": True})

    def pauseProducing(self) -> None:
        """A follower does not read: what happens until it does is not kept for it."""
        self._paused = True

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._rows = iter(())

    def _followed(self, row: Row) -> None:
        if not self._paused:
            self._say({"row": row})

    def _warn(self, texts: Iterable[str]) -> None:
        if not self._paused:
            for text in texts:
                self._say({"warning": text})

    def _say(self, line: dict[str, object]) -> None:
        self._write(_encode(line) + b"\n")

    def _write(self, data: bytes) -> None:
        self.transport.write(data)

    def _lose(self) -> None:
        self.transport.loseConnection()


class Turns:
    """Has calls made one after the other, with pauses as long as they took."""

    def __init__(
        self, now: Callable[[], float], later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        self._now = now
        self._later = later
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_on = False

    def __call__(self, call: Callable[[], None]) -> None:
        """Have it called when it is its turn."""
        self._waiting.append(call)
        if not self._is_on:
            self._is_on = True
            self._later(0.0, self._next)

    def _next(self) -> None:
        if not self._waiting:
            self._is_on = False
            return
        began_at = self._now()
        while self._waiting and self._now() - began_at < TURN_S:
            self._waiting.popleft()()
        self._later(max(self._now() - began_at, 0.0), self._next)


class InspectFactory(Factory):
    """Serves askers from one ``Inspection``; ``later`` ends those that take too long to read.

    ``turns`` makes each call that it is given, at once or when the loop has time for it.
    """

    noisy = False

    def __init__(
        self,
        inspection: Inspection,
        now: Callable[[], float],
        later: Callable[[float, Callable[[], None]], object] = lambda _delay_s, _call: None,
        turns: Callable[[Callable[[], None]], None] = lambda call: call(),
    ) -> None:
        self.turns = turns
        self.inspection = inspection
        self.now = now
        self.later = later
        self.askers = 0

    def buildProtocol(self, addr: object) -> Asker:  # noqa: ARG002
        """Make the protocol of one connection."""
        return Asker(self)


def _nothing() -> None:
    """No search to end."""


def listen(reactor: IReactorUNIX, runtime_dir: Path, factory: InspectFactory) -> IListeningPort:
    """Listen on the inspection socket, in place of one that a dead enforcer left."""
    path = runtime_dir / SOCKET
    path.unlink(missing_ok=True)
    return reactor.listenUNIX(os.fspath(path), factory, mode=0o666)
