"""Rows to a terminal, a pipe or a program.

Owns the forms table, wide, json and yaml; what comes from a record is escaped. JSON and YAML are exact
(and ASCII); tables fit the terminal, or are as wide as they need to be in a pipe.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import yaml
from rich.console import Console
from rich.padding import PaddingDimensions
from rich.table import Table
from rich.text import Text

from enforcer.cli.escaping import safe

Row = dict[str, Any]
_NO_LIMIT = 100_000
_PADDING: PaddingDimensions = (0, 2, 0, 0)


class Column(NamedTuple):
    """One column: its title, its text for a row, whether only ``wide`` shows it, its color.

    ``among``: shown in a table too, if the rows differ there (the node of one node's rows is no news).
    """

    title: str
    text: Callable[[Row], str]
    wide: bool = False
    style: Callable[[Row], str] = lambda _row: ""
    right: bool = False
    among: bool = False


def node_of(row: Row) -> str:
    """Return the row's node, and whether that is lost."""
    return f"{row['node']} (lost)" if row.get("lost") else str(row["node"])


NODE = Column("NODE", node_of, wide=True, style=lambda row: "red" if row.get("lost") else "", among=True)


def is_terminal() -> bool:
    """Say whether a person looks at standard output."""
    return sys.stdout.isatty()


def console() -> Console:
    """Return a console for standard output; colors only on a terminal, no wrapping in a pipe."""
    return Console(width=None if is_terminal() else _NO_LIMIT, highlight=False, emoji=False, markup=False)


def show(rows: Iterable[Row], columns: Sequence[Column], output: str, nothing: str) -> None:
    """Print a listing; ``nothing`` is the sentence for an empty table (standard error)."""
    if output == "json":
        show_json(rows)
    elif output == "yaml":
        show_yaml(rows)
    else:
        listed = list(rows)
        _show_table(listed, shown_columns(columns, output, listed), nothing)


def shown_columns(columns: Sequence[Column], output: str, rows: Sequence[Row] = ()) -> list[Column]:
    """Return the columns of this form, for these rows."""
    return [
        column
        for column in columns
        if output == "wide" or not column.wide or (column.among and _differ(column, rows))
    ]


def _differ(column: Column, rows: Sequence[Row]) -> bool:
    return any(row.get("lost") for row in rows) or len({column.text(row) for row in rows} - {""}) > 1


def show_json(rows: Iterable[Row]) -> None:
    """Print one array, an object a line, as they come."""
    write = sys.stdout.write
    separator = "["
    for row in rows:
        write(separator + json.dumps(row))
        separator = ",\n "
    write("[]\n" if separator == "[" else "]\n")


def show_yaml(rows: Iterable[Row]) -> None:
    """Print one list, as they come."""
    count = 0
    for count, row in enumerate(rows, 1):  # noqa: B007 - tells whether there was one
        sys.stdout.write(yaml.safe_dump([row], sort_keys=False, default_flow_style=False))
    if count == 0:
        sys.stdout.write("[]\n")


def _show_table(rows: list[Row], columns: list[Column], nothing: str) -> None:
    if not rows:
        print(nothing, file=sys.stderr)
        return
    table = Table(box=None, padding=_PADDING, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.title, overflow="fold", justify="right" if column.right else "left")
    for row in rows:
        table.add_row(*(cell(column, row) for column in columns))
    _print_trimmed(table)


def _print_trimmed(table: Table) -> None:
    """Print without the blanks that fill the last column up, except on a terminal."""
    on = console()
    if is_terminal():
        on.print(table)
        return
    with on.capture() as captured:
        on.print(table)
    sys.stdout.write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()))


def cell(column: Column, row: Row) -> Text:
    """Return the escaped, colored text of one cell."""
    return Text(safe(column.text(row)), style=column.style(row))


class Lines:
    """A listing without an end: a line a row, at once, in columns of fixed widths."""

    def __init__(self, columns: Sequence[Column], output: str) -> None:
        self._columns = shown_columns(columns, output)
        self._output = output
        self._widths = [0] * len(self._columns)
        self._console = console()
        if output in {"table", "wide"}:
            self._line([Text(column.title, style="bold") for column in self._columns])

    def row(self, row: Row) -> None:
        """Print it."""
        if self._output == "json":
            print(json.dumps(row), flush=True)
        elif self._output == "yaml":
            print(yaml.safe_dump(row, explicit_start=True, sort_keys=False), end="", flush=True)
        else:
            self._line([cell(column, row) for column in self._columns])

    def _line(self, cells: list[Text]) -> None:
        self._widths = [max(width, len(text.plain)) for width, text in zip(self._widths, cells, strict=True)]
        line = Text("  ").join(self._padded(cells))
        line.rstrip()
        self._console.print(line, soft_wrap=True)
        sys.stdout.flush()

    def _padded(self, cells: list[Text]) -> Iterator[Text]:
        for text, width in zip(cells, self._widths, strict=True):
            text.pad_right(width - len(text.plain))
            yield text


def age(moment: str, now: datetime) -> str:
    """Say how long before ``now`` an RFC 3339 moment was: ``41s``, ``3m``, ``2h``."""
    try:
        at = datetime.fromisoformat(moment)
    except ValueError:
        return "?"
    return span((now - (at if at.tzinfo else at.replace(tzinfo=UTC))).total_seconds())


def span(seconds: float) -> str:
    """Say a length of time in its largest unit, rounded down."""
    left = max(int(seconds), 0)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if left >= 2 * size:
            return f"{left // size}{unit}"
    return f"{left}s"
