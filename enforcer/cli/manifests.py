"""Manifests named on the command line: their contents by file, and which namespaces count.

Owns the reading of paths and of standard input. Never watches, never keeps anything.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator

from enforcer.cli.options import UsageFailure, has_configuration
from policy.manifest import EVERY_NAMESPACE, SUFFIXES, Governed
from policy.runtime.settings import Settings


def read(paths: Iterable[str]) -> dict[str, bytes]:
    """Return the contents of files, of the manifests below folders, and of standard input (``-``)."""
    files: dict[str, bytes] = {}
    for path in paths:
        if path == "-":
            files["-"] = sys.stdin.buffer.read()
            continue
        for file in _files(path):
            try:
                with open(file, "rb") as opened:
                    files[file] = opened.read()
            except OSError as error:
                raise UsageFailure(f"{file}: {error.strerror}; name files or folders") from None
    if not files:
        raise UsageFailure(f"no manifests found (files that end in {', '.join(SUFFIXES)})")
    return files


def _files(path: str) -> Iterator[str]:
    """Yield a file itself; of a folder what the enforcer would read there: hidden ones are left out."""
    if not os.path.isdir(path):
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(folder, name)


def governed(settings: Settings, config: str | None) -> Governed:
    """Return the namespaces that the configuration governs; every one where there is none."""
    return settings.policy.governed_namespaces if has_configuration(config) else EVERY_NAMESPACE
