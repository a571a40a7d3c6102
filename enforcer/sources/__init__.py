"""Sources: where policies, pods and services come from.

Owns the seam: a source reads its place completely, then says what it has seen, again with every
change. Never decides. Invariant: what a source cannot read is not "nothing": it keeps what it knew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from enforcer.metrics import Series
from policy.manifest import Loaded


class Seen(NamedTuple):
    """Everything the source knows; ``complete`` once each of its places was read at least once."""

    loaded: Loaded
    complete: bool
    problems: tuple[str, ...]
    detected_at: float
    is_fresh: bool = True
    """False while the place cannot be asked about pods: an address may be another's since."""


class Source(Protocol):
    """A place that is read and watched."""

    def start(self, seen: Callable[[Seen], None]) -> None:
        """Read, call ``seen``, and call it again after every change."""

    def look(self) -> None:
        """Look for changes now (SIGHUP)."""

    def stop(self) -> None:
        """Watch no more."""

    @property
    def counts(self) -> Mapping[Series, float]:
        """Its metrics (``policy.runtime.metrics``)."""
