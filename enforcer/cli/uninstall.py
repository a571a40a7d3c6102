"""``nameward uninstall``: have every node of a cluster take Nameward's rules away, or do it on this one.

Owns the mark on Nameward's namespace and the wait for the nodes' word. Never removes an object of the
cluster: that is Helm's. Invariant: it says which nodes' rules may still be there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from enforcer.cli.options import (
    CommandFailure,
    DurationParameter,
    UsageFailure,
    config_option,
    reader_settings,
)
from enforcer.removal import MARK, clear, take_away
from policy.manifest_findings import printable
from policy.runtime.clock import now, wall_now

if TYPE_CHECKING:
    from enforcer.kube.access import Access
    from enforcer.kube.client import Api

NODE_STATUSES = "/apis/nameward.dev/v1alpha1/nodestatuses"
LOOK_EVERY_S = 1.0
NAMED = 20


class Nodes(NamedTuple):
    """Names of those that said their rules are gone, and of those that did not."""

    gone: tuple[str, ...]
    waited_for: tuple[str, ...]


@click.command()
@config_option
@click.option(
    "--local", is_flag=True, help="Take the rules away on this node, where no Nameward runs any more."
)
@click.option(
    "--kubeconfig", default="", help="How the cluster is reached.  [default: this pod's service account]"
)
@click.option("--context", default="", help="The context of that file.  [default: its current one]")
@click.option("--namespace", default="", help="Nameward's own namespace.  [default: the account's]")
@click.option(
    "--wait",
    type=DurationParameter(),
    default="60s",
    show_default=True,
    help="How long to wait for the nodes.",
)
@click.pass_context
def uninstall(
    ctx: click.Context,
    config: str | None,
    *,
    local: bool,
    kubeconfig: str,
    context: str,
    namespace: str,
    wait: float,
) -> None:
    """Have every node take Nameward's rules away; before the chart goes. Ending Nameward leaves them."""
    if local:
        _remove_here(reader_settings(config).runtime_dir)
        return
    from enforcer.kube.access import AccessError, from_kubeconfig, in_cluster  # noqa: PLC0415 - not for --local

    try:
        access = from_kubeconfig(kubeconfig, context) if kubeconfig else in_cluster()
    except AccessError as error:
        raise UsageFailure(f"{error} (or --kubeconfig FILE; on a node: --local)") from None
    still = remove_everywhere(access, namespace or access.namespace, wait)
    ctx.exit(1 if still else 0)


def _remove_here(runtime_dir: str) -> None:
    from enforcer.kernel import Kernel  # noqa: PLC0415 - only here the kernel's bindings are needed
    from enforcer.routes import Routes  # noqa: PLC0415 - as above
    from enforcer.tenure import Lock, SupervisorError  # noqa: PLC0415 - as above

    if os.geteuid() != 0:
        raise UsageFailure("this changes the kernel's rules: run it as root")
    try:
        Lock(runtime_dir).take(0)
        gone = take_away(Kernel(), Routes())
    except SupervisorError as error:
        raise CommandFailure(str(error)) from None
    except OSError as error:
        raise CommandFailure(f"the kernel refuses: {error.strerror or error}") from None
    clear(Path(runtime_dir))
    click.echo(f"removed: {', '.join(gone)}" if gone else "there were no rules of Nameward here")


def remove_everywhere(access: Access, namespace: str, wait_s: float) -> tuple[str, ...]:
    """Mark the namespace and wait; returns the nodes that did not say that their rules are gone."""
    from enforcer.kube.client import Api, ApiLost, ApiRefused  # noqa: PLC0415 - only here a client is needed

    api = Api(access, user_agent="nameward-uninstall")
    try:
        mark(api, namespace)
        click.echo(f"asked every node to take its rules away: {MARK} on namespace {printable(namespace)}")
        nodes = await_nodes(lambda: _nodes(api), wait_s, now, time.sleep)
    except (ApiRefused, ApiLost) as error:
        raise CommandFailure(f"the API server does not do it: {error}") from None
    for line in said(nodes, wait_s):
        click.echo(line)
    return nodes.waited_for


def mark(api: Api, namespace: str) -> None:
    """Write the time into our namespace's annotation."""
    path = f"/api/v1/namespaces/{namespace}"
    api.patch(path, {"metadata": {"annotations": {MARK: wall_now()}}}, "merge")


def _nodes(api: Api) -> Nodes:
    gone: list[str] = []
    waited_for: list[str] = []
    for item in api.list(NODE_STATUSES).items:
        metadata, status = item.get("metadata"), item.get("status")
        name = str(metadata.get("name", "")) if isinstance(metadata, dict) else ""
        is_gone = isinstance(status, dict) and status.get("removed") is True
        (gone if is_gone else waited_for).append(name)
    return Nodes(tuple(sorted(gone)), tuple(sorted(waited_for)))


def await_nodes(
    look: Callable[[], Nodes], wait_s: float, clock: Callable[[], float], pause: Callable[[float], None]
) -> Nodes:
    """Look until every node that ever reported says that its rules are gone, or the time is over."""
    until = clock() + wait_s
    while (nodes := look()).waited_for and clock() < until:
        pause(LOOK_EVERY_S)
    return nodes


def said(nodes: Nodes, wait_s: float) -> list[str]:
    """Return the sentences for a person."""
    if not nodes.waited_for:
        return [f"the rules are gone from {len(nodes.gone)} nodes"]
    names = ", ".join(printable(name) for name in nodes.waited_for[:NAMED])
    more = f" and {len(nodes.waited_for) - NAMED} more" if len(nodes.waited_for) > NAMED else ""
    return [
        f"{len(nodes.waited_for)} of {len(nodes.gone) + len(nodes.waited_for)} nodes did not answer within"
        f" {wait_s:g} s: {names}{more}",
        "their rules stay until they are restarted, or nameward uninstall --local runs there",
    ]
