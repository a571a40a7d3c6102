"""How often one object is written.

Pure. Somebody who undoes what we write (another provider, a webhook) must not make us write as fast as
we can. Invariant: the first write of every new content is at once, each further one waits twice as long.
"""

from __future__ import annotations

from typing import Final, NamedTuple

FIRST_S: Final = 0.25
LONGEST_S: Final = 60.0
FORGIVEN_S: Final = 300.0
"""An object that stood so long is written at once again."""


class _Writes(NamedTuple):
    content: int
    in_a_row: int
    done: int
    at: float


class Pace:
    """The writes of each object, by name."""

    def __init__(self) -> None:
        self._writes: dict[str, _Writes] = {}

    def due_at(self, name: str, content: int) -> float:
        """Return when this content (its hash) may be written."""
        last = self._writes.get(name)
        if last is None or last.content != content:
            return float("-inf")
        return last.at + min(FIRST_S * 2.0 ** min(last.in_a_row - 1, 16), LONGEST_S)

    def writes(self, name: str, content: int, now: float) -> None:
        """Note that this content is written now, for the first time or again."""
        in_a_row, done = 1, 0
        last = self._writes.get(name)
        if last is not None and last.content == content and now - last.at < FORGIVEN_S:
            in_a_row, done = last.in_a_row + 1, last.done
        self._writes[name] = _Writes(content, in_a_row, done, now)

    def wrote(self, name: str) -> int:
        """Note that the write succeeded; return how often this content did so in a row."""
        self._writes[name] = last = self._writes[name]._replace(done=self._writes[name].done + 1)
        return last.done

    def keep(self, names: frozenset[str]) -> None:
        """Forget all others."""
        for name in self._writes.keys() - names:
            del self._writes[name]
