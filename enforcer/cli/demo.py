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
@click.pass_context
def demo(ctx: click.Context, as_json: bool, keep: bool, nodes: int) -> None:
    """Contain a poisoned workload on this machine: real resolver, real nftables, own namespaces.

    Needs root, changes nothing outside its namespaces, takes about a minute.
    """
    ctx.exit(importlib.import_module("enforcer.demo").run(as_json_object=as_json, keep=keep, nodes=nodes))
