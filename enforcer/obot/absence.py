"""When a source that is no longer listed counts as gone.

Pure. One LIST is no proof: a database that was just made anew lists nothing, and lists it well. Invariant:
nothing is gone unless at least two LISTs, some time apart, agree that it is not there; where more are missing
than are left, that time is long.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

CONFIRM_S: Final = 5.0
"""The least time between the LISTs that agree about a few."""
MANY_S: Final = 120.0
"""The same, where more are missing than are left: a new database looks like that."""
FEW: Final = 3
"""So many may be missing at once without a doubt about the whole list."""


class _Missing(NamedTuple):
    since: float
    latest: float
    """When the first and the last LIST came in which it is missing."""


class Absences:
    """Who is missing, and from when to when."""

    def __init__(self) -> None:
        self._missing: dict[str, _Missing] = {}
        self._present = 0

    def listed(self, present: frozenset[str], known: Iterable[str], now: float) -> None:
        """Take one complete LIST: what of ``known`` is not ``present`` is missing once more."""
        before, self._missing = self._missing, {}
        self._present = len(present)
        for name in known:
            if name not in present:
                since = before[name].since if name in before else now
                self._missing[name] = _Missing(since, now)

    @property
    def wait_s(self) -> float:
        """How far apart the LISTs have to be."""
        is_much = not self._present or len(self._missing) > max(FEW, self._present)
        return MANY_S if is_much else CONFIRM_S

    def gone(self) -> frozenset[str]:
        """Return who counts as gone."""
        wait_s = self.wait_s
        return frozenset(name for name, seen in self._missing.items() if seen.latest - seen.since >= wait_s)

    def next_at(self) -> float | None:
        """Return when another LIST could settle something; None if nothing is left to settle."""
        gone = self.gone()
        open_since = [seen.since for name, seen in self._missing.items() if name not in gone]
        return min(open_since) + self.wait_s if open_since else None
