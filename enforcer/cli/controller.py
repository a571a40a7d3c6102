"""``nameward controller``: writes the status of policies in a cluster.

Owns the options. The loop is ``enforcer.controller.service``'s.
"""

from __future__ import annotations

import click

from enforcer.cli.options import config_option


@click.command()
@config_option
@click.option(
    "--lease",
    default="nameward-controller",
    show_default=True,
    metavar="NAME",
    help="The Lease by which one of several replicas writes; it is made in the pod's namespace.",
)
@click.option(
    "--health",
    default="",
    metavar="PATH",
    help="Make a socket there for `nameward health`.",
)
@click.pass_context
def controller(ctx: click.Context, config: str | None, lease: str, health: str) -> None:
    """Say on each policy of the cluster what became of it. Nothing is enforced by it."""
    from enforcer.controller.service import run  # noqa: PLC0415 - only this command needs it
    from policy.runtime.settings import DEFAULT_PATH  # noqa: PLC0415 - as above

    ctx.exit(run(config or DEFAULT_PATH, lease, health))
