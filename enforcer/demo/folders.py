"""Folders of one run under the temporary directory (or in memory), whose names say whose they are.

Owns making them and removing those whose process is gone, so that a run that was killed leaves
nothing for ever. Never removes a folder of a living process.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from enforcer.demo.processes import parent_of

_PREFIX = "nameward-demo-"


_MEMORY = Path("/dev/shm")  # noqa: S108 (the names in it are unguessable)


def made(*, in_memory: bool = False) -> Path:
    """Make a folder of this process; those that killed runs left are removed first.

    ``in_memory``: where writing it out costs nothing, if this machine has such a place.
    """
    remove_leftovers()
    where = _MEMORY if in_memory and _MEMORY.is_dir() else None
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=where))


def remove_leftovers() -> list[str]:
    """Remove the folders of runs whose process is gone; returns their names."""
    removed = []
    for folder in (*Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"), *_MEMORY.glob(f"{_PREFIX}*")):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and parent_of(int(pid)) is None:
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder.name)
    return removed
