"""Break-glass: one namespace is opened by hand until a time, whatever its policies say.

Owns how it is written (annotations of a Namespace) and which rule it becomes: everything that is not
guarded. Never knows the time of day: what is over is in no world. Invariant: what the ceiling denies, the
metadata addresses and all guarded ones stay closed, and a value that cannot be read opens nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from policy.addresses import AddressSet
from policy.compiled import CompiledRule, Effect
from policy.manifest_findings import printable, shown
from policy.ports import EVERYTHING

BREAK_GLASS = "break-glass"
"""What stands where a policy's name would, in every record of what it opened."""
UNTIL_MARK = "nameward.dev/break-glass-until"
REASON_MARK = "nameward.dev/break-glass-reason"
MAX_REASON_CHARS = 512

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class BreakGlass(msgspec.Struct, frozen=True):
    """A namespace whose pods may do everything that is not guarded. ``until`` is RFC 3339 text in UTC."""

    namespace: str
    until: str
    reason: str = ""


class Asked(NamedTuple):
    """What a Namespace's annotations ask for; ``until_at`` is wall time in seconds."""

    glass: BreakGlass
    until_at: float


class Unreadable(NamedTuple):
    """The annotations of a Namespace ask for something that cannot be read: which, what, and what to do."""

    mark: str
    message: str
    fix: str


def read_marks(namespace: str, marks: Mapping[str, str]) -> Asked | Unreadable | None:
    """Return what the marks of a namespace ask for; None: nothing."""
    text = marks.get(UNTIL_MARK)
    if text is None:
        return None
    until_at = _instant(text.strip())
    if until_at is None:
        message = f"{shown(text)} is no time of RFC 3339, so nothing is opened"
        return Unreadable(UNTIL_MARK, message, "write it as in 2026-01-31T17:30:00Z")
    reason = printable(marks.get(REASON_MARK, "").strip())[:MAX_REASON_CHARS]
    return Asked(BreakGlass(namespace, rfc3339(until_at), reason), until_at)


def rfc3339(at: float) -> str:
    """Return wall seconds as RFC 3339 text in UTC, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _instant(text: str) -> float | None:
    if _RFC3339.fullmatch(text) is None:
        return None
    try:
        at = datetime.fromisoformat(text.upper()).timestamp()
        datetime.fromtimestamp(at, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return at


def opening_rules(opened: Iterable[BreakGlass], public: AddressSet) -> dict[str, tuple[CompiledRule, ...]]:
    """Return the rules of the namespaces that are open; ``public`` is everything that is not guarded."""
    return {
        each.namespace: (
            CompiledRule(-1, BREAK_GLASS, each.namespace, Effect.BREAK_GLASS, public, EVERYTHING, wide=True),
        )
        for each in opened
    }
