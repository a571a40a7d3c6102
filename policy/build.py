"""Which build of the hot modules runs: what mypyc made of them, or the sources themselves.

Owns the choice, made once, when ``policy`` is first imported, for all three packages alike: a compiled
module must never meet the source of another. Never compiles (``deploy/compile.py``). Invariant: compiled
code runs only if each source beside it, and each that those import, is byte for byte what it was then.

``NAMEWARD_PURE=1`` in the environment runs the sources.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_LIBRARY = "nameward__mypyc"


def digest(source: bytes) -> str:
    """Name a source's content."""
    return hashlib.blake2b(source, digest_size=16).hexdigest()


def _find() -> tuple[Path, dict[str, str]] | None:
    """Folder and digests of a build that fits this Python and these sources."""
    if os.environ.get("NAMEWARD_PURE") == "1":
        return None
    try:
        import nameward_compiled as built  # noqa: PLC0415 - it may not be there
    except ImportError:
        return None
    sources: dict[str, str] = built.SOURCES
    neighbours: dict[str, str] | None = getattr(built, "NEIGHBOURS", None)
    folder = Path(built.__path__[0])
    if neighbours is None or not _library(folder).is_file():
        return None  # made by another release, or for another Python
    for name, known in (sources | neighbours).items():
        try:
            source = (_ROOT / f"{name.replace('.', '/')}.py").read_bytes()
        except OSError:
            return None
        if digest(source) != known:
            return None
    return folder, sources


def _library(folder: Path) -> Path:
    return folder / f"{_LIBRARY}{importlib.machinery.EXTENSION_SUFFIXES[0]}"


def _load(folder: Path) -> None:
    """Load the library that holds all the code; each module is a shim that asks for it by this name."""
    spec = importlib.util.spec_from_file_location(_LIBRARY, _library(folder))
    if spec is None or spec.loader is None:
        raise ImportError(f"{_library(folder)} is no extension module")
    try:
        library = importlib.util.module_from_spec(spec)
    except ImportError as error:
        said = f"{error}; build it anew (deploy/compile.py), or run the sources with NAMEWARD_PURE=1"
        raise ImportError(said, path=spec.origin) from error
    sys.modules[_LIBRARY] = library
    spec.loader.exec_module(library)


def _choose() -> tuple[str, frozenset[str] | None]:
    found = _find()
    if found is None:
        return "", None
    folder, sources = found
    _load(folder)
    return str(folder), frozenset(sources)


_FOLDER, COMPILED = _choose()
"""COMPILED: names of the compiled modules, None where the sources run."""


def path_of(package: str, own: list[str]) -> list[str]:
    """Return the ``__path__`` of a package: compiled modules first, if they are to be used."""
    return [f"{_FOLDER}/{package.replace('.', '/')}", *own] if _FOLDER else own
