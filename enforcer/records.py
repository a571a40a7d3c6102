"""Log records: JSON lines with the event names that others rely on (or text for people).

Owns the form of a record. Never decides what is worth one. Invariant: every record has ``event``, ``at``
(RFC 3339), ``level`` and ``node``; whatever text comes from outside is escaped by the JSON encoder.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Literal, Protocol

import msgspec

from policy.runtime.clock import wall_now

Level = Literal["debug", "info", "warning", "error"]


class Records(Protocol):
    """Where the enforcer's parts tell what happened."""

    def tell(
        self,
        event: str,
        level: Level = "info",
        *,
        fields: Mapping[str, object] | None = None,
        reason: str = "",
    ) -> None:
        """Write one record with these fields; a ``reason`` is one of them."""

    def is_told(self, level: Level) -> bool:
        """Say whether records of that level are written, to spare making them."""


class LogRecords:
    """Records on standard error, each one write.

    ``form`` is json or console, ``level`` the least that is written.
    """

    def __init__(self, node: str, level: str = "info", form: str = "json") -> None:
        self._node = node
        self._least = logging.getLevelNamesMapping()[level.upper()]
        self._line = _as_json if form == "json" else _as_text

    def tell(
        self,
        event: str,
        level: Level = "info",
        *,
        fields: Mapping[str, object] | None = None,
        reason: str = "",
    ) -> None:
        """See ``Records``."""
        if self.is_told(level):
            said = {**(fields or {}), "reason": reason} if reason else fields or {}
            record: dict[str, object] = {
                "event": event, "at": wall_now(), "node": self._node, "level": level,
            }  # fmt: skip
            record |= {name: value for name, value in said.items() if value != ""}
            sys.stderr.write(f"{self._line(record)}\n")

    def is_told(self, level: Level) -> bool:
        """See ``Records``."""
        return logging.getLevelNamesMapping()[level.upper()] >= self._least

    def at_level(self, level: str) -> None:
        """Change the least level that is written."""
        self._least = logging.getLevelNamesMapping()[level.upper()]


def _as_json(record: Mapping[str, object]) -> str:
    return msgspec.json.encode(record).decode()


def _as_text(record: Mapping[str, object]) -> str:
    said = dict(record)
    head = f"{said.pop('at')} {said.pop('level')} {said.pop('event')}"
    return " ".join([head, *(f"{name}={value!r}" for name, value in said.items())])
