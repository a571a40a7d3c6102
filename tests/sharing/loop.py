"""A loop for the door without a reactor, and someone who writes down what the door says."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from enforcer.sharing.redis.credentials import Credentials
from enforcer.sharing.redis.door import Door, Entry, Trouble
from policy.runtime.redis_url import parse_redis_url

NODE, ACKS, REQUESTS = b"nameward:c:{a}:node", b"nameward:c:{a}:acks", b"nameward:c:{a}:requests"
DEADLINE_S = 60.0


class Loop:
    """Calls from threads are made while the test waits, one after the other, in the test's thread."""

    def __init__(self) -> None:
        self._calls: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._came = threading.Condition()
        self.thread = threading.get_ident()

    def callFromThread(self, call: Callable[..., object], /, *args: object) -> None:
        """As a reactor's."""
        with self._came:
            self._calls.append((call, args))
            self._came.notify()

    def turn(self, wait_s: float = 0.01) -> None:
        """Make the calls that have come, after waiting for one."""
        with self._came:
            if not self._calls:
                self._came.wait(wait_s)
            calls, self._calls = self._calls, deque()
        for call, args in calls:
            call(*args)

    def until(self, condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> bool:
        """Turn until the condition holds; False after the deadline."""
        limit_at = time.monotonic() + deadline_s
        while not condition():
            if time.monotonic() > limit_at:
                return False
            self.turn()
        return True


class Visitor:
    """A door with its loop, and what it said: ``said`` is "up" and the reasons of losses, in order."""

    def __init__(
        self, url: str, credentials: Credentials, *, streams: Sequence[bytes] = (ACKS,), pause_s: float = 0.2
    ) -> None:
        self.loop = Loop()
        self.said: list[str] = []
        self.troubles: list[Trouble] = []
        self.entries: list[tuple[bytes, Entry]] = []
        self.new_keys = 0
        self.bugs: list[object] = []
        self.door = Door(
            place=parse_redis_url(url),
            credentials=credentials,
            home=NODE,
            streams=streams,
            events=self,
            reactor=self.loop,
            failed=self.bugs.append,
            longest_pause_s=pause_s,
        )

    # --- Events -----------------------------------------------------------------------------------

    def redis_up(self) -> None:
        """The door: up."""
        assert threading.get_ident() == self.loop.thread
        assert self.door.is_up
        assert self.door.trouble == ""
        self.said.append("up")

    def redis_lost(self, trouble: Trouble) -> None:
        """The door: lost."""
        assert threading.get_ident() == self.loop.thread
        assert not self.door.is_up
        assert self.door.trouble == trouble
        self.said.append(trouble.reason)
        self.troubles.append(trouble)

    def entries_came(self, stream: bytes, entries: Sequence[Entry]) -> None:
        """The door: entries."""
        assert threading.get_ident() == self.loop.thread
        self.entries += [(stream, entry) for entry in entries]

    def keys_changed(self) -> None:
        """The door: other HMAC keys."""
        self.new_keys += 1

    # --- what tests ask ---------------------------------------------------------------------------

    def up(self) -> Visitor:
        """Wait until it is up."""
        assert self.loop.until(lambda: self.door.is_up), self.door.trouble
        return self

    def lost(self, reason: str) -> str:
        """Wait until it is lost for this reason; returns the sentence."""
        is_lost = lambda: not self.door.is_up and getattr(self.door.trouble, "reason", "") == reason  # noqa: E731
        assert self.loop.until(is_lost), (self.door.is_up, self.door.trouble, self.said)
        return str(self.door.trouble)

    def write(self, *commands: bytes) -> object:
        """Write, and wait for the replies."""
        found: list[object] = []
        self.door.write(commands, found.append)
        assert self.loop.until(lambda: found), self.door.trouble
        return found[0]

    def send(self, key: bytes, *command: bytes) -> object:
        """Send, and wait for the reply."""
        found: list[object] = []
        self.door.send(key, command, found.append)
        assert self.loop.until(lambda: found), self.door.trouble
        return found[0]

    def ask(self, work, deadline_s: float = DEADLINE_S) -> object:
        """Ask, and wait for what comes of it."""
        found: list[object] = []
        self.door.ask(work, found.append, deadline_s)
        assert self.loop.until(lambda: found), self.door.trouble
        return found[0]

    def __enter__(self) -> Visitor:
        """Start."""
        self.door.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop; a bug in a thread is the test's failure."""
        self.door.stop()
        assert self.bugs == []
