"""The source itself: what the cluster says, assembled in a thread and told on the loop.

Owns when that is told and saved, and the question whether a silent server lives. Never asks for objects.
Invariants: nothing is told before everything was listed once, or taken from the saved copy; a server that
cannot be heard changes nothing but what is said about it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from twisted.python.failure import Failure

from enforcer.kube.answers import ApiLost, ApiRefused
from enforcer.kube.client import Api
from enforcer.metrics import Series
from enforcer.sources import Seen
from enforcer.sources.kubernetes.cluster import Cluster, News, Place
from enforcer.sources.kubernetes.saved import SavedCopy
from enforcer.sources.kubernetes.store import only_needed
from policy.manifest import Loaded
from policy.manifest_assembly import Assembly
from policy.runtime.clock import wall_now

SAVED_AFTER_S: Final = 3.0
"""How long a start waits for the API server before the saved copy counts; its first error ends the wait."""
SAVE_AFTER_S: Final = 0.25
"""A change is saved so long after it was told: what follows from it has the processor first."""
SAVE_EVERY_S: Final = 1.0
SAVING_SHARE: Final = 50
"""Saving is at most so small a part of the time."""
SILENCE_S: Final = 20.0
"""After so long a silence of all watches the API server is asked whether it lives."""
PULSE_S: Final = 5.0
_JOIN_S: Final = 2.0


class Loop(Protocol):
    """What is needed of the reactor."""

    def seconds(self) -> float:
        """Return monotonic seconds."""

    def callFromThread(self, call: Callable[..., object], /, *arguments: object) -> object:  # noqa: N802
        """Call it on the loop."""


class KubernetesSource:
    """See ``enforcer.sources.Source`` and the module."""

    def __init__(
        self,
        reactor: Loop,
        api: Api,
        place: Place,
        saved: SavedCopy,
        fail: Callable[[Failure], object],
    ) -> None:
        self._reactor = reactor
        self._api = api
        self._place = place
        self._saved = saved
        self._fail = fail
        self._seen: Callable[[Seen], None] | None = None
        self._cluster = Cluster(api, place, reactor.seconds, self._died)
        self._assembly = Assembly(place.governed)
        self._loaded = Loaded((), (), (), {}, ())
        self._is_complete = False
        self._was_saved_read = False
        self._begun_at = reactor.seconds()
        self._is_unsaved = False
        self._save_at = 0.0
        self._save_problem = ""
        self._ended = threading.Event()
        self._worker = threading.Thread(
            target=self._guarded, args=(self._work,), name="assemble", daemon=True
        )
        self._pulse = threading.Thread(
            target=self._guarded, args=(self._feel_pulse,), name="pulse", daemon=True
        )

    # --- on the loop -----------------------------------------------------------------------------------

    def start(self, seen: Callable[[Seen], None]) -> None:
        """See ``Source``."""
        self._seen = seen
        self._begun_at = self._reactor.seconds()
        self._cluster.start()
        self._worker.start()
        self._pulse.start()

    def look(self) -> None:
        """See ``Source``: list everything anew."""
        self._cluster.again()

    def stop(self) -> None:
        """See ``Source``; waits until the last change is saved."""
        self._seen = None
        self._ended.set()
        self._cluster.stop()
        if self._worker.is_alive():
            self._worker.join(_JOIN_S)

    @property
    def counts(self) -> Mapping[Series, float]:
        """See ``Source``."""
        return {
            ("nameward_source_stale_seconds", ()): self._cluster.stale_s(),
            ("nameward_source_requests_total", ()): self._api.requests,
            ("nameward_source_failures_total", ()): self._cluster.failures,
        }

    def _tell(self, seen: Seen) -> None:
        if self._seen is not None:
            self._seen(seen)

    # --- on threads ------------------------------------------------------------------------------------

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run a thread; one that ends by a mistake of ours ends the process, which a fresh start repairs."""
        try:
            work()
        finally:
            if not self._ended.is_set():
                self._died()

    def _died(self) -> None:
        lost = Failure(RuntimeError("a thread of the source has ended; its traceback is above"))
        self._reactor.callFromThread(self._fail, lost)

    def _work(self) -> None:
        """Tell news as they come, and save them, until ``stop``."""
        while not self._ended.is_set():
            if self._cluster.wait(self._next_s()):
                self._tell_news(self._cluster.take())
            self._use_saved()
            if self._reactor.seconds() >= self._save_at:
                self._save()
        self._save()

    def _next_s(self) -> float | None:
        """Return when there is something to do without news, in seconds."""
        now = self._reactor.seconds()
        due = [self._save_at] if self._is_unsaved else []
        if not self._is_complete and not self._was_saved_read:
            due.append(self._begun_at + SAVED_AFTER_S)
        return max(min(due) - now, 0.0) if due else None

    def _tell_news(self, news: News) -> None:
        if news.reads is not None:
            loaded = self._assembly.assemble(news.reads)
            self._loaded = only_needed(loaded, self._place.node, names_pods=news.names_pods)
            self._is_complete = self._is_unsaved = True
            self._save_at = max(self._save_at, self._reactor.seconds() + SAVE_AFTER_S)
        problems = (*news.problems, self._save_problem) if self._save_problem else news.problems
        seen = Seen(self._loaded, self._is_complete, problems, news.since, news.is_fresh)
        self._reactor.callFromThread(self._tell, seen)

    def _use_saved(self) -> None:
        """Take the saved copy, once, where the server is not there at the start."""
        if self._is_complete or self._was_saved_read:
            return
        waited_s = self._reactor.seconds() - self._begun_at
        if waited_s >= SAVED_AFTER_S or self._cluster.is_troubled:
            self._was_saved_read = True
            found = self._saved.read()
            if found is not None:
                self._cluster.use_saved(*found)

    def _save(self) -> None:
        """Save what is known, if the server itself has said it and it has changed."""
        objects = self._cluster.objects() if self._is_unsaved else None
        if objects is None:
            return
        began_at = self._reactor.seconds()
        self._is_unsaved = False
        try:
            self._saved.write(objects, wall_now())
            self._save_problem = ""
        except OSError as error:
            self._save_problem = (
                f"what the API server says cannot be saved ({error.strerror}): "
                "a restart without it would deny everything"
            )
        ended_at = self._reactor.seconds()
        self._save_at = ended_at + max(SAVE_EVERY_S, (ended_at - began_at) * SAVING_SHARE)

    def _feel_pulse(self) -> None:
        """Ask a server that is silent whether it lives; watches of one that does not begin anew."""
        answered_at = self._reactor.seconds()
        while not self._ended.wait(PULSE_S):
            answered_s = self._reactor.seconds() - answered_at
            if min(self._cluster.silence_s(), answered_s) < SILENCE_S:
                continue
            with contextlib.suppress(ApiRefused):  # it lives, and minds its own
                try:
                    self._api.get("/version")
                except ApiLost:
                    self._cluster.reconnect()
            answered_at = self._reactor.seconds()
