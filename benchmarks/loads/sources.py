"""The generator and the upstream, built from their C sources once a run."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent
_FOLDER = tempfile.TemporaryDirectory()


@cache
def built(name: str) -> Path:
    """Return the program of ``NAME.c``."""
    program = Path(_FOLDER.name) / name
    done = subprocess.run(
        ["cc", "-O2", "-Wall", "-o", str(program), str(_HERE / f"{name}.c")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"{name}.c: {done.stderr.strip()}")
    return program
