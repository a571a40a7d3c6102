"""``nameward status``: does this node enforce, and what; what scripts wait for."""

from __future__ import annotations

import json
import time

import click
from rich.text import Text

from enforcer.cli.asking import NotRunning, ask
from enforcer.cli.options import (
    EXIT_FAILED,
    CommandFailure,
    DurationParameter,
    config_option,
    output_option,
    reader_settings,
)
from enforcer.cli.output import Row, console, safe, show_json, show_yaml

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


@click.command()
@click.option("--wait", type=DurationParameter(), help="Wait until the node enforces, so long at most.")
@output_option
@config_option
@click.pass_context
def status(ctx: click.Context, wait: float | None, output: str, config: str | None) -> None:
    """Show the state of this node. Exit code 0 only if it enforces."""
    settings = reader_settings(config)
    rows = (
        _enforcing_within(settings.runtime_dir, wait) if wait else list(ask(settings.runtime_dir, "status"))
    )
    if output == "json":
        show_json(rows)
    elif output == "yaml":
        show_yaml(rows)
    else:
        for row in rows:
            _show(row)
    if not all(row["enforcing"] for row in rows):
        ctx.exit(EXIT_FAILED)


def _enforcing_within(runtime_dir: str, limit_s: float) -> list[Row]:
    until = time.monotonic() + limit_s
    while True:
        problems: list[str] = []
        try:
            rows = list(ask(runtime_dir, "status"))
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
    verdict = Text("enforcing", "bold green") if row["enforcing"] else Text("NOT ENFORCING", "bold red")
    on.print(Text.assemble("state".ljust(20), verdict))
    for key, word in _WORDS.items():
        if key in row:
            value = row[key] if isinstance(row[key], str) else json.dumps(row[key])
            on.print(Text(word.ljust(20) + safe("none" if row[key] is None else value)))
    for upstream in row.get("upstreams", ()):
        health = Text("healthy", "green") if upstream["healthy"] else Text("not answering", "red")
        latency = f", {upstream['latencyMs']:.1f} ms"
        on.print(Text.assemble("upstream".ljust(20), safe(upstream["address"]), " ", health, latency))
    for problem in row["problems"]:
        on.print(Text.assemble("problem".ljust(20), Text(safe(problem), "yellow")))
