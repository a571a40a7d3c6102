"""A list that is kept up to date by a watch: one thread for one collection of the API.

Owns when to list, watch and wait. Never knows what the objects mean. Invariants: a sink hears a complete
list before any change, and then every change in the server's order; no failure is taken for an empty
list; what the server said is never asked for again faster than the pause allows.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Generic, Protocol, TypeVar

from enforcer.kube.answers import ApiLost, ApiRefused, Json, Kind, version_of
from enforcer.kube.client import Api, Watching

FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0
LONG_WATCH_S: Final = 5.0
"""A watch that lived so long was no failure: the next one begins at once."""
WATCH_S: Final = (240, 480)
"""How long the server keeps a watch: by chance within these, so that nodes do not come all at once."""

SHORT_PAUSE_S: Final = 1.0
"""The longest pause after what is no failure: a watch that the server ended soon, a version too old."""

T = TypeVar("T")


class Sink(Protocol[T]):
    """Who wants to know. Called on the reflector's thread, one call at a time."""

    def replaced(self, items: list[T], /) -> None:
        """Take the complete list: what is not in it is gone."""

    def changed(self, kind: Kind, item: T, /) -> None:
        """Take one change: ADDED, MODIFIED or DELETED (``item`` is then its last state)."""

    def trouble(self, sentence: str | None, /) -> None:
        """Hear why nothing can be heard, or (None) that everything is heard again."""


