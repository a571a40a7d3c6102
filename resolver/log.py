"""Log records of the resolver, on standard error: about itself, never about a query.

Owns their form (JSON lines, or text for people). Invariant: text that came from outside cannot end a
line or reach a terminal's control characters.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, Protocol

import structlog

from policy.runtime.clock import wall_now

Level = Literal["debug", "info", "warning", "error"]


class Log(Protocol):
    """Where the resolver's parts tell what happened."""

    def tell(self, event: str, level: Level = "info", **fields: object) -> None:
        """Write one record."""


class StderrLog:
    """Records through structlog; every one has ``event``, ``at`` (RFC 3339), ``level`` and ``node``."""

    def __init__(self, node: str, level: str = "info", form: str = "json") -> None:
        self._least = logging.getLevelNamesMapping()[level.upper()]
        render = structlog.processors.JSONRenderer() if form == "json" else _as_text
        self._logger = structlog.wrap_logger(
            structlog.PrintLogger(sys.stderr),
            processors=[_stamped, render],
            wrapper_class=structlog.BoundLogger,
        ).bind(node=node)

    def tell(self, event: str, level: Level = "info", **fields: object) -> None:
        """See ``Log``."""
        if logging.getLevelNamesMapping()[level.upper()] >= self._least:
            self._logger.info(event, level=level, **fields)


def _stamped(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {"event": fields.pop("event"), "at": wall_now(), **fields}


def _as_text(_: Any, __: str, fields: MutableMapping[str, Any]) -> str:
    head = f"{fields.pop('at')} {fields.pop('level')} {fields.pop('event')}"
    return " ".join([head, *(f"{name}={value!a}" for name, value in fields.items())])
