"""Log records: JSON lines with the event names that others rely on (or text for people).

Owns the form of a record. Never decides what is worth one. Invariant: every record has ``event``, ``at``
(RFC 3339), ``level`` and ``node``; whatever text comes from outside is escaped by the JSON encoder.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, Protocol

import msgspec
import structlog

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
    """Records on standard error through structlog.

    ``form`` is json or console, ``level`` the least that is written.
    """

    def __init__(self, node: str, level: str = "info", form: str = "json") -> None:
        self._node = node
        self._least = logging.getLevelNamesMapping()[level.upper()]
        self._logger = structlog.wrap_logger(
            structlog.PrintLogger(sys.stderr),
            processors=[_stamped, _as_json if form == "json" else _as_text],
            wrapper_class=structlog.BoundLogger,
        ).bind(node=node)

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
            said = {**(fields or {}), "reason": reason} if reason else dict(fields or {})
            self._logger.info(
                event, level=level, **{name: value for name, value in said.items() if value != ""}
            )

    def is_told(self, level: Level) -> bool:
        """See ``Records``."""
        return logging.getLevelNamesMapping()[level.upper()] >= self._least

    def at_level(self, level: str) -> None:
        """Change the least level that is written."""
        self._least = logging.getLevelNamesMapping()[level.upper()]


def _stamped(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {"event": fields.pop("event"), "at": wall_now(), **fields}


def _as_json(_: Any, __: str, fields: MutableMapping[str, Any]) -> str:
    return msgspec.json.encode(fields).decode()


def _as_text(_: Any, __: str, fields: MutableMapping[str, Any]) -> str:
    head = f"{fields.pop('at')} {fields.pop('level')} {fields.pop('event')}"
    return " ".join([head, *(f"{name}={value!r}" for name, value in fields.items())])
