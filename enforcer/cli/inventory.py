"""``nameward inventory``: every governed pod, what covers it, and what nothing contains."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator

import click

from enforcer.cli.asking import ask
from enforcer.cli.escaping import safe
from enforcer.cli.options import (
    EXIT_FAILED,
    UsageFailure,
    config_option,
    has_configuration,
    node_option,
    output_option,
    reader_settings,
)
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


def _of_cluster(config: str | None, kubeconfig: str, context: str) -> Iterator[Row]:
    """Ask the API server; its client is imported for that alone."""
    reading = importlib.import_module("enforcer.cli.cluster")
    settings = reader_settings(config)
    if not has_configuration(config):
        settings = reading.governed_by_label(settings)
        _warn("no configuration (--config): namespaces with nameward.dev/governed=true are taken as governed")
    rows: Iterator[Row] = reading.cluster_rows(settings, kubeconfig, context, _warn)
    return rows


def _warn(sentence: str) -> None:
    print(f"nameward: warning: {safe(sentence)}", file=sys.stderr)


@click.command()
@click.option("-n", "--namespace", default="", help="Only pods and policies of this namespace.")
@click.option("--pod", default="", help="Only the pod of this name.")
@node_option
@click.option("--cluster", is_flag=True, help="Ask the API server for the whole cluster, not the node.")
@click.option("--kubeconfig", default="", help="The cluster's.  [default: the pod's own, else kubectl's]")
@click.option("--context", default="", help="A context of the kubeconfig.")
@output_option
@config_option
@click.pass_context
def inventory(
    ctx: click.Context,
    *,
    namespace: str,
    pod: str,
    node: str,
    cluster: bool,
    kubeconfig: str,
    context: str,
    output: str,
    config: str | None,
) -> None:
    """List all pods of governed namespaces: covered by which policies, default-denied, uncontained and why.

    Then the policies without effect: those that select no pod, and orphans of deleted servers. Exit code 1
    if a listed pod is uncontained: no policy holds it.
    """
    if (kubeconfig or context) and not cluster:
        raise UsageFailure("--kubeconfig and --context are for --cluster: add it, or leave them out")
    if cluster:
        wanted = {"namespace": namespace, "pod": pod, "node": node}
        found = _of_cluster(config, kubeconfig, context)
        rows = [row for row in found if all(value in {"", row[field]} for field, value in wanted.items())]
    else:
        settings = reader_settings(config)
        rows = list(ask(settings.runtime_dir, "inventory", namespace=namespace, pod=pod, node=node))
    show(rows, COLUMNS, output, "No pod of a governed namespace is known here.")
    if any(row["state"] == "uncontained" for row in rows):
        ctx.exit(EXIT_FAILED)
