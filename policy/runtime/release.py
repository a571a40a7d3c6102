"""Which release of Nameward this is, by the package's own metadata.

Owns that one question.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    """Return the version, "0" where the code runs without being installed."""
    try:
        return version("nameward")
    except PackageNotFoundError:
        return "0"
