"""``nameward status``: does this node enforce, and what; do the others; what scripts wait for."""

from __future__ import annotations

import json
import time

import click
from rich.text import Text

from enforcer.cli.asking import NotRunning, ask
from enforcer.cli.escaping import safe
from enforcer.cli.options import (
    EXIT_FAILED,
    CommandFailure,
    DurationParameter,
    config_option,
    node_option,
    output_option,
    reader_settings,
)
from enforcer.cli.output import Column, Row, console, node_of, show

_ASK_EVERY_S = 0.1
_WORDS = {
    "node": "node",
    "version": "version",
    "generation": "generation",
    "policyHash": "policy hash",
    "pods": "pods",
    "policies": "policies",
    "rejectedPolicies": "rejected policies",
    "grants": "grants",
    "pending": "pending grants",
    "redis": "redis",
    "lastRealizedAt": "last realized",
}


def _state(row: Row) -> str:
    if row.get("lost"):
        return "lost"
    return "enforcing" if row["enforcing"] else "NOT ENFORCING"


def _problem(row: Row) -> str:
    """Return the first problem, and how many more there are."""
    problems = row["problems"]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{problems[0]}{more}" if problems else ""


COLUMNS = (
    Column("NODE", node_of),
    Column("STATE", _state, style=lambda row: "green" if row["enforcing"] else "bold red"),
    Column("POLICY HASH", lambda row: row["policyHash"]),
    Column("GENERATION", lambda row: str(row["generation"]), wide=True, right=True),
    Column("POLICIES", lambda row: str(row["policies"]), right=True),
    Column("REJECTED", lambda row: str(row["rejectedPolicies"]), right=True),
    Column("PODS", lambda row: str(row["pods"]), right=True),
    Column("GRANTS", lambda row: str(row["grants"]), right=True),
    Column("PENDING", lambda row: str(row["pending"]), right=True),
    Column("REDIS", lambda row: row["redis"]),
    Column("VERSION", lambda row: row["version"], wide=True),
    Column("LAST REALIZED", lambda row: row["lastRealizedAt"] or "none", wide=True),
    Column("PROBLEM", _problem, style=lambda _row: "yellow"),
)


@click.command()
@click.option("--wait", type=DurationParameter(), help="Wait until this node enforces, so long at most.")
@node_option
@output_option
@config_option
@click.pass_context
def status(ctx: click.Context, *, wait: float | None, node: str, output: str, config: str | None) -> None:
    """Show the state of this node; where nodes share their state, of all of them.

    Exit code 0 only if every node that is shown enforces. With --wait this node alone counts.
    """
    settings = reader_settings(config)
    if wait:
        rows = _enforcing_within(settings.runtime_dir, wait)
    else:
        rows = list(ask(settings.runtime_dir, "status", node=node))
    if len(rows) == 1 and output in {"table", "wide"}:
        _show(rows[0])
    else:
        show(rows, COLUMNS, output, "No such node.")
    if not rows or not all(row["enforcing"] for row in rows):
        ctx.exit(EXIT_FAILED)


def _enforcing_within(runtime_dir: str, limit_s: float) -> list[Row]:
    until = time.monotonic() + limit_s
    while True:
        problems: list[str] = []
        try:
            rows = list(ask(runtime_dir, "status", local=True))
            if rows and all(row["enforcing"] for row in rows):
                return rows
            problems = [problem for row in rows for problem in row["problems"]]
        except NotRunning as failure:
            problems = [failure.message]
        if time.monotonic() >= until:
            why = problems[0] if problems else "it does not say why"
            raise CommandFailure(f"the node does not enforce after {limit_s:g} s: {why}")
        time.sleep(_ASK_EVERY_S)


def _show(row: Row) -> None:
    on = console()
    verdict = Text(_state(row), "bold green" if row["enforcing"] else "bold red")
    on.print(Text.assemble("state".ljust(20), verdict))
    for key, word in _WORDS.items():
        if key in row and (key == "node" or not row.get("lost")):
            value = row[key] if isinstance(row[key], str) else json.dumps(row[key])
            on.print(Text(word.ljust(20) + safe("none" if row[key] is None else value)))
    for upstream in row.get("upstreams", ()):
        health = Text("healthy", "green") if upstream["healthy"] else Text("not answering", "red")
        latency = f", {upstream['latencyMs']:.1f} ms"
        on.print(Text.assemble("upstream".ljust(20), safe(upstream["address"]), " ", health, latency))
    for problem in row["problems"]:
        on.print(Text.assemble("problem".ljust(20), Text(safe(problem), "yellow")))
