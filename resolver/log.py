"""Log records of the resolver, on standard error: about itself, never about a query.

Owns their form (JSON lines, or text for people). Invariant: text that came from outside cannot end a
line or reach a terminal's control characters.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from typing import Literal, Protocol

from policy.runtime.clock import wall_now

Level = Literal["debug", "info", "warning", "error"]


class Log(Protocol):
    """Where the resolver's parts tell what happened."""

    def tell(self, event: str, level: Level = "info", **fields: object) -> None:
        """Write one record."""


class StderrLog:
    """Every record has ``event``, ``at`` (RFC 3339), ``level`` and ``node``. ``form`` is json or console."""

    def __init__(self, node: str, level: str = "info", form: str = "json") -> None:
        self._node = node
        self._least = logging.getLevelNamesMapping()[level.upper()]
        self._line = _as_json if form == "json" else _as_text

    def tell(self, event: str, level: Level = "info", **fields: object) -> None:
        """See ``Log``."""
        if logging.getLevelNamesMapping()[level.upper()] >= self._least:
            record = {"event": event, "at": wall_now(), "node": self._node, "level": level, **fields}
            sys.stderr.write(f"{self._line(record)}\n")


def _as_json(record: Mapping[str, object]) -> str:
    return json.dumps(record, default=repr)


def _as_text(record: Mapping[str, object]) -> str:
    said = dict(record)
    head = f"{said.pop('at')} {said.pop('level')} {said.pop('event')}"
    return " ".join([head, *(f"{name}={value!a}" for name, value in said.items())])
