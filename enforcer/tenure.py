"""Who owns this node's rules: the lock of runtimeDir, and how it passes from one supervisor to the next.

Theory of operation: the owner holds ``lock`` and listens on ``handover.sock`` (root's alone). One that
comes asks there, is given the owner's DNS sockets, and says that it has them. The owner then ends its
enforcer and lets the lock go; who came takes it and says so. Both keep the connection until then, so
that each learns of the other's death: the owner takes the lock again, or who came waits for it. One
that has handed over goes on waiting: should its successor die, it owns the rules again.

Owns the lock, that socket and the words on it. Never starts or ends a process (``supervisor`` does).
Invariant: nobody is the owner without the lock, and an enforcer shares its owner's lock, so that two
enforcers never write the same tables. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

SOCKET = "handover.sock"
PROTOCOL = 1
MAX_SOCKETS = 253
"""As many as the kernel passes in one message (SCM_MAX_FD)."""
_LOCK_WAIT_S = 10.0
_LOOK_EVERY_S = 0.2
_LOOK_SOON_S = 0.01
_ASK_EVERY_S = 5.0
_ANSWER_WITHIN_S = 10.0
_MESSAGE_BYTES = 16384
_CREDENTIALS = struct.Struct("3i")

State = Literal["waiting", "owner", "yielding", "yielded"]
"""``yielding``: a successor has the sockets, our enforcer is to end. ``yielded``: the lock is let go."""
Sockets = Mapping[str, socket.socket]


class SupervisorError(Exception):
    """Nothing can be started; the text says why and what to do."""


class Lock:
    """``<runtimeDir>/lock``: held by a supervisor and its enforcer, named by the supervisor's process id.

    Nobody else may open it: a lock needs no more than that, and the resolver sees the folder.
    """

    def __init__(self, runtime_dir: str) -> None:
        self._folder = Path(runtime_dir)
        self.descriptor = -1
        """What holds it; -1 if it is not ours."""

    def try_to_take(self) -> bool:
        """Take it if nobody has it. ``SupervisorError`` if there can be no such file."""
        try:
            self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            lock = os.open(self._folder / "lock", flags, 0o600)
            os.fchmod(lock, 0o600)  # one of an earlier release: who can open it can hold it, to read only
        except OSError as error:
            said = f"{self._folder}: {error.strerror}; run as root or set runtimeDir"
            raise SupervisorError(said) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            if error.errno != errno.EWOULDBLOCK:
                raise SupervisorError(f"{self._folder}/lock: {error.strerror}; set runtimeDir") from None
            return False
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)
        self.descriptor = lock
        return True

    def take(self, wait_s: float = _LOCK_WAIT_S) -> None:
        """Take it, or raise ``SupervisorError`` naming the process that has it. Blocks."""
        until = time.monotonic() + wait_s
        while not self.try_to_take():
            if time.monotonic() > until:
                raise SupervisorError(
                    f"another Nameward (process {self.holder()}) uses {self._folder};"
                    " end it or set another runtimeDir"
                )
            time.sleep(0.1)

    def holder(self) -> str:
        """Return what its holder calls itself."""
        with contextlib.suppress(OSError), (self._folder / "lock").open("rb") as file:
            return file.read(32).decode("ascii", "replace").strip() or "unknown"
        return "unknown"

    def let_go(self) -> None:
        """Close our end; others of our processes that hold it keep it held."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Tenure:
    """One supervisor's claim on the rules. Call ``step`` when ``due_at`` has come, and after every event."""

    def __init__(
        self,
        runtime_dir: str,
        selector: selectors.BaseSelector,
        tell: Callable[[str, str], None],
        *,
        shares: bool,
    ) -> None:
        """``tell``: an event and its reason. ``shares``: ask the owner for the rules, leave them to who asks.

        Descriptors are registered with what to call as their data.
        """
        self.lock = Lock(runtime_dir)
        self._shares = shares
        self.state: State = "waiting"
        self.has_handed_over = False
        """Once it has, it never asks for the rules: two that want them would take them from each other."""
        self.sockets: dict[str, socket.socket] = {}
        """What goes with the rules: from a predecessor, by the supervisor, to a successor."""
        self._path = f"{runtime_dir}/{SOCKET}"
        self._selector = selector
        self._tell = tell
        self._door: socket.socket | None = None
        self._other: socket.socket | None = None
        """The connection to who has the rules, or to who will have them."""
        self._is_promised = False
        self._look_at = self._ask_at = 0.0
        self._give_up_at: float | None = None

    @property
    def due_at(self) -> float | None:
        """When to call ``step`` again (monotonic); None if only an event can matter."""
        if self.state == "waiting":
            return self._look_at
        return self._give_up_at

    def step(self, now: float) -> None:
        """Do what is due: look whether the lock is free, ask for it, give up an answer that does not come."""
        if self._give_up_at is not None and now >= self._give_up_at:
            self._part(now)
        if self.state != "waiting" or now < self._look_at:
            return
        if self.lock.descriptor >= 0 or self.lock.try_to_take():
            self._own()
            return
        self._look_at = now + (_LOOK_SOON_S if self._is_promised else _LOOK_EVERY_S)
        if self._shares and self._other is None and not self.has_handed_over and now >= self._ask_at:
            self._ask(now)

    def let_go(self, now: float) -> None:
        """Our enforcer has ended: leave the rules to the successor, who is told."""
        self.lock.let_go()
        self.state, self.has_handed_over = "yielded", True
        self._give_up_at = now + _ANSWER_WITHIN_S
        self._say({"free": 1})

    def close(self) -> None:
        """Give everything up."""
        self._close_other()
        self._close_door()
        self.lock.let_go()

    # --- one that waits --------------------------------------------------------------------------

    def _ask(self, now: float) -> None:
        self._ask_at = now + _ASK_EVERY_S
        other = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        other.settimeout(0)
        try:
            other.connect(self._path)
        except OSError:
            other.close()
            return
        self._other, self._give_up_at = other, now + _ANSWER_WITHIN_S
        self._selector.register(other, selectors.EVENT_READ, self._predecessor_said)
        self._say({"take": PROTOCOL})

    def _predecessor_said(self, now: float) -> None:
        said, given = self._hear()
        names = said.get("sockets")
        if said.get("give") == PROTOCOL and isinstance(names, list) and len(names) == len(given):
            _close(self.sockets)
            self.sockets = dict(zip(map(str, names), given, strict=True))
            self._is_promised, self._look_at = True, now
            self._say({"have": 1})
            return
        for each in given:
            each.close()
        if said.get("free"):
            self._look_at = now
        else:
            self._part(now)

    def _own(self) -> None:
        """The lock is ours: tell who had it, and be there for who will want it."""
        self._say({"mine": 1})
        if self._is_promised:
            self._tell("rules.taken_over", "another Nameward of this node handed its sockets over")
        self._close_other()
        self.state, self.has_handed_over = "owner", False
        if self._shares:
            self._open_door()

    def _open_door(self) -> None:
        self._close_door()
        door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            Path(self._path).unlink(missing_ok=True)
            before = os.umask(0o177)
            try:
                door.bind(self._path)
            finally:
                os.umask(before)
            door.listen(4)
        except OSError as error:
            door.close()
            said = f"{self._path}: {error.strerror}; a successor has to wait for our end"
            self._tell("rules.no_handover", said)
            return
        door.settimeout(0)
        self._door = door
        self._selector.register(door, selectors.EVENT_READ, self._somebody_came)

    # --- the owner -------------------------------------------------------------------------------

    def _somebody_came(self, now: float) -> None:
        if self._door is None:
            return
        try:
            other, _ = self._door.accept()
        except OSError:
            return
        other.settimeout(0)
        credentials = other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        if self._other is not None or _CREDENTIALS.unpack(credentials)[1] != os.geteuid():
            other.close()
            return
        self._other, self._give_up_at = other, now + _ANSWER_WITHIN_S
        self._selector.register(other, selectors.EVENT_READ, self._successor_said)

    def _successor_said(self, now: float) -> None:
        said, unwanted = self._hear()
        for each in unwanted:
            each.close()
        if said.get("take") == PROTOCOL and self.state == "owner":
            self._say({"give": PROTOCOL, "sockets": list(self.sockets)}, self.sockets.values())
        elif said.get("have") and self.state == "owner":
            self.state, self._give_up_at = "yielding", None
        elif said.get("mine") and self.state == "yielded":
            self._tell("rules.handed_over", "to another Nameward of this node")
            self._part(now)
        else:
            self._part(now)

    # --- both ------------------------------------------------------------------------------------

    def _part(self, now: float) -> None:
        """The other is gone, or is given up: whoever holds the lock is the owner."""
        self._close_other()
        if self.state == "yielding":
            self.state = "owner"
        elif self.state == "yielded":
            self.state, self._look_at = "waiting", now
            self._close_door()

    def _hear(self) -> tuple[Mapping[str, object], list[socket.socket]]:
        """Read one message and what comes with it; nothing said: the other is gone or speaks otherwise."""
        if self._other is None:
            return {}, []
        try:
            data, descriptors, flags, _ = socket.recv_fds(
                self._other, _MESSAGE_BYTES, MAX_SOCKETS, socket.MSG_CMSG_CLOEXEC
            )
        except OSError:
            return {}, []
        given = [socket.socket(fileno=each) for each in descriptors]
        try:
            said = json.loads(data) if data and not flags & socket.MSG_CTRUNC else {}
        except ValueError:
            said = {}
        return (said if isinstance(said, dict) else {}), given

    def _say(self, words: Mapping[str, object], sockets: Iterable[socket.socket] = ()) -> None:
        if self._other is None:
            return
        descriptors = [each.fileno() for each in sockets]
        with contextlib.suppress(OSError):  # gone: we shall read that
            socket.send_fds(self._other, [json.dumps(words).encode()], descriptors)

    def _close_other(self) -> None:
        self._is_promised, self._give_up_at = False, None
        if self._other is not None:
            self._selector.unregister(self._other)
            self._other.close()
            self._other = None

    def _close_door(self) -> None:
        if self._door is not None:
            self._selector.unregister(self._door)
            self._door.close()
            self._door = None


def _close(sockets: Sockets) -> None:
    for each in sockets.values():
        each.close()
