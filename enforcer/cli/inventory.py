"""``nameward inventory``: every governed pod, what covers it, and what nothing contains."""

from __future__ import annotations

import click

from enforcer.cli.asking import ask
from enforcer.cli.options import EXIT_FAILED, config_option, node_option, output_option, reader_settings
from enforcer.cli.output import NODE, Column, Row, show

_COLOR = {
    "covered": "green",
    "default-denied": "yellow",
    "break-glass": "bold red",
    "uncontained": "bold red",
}


def _what(row: Row) -> str:
    """Return a pod, or the policy that selects none."""
    if row["kind"] == "pod":
        return f"{row['namespace']}/{row['pod']}"
    return f"policy {', '.join(row['policies'])}"


def _policies(row: Row) -> str:
    return ", ".join(row["policies"]) if row["kind"] == "pod" else ""


COLUMNS = (
    Column("POD OR POLICY", _what),
    Column("STATE", lambda row: row["state"], style=lambda row: _COLOR.get(row["state"], "yellow")),
    NODE,
    Column("POLICIES", _policies),
    Column("SMART GROUPS", lambda row: ", ".join(row["smartGroups"]), wide=True),
    Column("POD IPS", lambda row: ", ".join(row["podIPs"]), wide=True),
    Column("REASON", lambda row: row["reason"]),
)


@click.command()
@click.option("-n", "--namespace", default="", help="Only pods and policies of this namespace.")
@click.option("--pod", default="", help="Only the pod of this name.")
@node_option
@output_option
@config_option
@click.pass_context
def inventory(
    ctx: click.Context, *, namespace: str, pod: str, node: str, output: str, config: str | None
) -> None:
    """List all pods of governed namespaces: covered by which policies, default-denied, uncontained and why.

    Then the policies without effect: those that select no pod, and orphans of deleted servers. Exit code 1
    if a listed pod is uncontained: no policy holds it.
    """
    settings = reader_settings(config)
    rows = list(ask(settings.runtime_dir, "inventory", namespace=namespace, pod=pod, node=node))
    show(rows, COLUMNS, output, "No pod of a governed namespace is known here.")
    if any(row["state"] == "uncontained" for row in rows):
        ctx.exit(EXIT_FAILED)
