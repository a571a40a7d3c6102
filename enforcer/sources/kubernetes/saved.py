"""The saved copy: what the API server said last, for a start while it cannot be asked.

Owns ``<runtimeDir>/cluster.json``. Never an authority: it counts for this boot, this node and this server
alone, goes through the same readers as what the server says, and admits no pod that was not admitted
before. Invariant: any content of the file reads as objects or as nothing, never as an error.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from enforcer.sources.kubernetes.kinds import BY_KIND, Cut

MAX_FILE_BYTES = 256 * 1024 * 1024
_VERSION = 1


class Origin(msgspec.Struct, frozen=True):
    """Where a copy comes from; one of another origin is nothing."""

    boot_id: str
    node: str
    cluster: str
    server: str


class Copy(msgspec.Struct, frozen=True):
    """The file's content. ``at`` is wall time, for people."""

    version: int
    origin: Origin
    at: str
    objects: dict[str, list[msgspec.Raw]]


class SavedCopy:
    """One file, written whole and at once."""

    def __init__(self, path: Path, origin: Origin) -> None:
        self._path = path
        self._origin = origin

    def write(self, objects: Mapping[str, Sequence[Cut]], at: str) -> None:
        """Replace the file. ``OSError`` leaves the old one."""
        listed = {kind: [msgspec.Raw(cut.raw) for cut in cuts] for kind, cuts in objects.items()}
        data = msgspec.json.encode(Copy(_VERSION, self._origin, at, listed))
        beside = self._path.with_suffix(".next")
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(beside, flags, 0o600), "wb") as file:
            file.write(data)
        os.replace(beside, self._path)

    def read(self) -> tuple[dict[str, list[Cut]], str] | None:
        """Return the objects by kind and when they were saved; None without a copy that counts."""
        data = self._content()
        if data is None:
            return None
        try:
            copy = msgspec.json.decode(data, type=Copy)
            if (
                copy.version != _VERSION
                or copy.origin != self._origin
                or copy.objects.keys() != BY_KIND.keys()
            ):
                return None
            found: dict[str, list[Cut]] = {}
            for kind, raws in copy.objects.items():
                objects = [msgspec.json.decode(raw) for raw in raws]
                found[kind] = [BY_KIND[kind].cut(each) for each in objects if isinstance(each, dict)]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        return found, copy.at

    def _content(self) -> bytes | None:
        """Return the file's content, if nobody else can have written it."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            is_ours = status.st_uid == os.geteuid() and not status.st_mode & 0o077
            if not stat.S_ISREG(status.st_mode) or not is_ours or status.st_size > MAX_FILE_BYTES:
                return None
            return file.read(MAX_FILE_BYTES + 1)
