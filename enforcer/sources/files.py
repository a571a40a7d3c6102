"""The source ``files``: manifests in files and folders, watched.

Owns when to look: at inotify's word, and every few seconds anyway (a folder that was replaced, a file
system without inotify). What a look makes of the files is ``enforcer.sources.tree``'s; parsing
happens in a thread. Invariant: one look and one parse at a time, and the last change is always seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from twisted.internet import inotify
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath
from twisted.python.threadpool import ThreadPool

from enforcer.metrics import Series
from enforcer.sources import Seen
from enforcer.sources.tree import SETTLE_S, Tree
from policy.manifest import Governed
from policy.manifest_assembly import Assembly

POLL_S = 2.0
_WATCHED = (
    inotify.IN_MODIFY
    | inotify.IN_CLOSE_WRITE
    | inotify.IN_MOVED_TO
    | inotify.IN_MOVED_FROM
    | inotify.IN_CREATE
    | inotify.IN_DELETE
    | inotify.IN_ATTRIB
)


class FilesSource:
    """Reads and watches; calls ``seen`` on the reactor's thread. See ``enforcer.sources.Source``."""

    def __init__(
        self,
        reactor: EPollReactor,
        threads: ThreadPool,
        paths: Sequence[str],
        governed: Governed,
        fail: Callable[[Failure], object],
    ) -> None:
        self._reactor = reactor
        self._threads = threads
        self._paths = tuple(paths)
        self._assembly = Assembly(governed)
        self._fail = fail
        self._tree = Tree(paths)
        self._watch: inotify.INotify | None = None
        self._writing: set[str] = set()
        self._seen: Callable[[Seen], None] | None = None
        self._timer: IDelayedCall | None = None
        self._is_looking = False
        self._look_again = False

    def start(self, seen: Callable[[Seen], None]) -> None:
        """See ``Source``."""
        self._seen = seen
        self._watch = inotify.INotify(self._reactor)
        self._watch.startReading()
        self.look()

    def look(self) -> None:
        """See ``Source``."""
        self._look_again = True
        if not self._is_looking:
            self._begin()

    def stop(self) -> None:
        """See ``Source``."""
        self._seen = None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._watch is not None:
            self._watch.loseConnection()
            self._watch = None

    @property
    def counts(self) -> Mapping[Series, float]:
        """See ``Source``: files have none."""
        return {}

    def _begin(self) -> None:
        self._is_looking, self._look_again = True, False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._follow_places()
        detected_at = self._reactor.seconds()
        work = deferToThreadPool(
            self._reactor, self._threads, self._work, detected_at, frozenset(self._writing)
        )
        work.addCallback(self._done)
        work.addErrback(self._fail)

    def _work(self, now: float, writing: frozenset[str]) -> tuple[Seen | None, bool]:
        """Look and parse; in a thread, one at a time."""
        changed, again = self._tree.look(now, writing)
        if not changed:
            return None, again
        loaded = self._assembly.assemble(self._tree.reads())
        return Seen(loaded, self._tree.complete, self._tree.problems, now), again

    def _done(self, result: tuple[Seen | None, bool]) -> None:
        seen, again = result
        self._is_looking = False
        if self._seen is None:
            return
        if seen is not None:
            self._seen(seen)
        if self._look_again:
            self._begin()
            return
        self._timer = self._reactor.callLater(SETTLE_S * 1.1 if again else POLL_S, self.look)

    def _follow_places(self) -> None:
        """Watch every configured path that exists; a watch on what is watched already costs nothing."""
        if self._watch is None:
            return
        for path in self._paths:
            if os.path.exists(path):
                self._watch.watch(
                    FilePath(path),
                    _WATCHED,
                    autoAdd=True,
                    callbacks=[self._told],
                    recursive=os.path.isdir(path),
                )

    def _told(self, _: object, path: FilePath[bytes], mask: int) -> None:
        """Hear of a change; the ``FilePath`` may be of octets."""
        name = os.fsdecode(path.path)
        if mask & inotify.IN_MODIFY:
            self._writing.add(name)
            return  # wait until its writer closes it; a poll reports one that never does
        self._writing.discard(name)
        self.look()
