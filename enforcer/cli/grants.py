"""``nameward grants``: what is open now, for whom, because of which name and rule, until when."""

from __future__ import annotations

from collections.abc import Iterable

import click

from enforcer.cli.asking import ask
from enforcer.cli.options import config_option, node_option, output_option, reader_settings
from enforcer.cli.output import NODE, Column, Row, show, span


def pod_of(row: Row) -> str:
    """``namespace/pod``, or the bare address of one that nobody declared."""
    return f"{row['namespace']}/{row['pod']}" if row["pod"] else f"(unknown) {row['podIP']}"


def rule_of(row: Row) -> str:
    """``policy/rule``; the policy carries its namespace."""
    return "/".join(part for part in (row["policy"], row["rule"]) if part)


def port_of(row: Row) -> str:
    """``443/tcp``; ``any`` for all ports and protocols."""
    port, protocol = row["port"], row["protocol"]
    if not protocol or protocol == "any":
        return "" if port is None else str(port)
    return protocol if port in (None, "any") else f"{port}/{protocol}"


COLUMNS = (
    Column("POD", pod_of),
    Column("NAME", lambda row: row["name"]),
    Column("ADDRESS", lambda row: row["address"]),
    Column("PORT", port_of),
    Column("RULE", rule_of),
    Column("REMAINING", lambda row: span(row["remainingSeconds"]), right=True),
    Column("POD IP", lambda row: row["podIP"], wide=True),
    Column("REALIZED", lambda row: row["realizedAt"], wide=True),
    Column("EXPIRES", lambda row: row["expiresAt"], wide=True),
    NODE,
    Column("UID", lambda row: row["uid"], wide=True),
)


@click.command()
@click.option("-n", "--namespace", default="", help="Only pods of this namespace.")
@click.option("--pod", default="", help="Only the pod of this name.")
@click.option("--name", default="", help="Only because of this domain name.")
@node_option
@output_option
@config_option
def grants(*, namespace: str, pod: str, name: str, node: str, output: str, config: str | None) -> None:
    """List live grants: pod, name, address, port, rule, remaining time.

    Where nodes share their state, those of all nodes; what a lost node left is marked as lost.
    """
    settings = reader_settings(config)
    asked = {"namespace": namespace, "pod": pod, "name": name.rstrip(".").lower(), "node": node}
    rows: Iterable[Row] = ask(settings.runtime_dir, "grants", **asked)
    if output in {"table", "wide"}:
        rows = sorted(
            rows, key=lambda row: (pod_of(row), row["name"], row["address"], str(row["port"]), row["node"])
        )
    show(rows, COLUMNS, output, "No live grants: nothing that policies permit by name was resolved lately.")
