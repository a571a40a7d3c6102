"""The manifests' files as they are on disk: what counts as read, and what is kept instead.

Owns the last good reading of every file. Never waits, never relates one file to another.
Invariants: a file that is being written, or whose new content does not parse, keeps its last good
content; a configured path that vanished keeps everything it held; a renamed file is never missing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from policy.manifest import SUFFIXES, FileRead, read_file
from policy.runtime.clock import wall_seconds

MAX_FILES = 20_000
MAX_FILE_BYTES = 16 * 1024 * 1024
SETTLE_S = 0.05
"""A changed file is read once its size and times have stood still this long."""
MOVE_S = 0.5
"""How long a file that is gone may wait for unsettled ones: it may have become one of them."""
OLD_S = 3.0
"""A file whose times are so long ago has stood still, whoever looks at it for the first time."""


class Signature(NamedTuple):
    """What tells one state of a file from another without reading it."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int


class _Place:
    """One configured path."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.read_once = False
        self.device = -1
        self.problem = ""


class _File:
    __slots__ = ("missing_at", "problem", "read", "seen", "seen_at", "taken")

    def __init__(self) -> None:
        self.missing_at: float | None = None
        self.read: FileRead | None = None
        self.taken: Signature | None = None
        self.seen: Signature | None = None
        self.seen_at = float("-inf")
        self.problem = ""


class Tree:
    """All files of the configured paths; ``look`` brings it up to date as far as that is safe."""

    def __init__(self, paths: Sequence[str], wall: Callable[[], float] = wall_seconds) -> None:
        self._wall = wall
        self._places = [_Place(path) for path in paths]
        self._files: dict[str, _File] = {}
        self._missing: set[str] = set()
        self._unsettled: set[str] = set()
        self._reads: dict[str, FileRead] = {}
        """Last good readings; in the order of their paths once ``reads`` was called."""
        self._is_sorted = True
        self._wrong: dict[str, str] = {}
        self.folders: dict[str, tuple[int, int]] = {}
        """Folders that were listed last, with device and inode."""

    @property
    def complete(self) -> bool:
        """True once every configured path was read."""
        return all(place.read_once for place in self._places)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, a sentence each."""
        said = [place.problem for place in self._places if place.problem]
        return (*said, *(self._wrong[path] for path in sorted(self._wrong)))

    def reads(self) -> list[FileRead]:
        """Return each file's last good reading, in the order of their paths."""
        if not self._is_sorted:
            self._reads = dict(sorted(self._reads.items()))
            self._is_sorted = True
        return list(self._reads.values())

    def look(self, now: float, writing: frozenset[str] = frozenset()) -> tuple[bool, bool]:
        """Look at every file. Returns whether anything changed, and whether to look again after ``SETTLE_S``.

        ``writing`` are files that somebody has open and has written to.
        """
        before = self.problems
        changed = again = False
        found: set[str] = set()
        self.folders = {}
        self._unsettled = set()
        for place in self._places:
            paths = self._paths(place)
            if paths is None:
                found.update(path for path in self._files if _is_under(path, place.path))
                continue
            for path in paths:
                found.add(path)
                took, unsettled = self._look_at(path, now, is_written=path in writing)
                changed |= took
                again |= unsettled
            if not again and not place.read_once:
                place.read_once = changed = True
        for path in self._missing & found:
            self._files[path].missing_at = None
        self._missing = self._files.keys() - found
        changed |= self._forget(now, unsettled=again)
        return changed or before != self.problems, again

    def look_at(
        self, now: float, told: Mapping[str, bool], writing: frozenset[str] = frozenset()
    ) -> tuple[bool, bool] | None:
        """Look at these files alone, and at those that were not settled. None: ``look`` must look at all.

        ``told`` maps paths to whether they are whole already: renamed into place. Returns as ``look`` does.
        """
        paths = sorted(path for path in {*told, *self._unsettled} if not self._is_nothing(path))
        if not self._stands() or not all(map(self._is_plain, paths)):
            return None
        before = self.problems
        changed = again = False
        for path in paths:
            if not os.path.lexists(path):
                self._unsettled.discard(path)
                self._missing.update({path} & self._files.keys())
                continue
            if path in self._missing:
                self._missing.discard(path)
                self._files[path].missing_at = None
            took, unsettled = self._look_at(
                path, now, is_written=path in writing, is_whole=told.get(path, False)
            )
            changed |= took
            again |= unsettled
        again |= any(self._is_just_gone(path, now) for path in self._missing)
        changed |= self._forget(now, unsettled=again)
        return changed or before != self.problems, again

    def _is_just_gone(self, path: str, now: float) -> bool:
        """Say whether nobody may have told yet what became of a file."""
        missing_at = self._files[path].missing_at
        return missing_at is None or now - missing_at < SETTLE_S

    def _stands(self) -> bool:
        """Say whether every place was read and is where it was."""
        for place in self._places:
            try:
                device = os.stat(place.path).st_dev
            except OSError:
                return False
            if not place.read_once or place.problem or device != place.device:
                return False
        return len(self._files) < MAX_FILES

    def _is_nothing(self, path: str) -> bool:
        """Say whether a path is in a folder of ours, and no manifest there."""
        folder, name = os.path.split(path)
        return folder in self.folders and not name.startswith(".") and not name.endswith(SUFFIXES)

    def _is_plain(self, path: str) -> bool:
        """Say whether a path is, or was, a file that ``look`` would find."""
        folder, name = os.path.split(path)
        return folder in self.folders and not name.startswith(".") and not os.path.isdir(path)

    def _forget(self, now: float, *, unsettled: bool) -> bool:
        """Drop files that are gone. While others settle they wait: a renamed file is gone and new at once."""
        changed = False
        for path in list(self._missing):
            file = self._files[path]
            if file.missing_at is None:
                file.missing_at = now
            if not unsettled or now - file.missing_at >= MOVE_S:
                del self._files[path]
                self._missing.discard(path)
                self._wrong.pop(path, None)
                changed |= self._reads.pop(path, None) is not None
        return changed

    def _paths(self, place: _Place) -> list[str] | None:
        """Return the place's files; None where it cannot be listed: what was known stays."""
        try:
            status = os.stat(place.path)
            paths = sorted(_walk(place.path, self.folders)) if stat.S_ISDIR(status.st_mode) else [place.path]
        except OSError as error:
            kept = "; what was read before stays in force" if place.read_once else ""
            place.problem = f"{place.path}: {error.strerror}{kept}"
            return None
        if place.read_once and not paths and status.st_dev != place.device:
            place.problem = (
                f"{place.path}: is empty on another file system; what was read before stays in force"
            )
            return None
        if len(paths) > MAX_FILES:
            place.problem = f"{place.path}: more than {MAX_FILES} files; what was read before stays in force"
            return None
        place.problem, place.device = "", status.st_dev
        return paths

    def _look_at(
        self, path: str, now: float, *, is_written: bool, is_whole: bool = False
    ) -> tuple[bool, bool]:
        file = self._files.setdefault(path, _File())
        took, unsettled = self._taken(path, file, now, is_written=is_written, is_whole=is_whole)
        if file.problem:
            self._wrong[path] = file.problem
        else:
            self._wrong.pop(path, None)
        if unsettled:
            self._unsettled.add(path)
        else:
            self._unsettled.discard(path)
        if took and file.read is not None:
            self._is_sorted = self._is_sorted and path in self._reads
            self._reads[path] = file.read
        return took, unsettled

    def _taken(
        self, path: str, file: _File, now: float, *, is_written: bool, is_whole: bool
    ) -> tuple[bool, bool]:
        try:
            signature = _signature(os.stat(path))
        except OSError as error:
            file.problem = f"{path}: {error.strerror}" + _kept(file)
            return False, False
        if signature == file.taken:
            return False, False
        if signature != file.seen:
            file.seen, file.seen_at = signature, now
        if is_written:
            file.problem = f"{path}: is being written" + _kept(file)
            return False, False
        is_old = self._wall() - max(signature.modified_ns, signature.changed_ns) / 1e9 > OLD_S
        if now - file.seen_at < SETTLE_S and not is_old and not is_whole:
            return False, True
        return _take(path, file, signature)


