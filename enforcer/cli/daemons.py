"""``nameward node``, ``enforcer`` and ``resolver``: the daemons, supervised.

Owns what must hold before anything starts: a valid configuration, root for the enforcer, the
kernel's Python bindings. The loop is ``enforcer.supervisor``'s.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
from typing import Any

import click

from enforcer.cli.options import CommandFailure, UsageFailure, config_option, daemon_settings
from enforcer.ruleset import Layout
from enforcer.sharing.opening import preload as preload_sharing
from enforcer.sockets import SocketRefused, open_dns_sockets, open_listen_sockets
from enforcer.sources.opening import preload as preload_source
from enforcer.supervisor import Node, Supervisor, SupervisorError
from enforcer.tenure import Sockets
from enforcer.workers import ENFORCER, RESOLVER, Worker, preload, resolvers
from policy.runtime.account import AccountError, resolver_account
from policy.runtime.kinds import parse_listen
from policy.runtime.settings import Settings

_PACKAGE_OF = {"nftables": "python3-nftables", "seccomp": "python3-seccomp"}


_health_option = click.option(
    "--health",
    metavar="PATH",
    default="",
    help="Answer `nameward health` at this path.",
)
_take_over_option = click.option(
    "--take-over",
    is_flag=True,
    help="Take the rules over from another Nameward of this node, and leave them to the next one.",
)


@click.command()
@config_option
@_health_option
@_take_over_option
@click.pass_context
def node(ctx: click.Context, config: str | None, health: str, take_over: bool) -> None:
    """Run enforcer and resolver of this host, supervised; the resolver has no privileges."""
    ctx.exit(_run(config, (RESOLVER, ENFORCER), health, takes_over=take_over))


@click.command()
@config_option
@_health_option
@_take_over_option
@click.pass_context
def enforcer(ctx: click.Context, config: str | None, health: str, take_over: bool) -> None:
    """Run the enforcer alone; a resolver joins it through runtimeDir."""
    ctx.exit(_run(config, (ENFORCER,), health, takes_over=take_over))


@click.command()
@config_option
@_health_option
@click.pass_context
def resolver(ctx: click.Context, config: str | None, health: str) -> None:
    """Run the resolver alone; it gets its sockets from the enforcer through runtimeDir."""
    ctx.exit(_run(config, (RESOLVER,), health, takes_over=False))


def _run(config: str | None, workers: tuple[Worker, ...], health: str, *, takes_over: bool) -> int:
    signal.signal(signal.SIGTERM, _ended_early)  # a container's first process ignores it otherwise
    path, settings = daemon_settings(config)
    is_authority = any(worker.authority for worker in workers)
    if is_authority and os.geteuid() != 0:
        raise UsageFailure("the enforcer writes the kernel's rules: run this as root")
    try:
        if is_authority:
            preload_authority(settings)
    except ModuleNotFoundError as error:
        if error.name not in _PACKAGE_OF:
            raise
        package = _PACKAGE_OF[error.name]
        how = f"apt-get install {package}, and a virtual environment with --system-site-packages"
        raise UsageFailure(f"Python cannot import {error.name}; {how}") from None
    if RESOLVER in workers:
        workers = (*resolvers(settings.dns.processes), *(each for each in workers if each != RESOLVER))
    at = Node(
        settings.node,
        path,
        settings.runtime_dir,
        settings.log.format == "json",
        health=health,
        takes_over=takes_over,
    )
    try:
        return Supervisor(at, workers, os.environ).run(
            lambda given: _sockets(settings, given, beside=RESOLVER not in workers)
        )
    except SupervisorError as error:
        raise CommandFailure(str(error)) from None


def preload_authority(settings: Settings) -> None:
    """Import what the enforcer needs with these settings, and no more: a start waits for it."""
    preload_source(settings)
    preload_sharing(settings)
    for module in ("enforcer.reports.opening", "enforcer.web"):  # with the enforcer's, which is next
        importlib.import_module(module).preload(settings)
    preload(ENFORCER)


def _ended_early(_number: int, _frame: Any) -> None:
    sys.exit(0)


def _sockets(settings: Settings, given: Sockets, *, beside: bool) -> dict[str, socket.socket]:
    """Open what pods and other clients ask, as the resolver's user (for the kernel's fence around it).

    ``given`` by the one before us is kept, or closed if these settings have no use for it. ``beside``: a
    resolver of its own container may have outlived our predecessor, with the sockets it was given.
    """
    try:
        uid = resolver_account(settings.dns.user).uid
        port, processes = Layout().dns_port, settings.dns.processes
        opened = (
            open_dns_sockets(port, uid, given, beside=beside, processes=processes)
            if settings.dns.capture
            else {}
        )
        listen = [parse_listen(text) for text in settings.dns.listen]
        opened |= open_listen_sockets(listen, uid, given, beside=beside, processes=processes)
    except AccountError as error:
        raise UsageFailure(str(error)) from None
    except SocketRefused as error:
        raise CommandFailure(f"{error.strerror}; is another program there? (ss -lunpt)") from None
    for name, unused in given.items():
        if opened.get(name) is not unused:
            unused.close()
    return opened
