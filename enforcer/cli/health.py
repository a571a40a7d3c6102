"""``nameward health``: is the pod behind a health socket alive, is it ready; for probes by exec.

Owns one sentence and the exit code: 0 yes, 1 no.
"""

from __future__ import annotations

import click

from enforcer.health import ask
from policy.manifest_findings import printable

WAIT_S = 4.0


@click.command()
@click.option("--ready", is_flag=True, help="Ask whether it is ready, not only alive.")
@click.argument("path", metavar="PATH")
@click.pass_context
def health(ctx: click.Context, ready: bool, path: str) -> None:
    """Ask the daemon that was started with --health PATH how it is."""
    try:
        told = ask(path, WAIT_S)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        click.echo(f"nobody answers at {path}: {reason}")
        ctx.exit(1)
    click.echo(printable(told.said))
    ctx.exit(0 if (told.ready if ready else told.live) else 1)