def _take(path: str, file: _File, signature: Signature) -> tuple[bool, bool]:
    try:
        text, after = _read(path)
    except (OSError, ValueError) as error:
        file.taken, file.problem = signature, f"{path}: {_said(error)}" + _kept(file)
        return False, False
    if after != signature:
        return False, True
    file.taken = signature
    read = read_file(path, text)
    if file.read is not None and not read.readable:
        said = "; ".join(f"document {each.document}: {each.message}" for each in read.findings[:3])
        file.problem = f"{path}: {said}" + _kept(file)
        return False, False
    changed = file.read != read
    file.read, file.problem = read, ""
    return changed, False


def _kept(file: _File) -> str:
    return "; its last good content stays in force" if file.read is not None else ""


def _said(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _walk(folder: str, folders: dict[str, tuple[int, int]]) -> Iterator[str]:
    """List manifest files under a folder; hidden ones (``..data`` of a ConfigMap) are skipped."""
    status = os.stat(folder)
    folders[folder] = (status.st_dev, status.st_ino)
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, folders)
            elif entry.name.endswith(SUFFIXES):
                yield entry.path


def _is_under(path: str, place: str) -> bool:
    return path == place or path.startswith(place.rstrip("/") + "/")


def _signature(status: os.stat_result) -> Signature:
    return Signature(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _read(path: str) -> tuple[str, Signature]:
    """Read a whole regular file with its signature afterwards; ``ValueError`` if it is no text of ours."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("is no regular file")
        data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"is larger than {MAX_FILE_BYTES >> 20} MiB")
        return data.decode("utf-8"), _signature(os.fstat(descriptor))
