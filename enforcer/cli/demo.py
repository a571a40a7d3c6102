"""``nameward demo``: the containment scenario on this machine; its content is ``enforcer.demo``."""

from __future__ import annotations

import importlib

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option("--keep", is_flag=True, help="Leave everything running afterwards, to look at it.")
@click.option(
    "--nodes",
    type=click.IntRange(1, 2),
    default=1,
    show_default=True,
    help="With 2: two nodes that share a Redis, which is lost and comes back.",
)
@click.option(
    "--cluster",
    is_flag=True,
    help="In a real one-node Kubernetes (deploy/setup.sh cluster builds its programs).",
)
@click.pass_context
def demo(ctx: click.Context, as_json: bool, keep: bool, nodes: int, cluster: bool) -> None:
    """Contain a poisoned workload on this machine: real resolver, real nftables, own namespaces.

    Needs root, changes nothing outside its namespaces, takes about a minute; with --cluster five.
    """
    if cluster and nodes > 1:
        raise click.UsageError("--cluster has one node: leave out --nodes")
    played = importlib.import_module("enforcer.demo").run
    ctx.exit(played(as_json_object=as_json, keep=keep, nodes=nodes, cluster=cluster))
