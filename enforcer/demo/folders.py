"""Folders of one run under the temporary directory, whose names say whose they are.

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


def made() -> Path:
    """Make a folder of this process; those that killed runs left are removed first."""
    remove_leftovers()
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))


def remove_leftovers() -> list[str]:
    """Remove the folders of runs whose process is gone; returns their names."""
    removed = []
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and parent_of(int(pid)) is None:
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder.name)
    return removed
