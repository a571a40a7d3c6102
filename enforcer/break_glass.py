"""Which namespaces are open by hand now: break-glass as its annotations ask for it, in time.

Owns when it begins and ends, what is refused, and the records of it. Never decides what is open there
(``policy.break_glass``). Invariants: it ends when its time has come by either clock, and does not begin
again; a time too far ahead stays refused until it is written anew, so that nothing opens by waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from enforcer.records import Records
from policy.break_glass import UNTIL_MARK, Asked, BreakGlass, read_marks

SLACK_S = 120.0
"""By how much the clock of the one who writes the annotation may be ahead."""
LOOK_S = 30.0
"""While something is open, the wall clock is looked at so often: it may have jumped."""
MAX_NAMESPACES = 1000

State = Literal["open", "over", "refused"]


class _Held:
    """One namespace's annotation, as it was judged when it was first seen."""

    __slots__ = ("asked", "ends_at", "state", "why")

    def __init__(self, asked: Asked, state: State, ends_at: float, why: str) -> None:
        self.asked = asked
        self.state: State = state
        self.ends_at = ends_at
        self.why = why


class Openings:
    """Looks at annotations and clocks; ``remembered`` is a file that keeps what is refused."""

    def __init__(self, remembered: Path, records: Records) -> None:
        self._remembered = remembered
        self._records = records
        self._held: dict[str, _Held] = {}
        self._refused = _read(remembered)

    def look(
        self,
        marks: Mapping[str, Mapping[str, str]],
        is_governed: Callable[[str], bool],
        *,
        longest_s: float,
        now: float,
        wall: float,
    ) -> tuple[BreakGlass, ...]:
        """Return what is open now, by namespace.

        ``longest_s``: how far ahead its end may be; 0: never. ``now`` is monotonic, ``wall`` is wall time.
        """
        asked = _asked(marks, is_governed)
        for namespace in [each for each in self._held if each not in asked]:
            self._end(self._held.pop(namespace), "it was taken back")
        for namespace, found in asked.items():
            held = self._held.get(namespace)
            if held is None or held.asked.until_at != found.until_at:
                self._held[namespace] = self._judged(found, longest_s, now, wall)
            elif held.state == "open":
                held.asked = found
        for held in self._held.values():
            if held.state == "open" and (now >= held.ends_at or wall >= held.asked.until_at):
                self._end(held, "its time has come")
        self._remember()
        return self.open

    @property
    def open(self) -> tuple[BreakGlass, ...]:
        """What was open at the last look, by namespace."""
        return tuple(held.asked.glass for _, held in sorted(self._held.items()) if held.state == "open")

    def next_look_s(self, now: float) -> float | None:
        """Return in how many seconds to look again, at the latest; None: at the next change."""
        ends = [held.ends_at - now for held in self._held.values() if held.state == "open"]
        return min(LOOK_S, max(0.0, min(ends))) if ends else None

    @property
    def problems(self) -> tuple[str, ...]:
        """What is refused, each a sentence; what is open is said when the kernel has it (``said_open``)."""
        return tuple(_refusal(held) for _, held in sorted(self._held.items()) if held.state == "refused")

    def _judged(self, asked: Asked, longest_s: float, now: float, wall: float) -> _Held:
        glass = asked.glass
        left_s = asked.until_at - wall
        state: State = "open"
        why = ""
        if left_s <= 0:
            state, why = "over", "its time is over"
        elif self._refused.get(glass.namespace) == glass.until:
            state, why = "refused", "it was refused when it was first seen"
        elif longest_s == 0:
            state, why = "refused", "policy.breakGlassMax is 0s"
        elif left_s > longest_s + SLACK_S:
            state, why = "refused", f"it is more than policy.breakGlassMax ({longest_s:.0f} s) ahead"
        held = _Held(asked, state, now + left_s, why)
        event = "opened" if state == "open" else "refused"
        self._tell(event, glass, because=glass.reason, reason=why)
        return held

    def _end(self, held: _Held, why: str) -> None:
        if held.state == "open":
            held.state = "over"
            self._tell("ended", held.asked.glass, because=held.asked.glass.reason, reason=why)

    def _tell(self, what: str, glass: BreakGlass, *, because: str, reason: str) -> None:
        fields = {"namespace": glass.namespace, "until": glass.until, "because": because}
        self._records.tell(f"break_glass.{what}", "warning", fields=fields, reason=reason)

    def _remember(self) -> None:
        """Keep what is refused for whoever comes after this process."""
        refused = {
            namespace: held.asked.glass.until
            for namespace, held in self._held.items()
            if held.state == "refused"
        }
        if refused == self._refused:
            return
        self._refused = refused
        written = self._remembered.with_suffix(".next")
        try:
            written.write_bytes(msgspec.json.encode(refused))
            written.replace(self._remembered)
        except OSError as error:
            self._records.tell("break_glass.unremembered", "error", reason=str(error))


def _asked(marks: Mapping[str, Mapping[str, str]], is_governed: Callable[[str], bool]) -> dict[str, Asked]:
    """What can be read, of governed namespaces, by name."""
    found: dict[str, Asked] = {}
    for namespace in sorted(marks):
        asked = read_marks(namespace, marks[namespace])
        if isinstance(asked, Asked) and len(found) < MAX_NAMESPACES and is_governed(namespace):
            found[namespace] = asked
    return found


def _refusal(held: _Held) -> str:
    glass = held.asked.glass
    return (
        f"namespace {glass.namespace} asks for break-glass until {glass.until}, which is refused: "
        f"{held.why}; write an earlier {UNTIL_MARK}, or remove it"
    )


def said_open(glass: BreakGlass) -> str:
    """Say what is open, a sentence."""
    because = glass.reason or "no reason was given"
    return f"namespace {glass.namespace} is open by break-glass until {glass.until}: {because}"


def _read(remembered: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode(remembered.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError):
        return {}
