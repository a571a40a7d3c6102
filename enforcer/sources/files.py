"""The source ``files``: manifests in files and folders, watched.

Owns when to look: at inotify's word at the files it names, and every few seconds at everything anyway (a
folder that was replaced, a file system without inotify). What a look makes of the files is
``enforcer.sources.tree``'s; parsing happens in a thread. Invariant: one look and one parse at a time, and
the last change is always seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from time import thread_time
from typing import NamedTuple

from twisted.internet import inotify
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
from policy.runtime.plain_reactor import EPollReactor

POLL_S, LONGEST_POLL_S = 2.0, 5.0
LOOKING_SHARE = 50
"""Looking at everything without being told is about so small a part of the time."""
_WATCHED = (
    inotify.IN_MODIFY
    | inotify.IN_CLOSE_WRITE
    | inotify.IN_MOVED_TO
    | inotify.IN_MOVED_FROM
    | inotify.IN_CREATE
    | inotify.IN_DELETE
    | inotify.IN_ATTRIB
    | inotify.IN_MOVE_SELF
)
_ENDS = inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF | inotify.IN_UNMOUNT
"""What was watched is not there any more; after the first Twisted gives all its watches up."""
Identity = tuple[int, int]


class _Looked(NamedTuple):
    """The outcome of one look: None if nothing changed; whether to look again soon; whether at everything."""

    seen: Seen | None
    again: bool
    at_all: bool
    cpu_s: float


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
        self.watched: dict[str, Identity] = {}
        """Paths that inotify tells of, with device and inode."""
        self.looks = 0
        """How often it looked at everything."""
        self._writing: set[str] = set()
        self._told_of: dict[str, bool] = {}
        """What inotify named since the last look, and whether it was renamed into place."""
        self._seen: Callable[[Seen], None] | None = None
        self._timer: IDelayedCall | None = None
        self._is_looking = False
        self._is_woken = False
        self._look_again = False
        self._look_at_all = True
        self._poll_at = 0.0

    def start(self, seen: Callable[[Seen], None]) -> None:
        """See ``Source``."""
        self._seen = seen
        self.look()

    def look(self) -> None:
        """See ``Source``."""
        self._look_at_all = True
        self._soon()

    def stop(self) -> None:
        """See ``Source``."""
        self._seen = None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._unwatch()

    @property
    def counts(self) -> Mapping[Series, float]:
        """See ``Source``: files have none."""
        return {}

    def _soon(self) -> None:
        self._look_again = True
        if not self._is_looking:
            self._begin()

    def _begin(self) -> None:
        self._is_looking, self._look_again = True, False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        now = self._reactor.seconds()
        at_all = self._look_at_all or now >= self._poll_at
        told, self._told_of, self._look_at_all = self._told_of, {}, False
        if at_all:
            self._follow_places()
        work = deferToThreadPool(
            self._reactor, self._threads, self._work, now, None if at_all else told, frozenset(self._writing)
        )
        work.addCallback(self._done)
        work.addErrback(self._fail)

    def _work(self, now: float, told: Mapping[str, bool] | None, writing: frozenset[str]) -> _Looked:
        """Look and parse; in a thread, one at a time."""
        began_s = thread_time()
        looked = None if told is None else self._tree.look_at(now, told, writing)
        at_all = looked is None
        changed, again = self._tree.look(now, writing) if looked is None else looked
        seen = None
        if changed:
            loaded = self._assembly.assemble(self._tree.reads())
            seen = Seen(loaded, self._tree.complete, self._tree.problems, now)
        return _Looked(seen, again, at_all, thread_time() - began_s)

    def _done(self, looked: _Looked) -> None:
        self._is_looking = False
        if self._seen is None:
            return
        if looked.seen is not None:
            self._seen(looked.seen)
        now = self._reactor.seconds()
        if looked.at_all:
            self.looks += 1
            self._poll_at = now + min(max(POLL_S, looked.cpu_s * LOOKING_SHARE), LONGEST_POLL_S)
            if self._follow(self._tree.folders):
                self.look()  # nobody said what happened there before
                return
        if self._look_again:
            self._begin()
            return
        wait_s = SETTLE_S * 1.1 if looked.again else max(self._poll_at - now, 0.0)
        self._timer = self._reactor.callLater(wait_s, self._soon)

    # --- inotify ---------------------------------------------------------------------------------

    def _follow_places(self) -> None:
        """Watch every configured path that exists."""
        places = {}
        for path in self._paths:
            try:
                status = os.stat(path)
            except OSError:
                continue
            places[path] = (status.st_dev, status.st_ino)
        self._follow(places)

    def _follow(self, places: Mapping[str, Identity]) -> bool:
        """Watch these as well; what is watched already costs nothing. Returns whether any is new."""
        new = {path: each for path, each in places.items() if self.watched.get(path) != each}
        if any(path in self.watched for path in new):
            self._unwatch()  # a folder in the place of another: Twisted's watch of it may be the old one's
            new = {**self._tree.folders, **new}
        before = len(self.watched)
        for path, each in new.items():
            try:
                if self._watch is None:
                    self._watch = inotify.INotify(self._reactor)
                    self._watch.startReading()
                self._watch.watch(FilePath(path), _WATCHED, callbacks=[self._told])
            except inotify.INotifyError:
                continue  # it is gone again, or there are too many: polls see it
            self.watched[path] = each
        return len(self.watched) > before

    def _unwatch(self) -> None:
        watch, self._watch = self._watch, None
        self.watched = {}
        if watch is not None:
            watch.loseConnection()

    def _told(self, _: object, path: FilePath[bytes], mask: int) -> None:
        """Hear of a change; the ``FilePath`` may be of octets."""
        name = os.fsdecode(path.path)
        if mask & inotify.IN_MODIFY:
            self._writing.add(name)
            return  # wait until its writer closes it; a poll reports one that never does
        self._writing.discard(name)
        if mask & _ENDS:
            self._unwatch()
        if mask & (_ENDS | inotify.IN_ISDIR):
            self._look_at_all = True
        self._told_of[name] = self._told_of.get(name, False) or bool(mask & inotify.IN_MOVED_TO)
        if not self._is_woken:  # first hear all that happened: a renamed file has two names
            self._is_woken = True
            self._reactor.callLater(0, self._woken)

    def _woken(self) -> None:
        self._is_woken = False
        if self._seen is not None:
            self._soon()