class Reflector(Generic[T]):
    """Lists and watches ``path`` until ``stop``. ``keep`` makes of each object what the sink gets."""

    def __init__(
        self,
        api: Api,
        path: str,
        sink: Sink[T],
        *,
        keep: Callable[[Json], T],
        query: Mapping[str, str] | None = None,
        name: str = "reflector",
        first_version: str | None = "0",
        watch_s: tuple[int, int] = WATCH_S,
        relist_s: float | None = None,
        died: Callable[[], None] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``first_version`` None: versions mean little (they may go down), so no list names one, and a
        list comes before every watch.

        ``relist_s``: list again after so long, whatever the watch says. ``died``: called on its thread if
        that ends unasked, by a mistake in ``keep`` or in the sink.
        """
        self._api = api
        self._path = path
        self._sink = sink
        self._keep = keep
        self._query = dict(query or {})
        self._trusts_versions = first_version is not None
        self._version = first_version or ""
        self._watch_s = watch_s
        self._relist_s = relist_s
        self._died = died or _nothing
        self._now = now
        self._must_list = True
        self._listed_at = float("-inf")
        self._failures = 0
        self._in_trouble = False
        self.is_missing = False
        """Whether the server says that it serves no such collection."""
        self._wake = threading.Event()
        self._stopped = False
        self._lock = threading.Lock()
        self._watching: Watching | None = None
        self.heard_at = float("-inf")
        """When the server last said something on this collection (by ``now``)."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; the sink is called from now on."""
        self._thread.start()

    def again(self) -> None:
        """List anew now: whatever it waits for ends."""
        self._must_list, self._failures = True, 0
        self._interrupt()

    def hurry(self) -> None:
        """Try again now what it waits to try: somebody knows that the server answers."""
        if self._in_trouble:
            self._wake.set()

    def reconnect(self) -> None:
        """Give up the watch as it is and begin the next: somebody knows that this one is dead."""
        with self._lock:
            if self._watching is not None:
                self._watching.close()

    def stop(self, join_s: float = 0.0) -> None:
        """End; no call comes after the one that runs. Waits at most ``join_s`` for the thread."""
        self._stopped = True
        self._interrupt()
        if join_s and self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(join_s)

    def _interrupt(self) -> None:
        self._wake.set()
        self.reconnect()

    # --- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopped:
                self._turn()
        finally:
            if not self._stopped:
                self._died()

    def _turn(self) -> None:
        """List if that is due, watch to the watch's end, and wait if that came too soon."""
        self._wake.clear()
        began_at = self._now()
        pause_s = 0.0
        try:
            if self._must_list or self._is_due() or not self._trusts_versions:
                self._list()
            self._watch()
            if self._now() - began_at < LONG_WATCH_S and not self._must_list:
                pause_s = self._pause(None, SHORT_PAUSE_S)
        except ApiRefused as refused:
            pause_s = self._refused(refused)
        except ApiLost as lost:
            self.is_missing = False
            pause_s = self._failed(str(lost), None)
        if self._now() - began_at >= LONG_WATCH_S and not self._in_trouble:
            self._failures = 0
        if pause_s and not self._stopped:
            self._wake.wait(pause_s)

    def _is_due(self) -> bool:
        return self._relist_s is not None and self._now() - self._listed_at >= self._relist_s

    def _list(self) -> None:
        """List; not older than what is known, so that an API server that lags brings nothing back."""
        query = dict(self._query)
        if self._trusts_versions and self._version:
            query["resourceVersion"] = self._version
        self._must_list = False
        try:
            listed = self._api.list_kept(self._path, self._keep, **query)
        except (ApiRefused, ApiLost):
            self._must_list = True
            raise
        if self._stopped:
            return
        self._version = listed.resource_version
        self._listed_at = self.heard_at = self._now()
        self._sink.replaced(listed.items)

    def _watch(self) -> None:
        if self._stopped or self._must_list:
            return
        seconds = random.randint(*self._watch_s)  # noqa: S311 - spreads load, hides nothing
        if self._relist_s is not None:
            seconds = max(min(seconds, round(self._relist_s)), 1)
        watching = self._api.watch(self._path, self._version, seconds, **self._query)
        with self._lock:
            self._watching = watching
        if self._stopped or self._must_list:
            watching.close()
        self._heard()
        try:
            self._follow(watching)
        except ApiLost:
            return  # the next watch goes on where this one broke off, or says what is wrong
        finally:
            with self._lock:
                self._watching = None
            watching.close()

    def _follow(self, watching: Watching) -> None:
        for event in watching:
            if self._stopped:
                return
            self._version = version_of(event.object) or self._version
            self._heard()
            if event.kind != "BOOKMARK":
                self._sink.changed(event.kind, self._keep(event.object))

    def _heard(self) -> None:
        self.heard_at = self._now()
        if self._in_trouble and not self._stopped:
            self._in_trouble = False
            self._sink.trouble(None)

    def _refused(self, refused: ApiRefused) -> float:
        self.is_missing = refused.status == 404
        if not (refused.status == 410 or _is_ahead(refused)):
            return self._failed(f"{self._path}: the API server refused: {refused}", refused.retry_after_s)
        # The version is too old to watch from, or newer than anything that this server has.
        had_listed, self._must_list = not self._must_list, True
        if not had_listed or _is_ahead(refused):
            self._version = ""
        return self._pause(refused.retry_after_s, SHORT_PAUSE_S)

    def _failed(self, sentence: str, retry_after_s: float | None) -> float:
        if not self._stopped:
            self._in_trouble = True
            self._sink.trouble(sentence)
        return self._pause(retry_after_s, LONGEST_PAUSE_S)

    def _pause(self, retry_after_s: float | None, longest_s: float) -> float:
        """Return how long to wait: twice as long with each failure, at least what the server asked for."""
        longest_s = min(FIRST_PAUSE_S * 2.0 ** min(self._failures, 16), longest_s)
        self._failures += 1
        return max(random.uniform(0.5, 1.0) * longest_s, retry_after_s or 0.0)  # noqa: S311 - as above


def _is_ahead(refused: ApiRefused) -> bool:
    """Say whether a server has not seen the version yet, or (after a restore) never will."""
    return refused.status in {400, 500, 504} and "resource version" in refused.message.lower()


def _nothing() -> None:
    return
