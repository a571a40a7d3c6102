"""``nameward node``, ``enforcer`` and ``resolver``: the daemons, supervised.

Owns what must hold before anything starts: a valid configuration, root for the enforcer, the
kernel's Python bindings. The loop is ``enforcer.supervisor``'s.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

import click

from enforcer.cli.options import CommandFailure, UsageFailure, config_option, daemon_settings
from enforcer.ruleset import Layout
from enforcer.sockets import SocketRefused, open_dns_sockets, open_listen_sockets
from enforcer.supervisor import Node, Supervisor, SupervisorError
from enforcer.workers import ENFORCER, RESOLVER, Worker, preload
from policy.runtime.account import AccountError, resolver_account
from policy.runtime.kinds import parse_listen
from policy.runtime.settings import Settings

_PACKAGE_OF = {"nftables": "python3-nftables", "seccomp": "python3-seccomp"}


@click.command()
@config_option
@click.pass_context
def node(ctx: click.Context, config: str | None) -> None:
    """Run enforcer and resolver of this host, supervised; the resolver has no privileges."""
    ctx.exit(_run(config, (RESOLVER, ENFORCER)))


@click.command()
@config_option
@click.pass_context
def enforcer(ctx: click.Context, config: str | None) -> None:
    """Run the enforcer alone; a resolver joins it through runtimeDir."""
    ctx.exit(_run(config, (ENFORCER,)))


@click.command()
@config_option
@click.pass_context
def resolver(ctx: click.Context, config: str | None) -> None:
    """Run the resolver alone; it gets its sockets from the enforcer through runtimeDir."""
    ctx.exit(_run(config, (RESOLVER,)))


def _run(config: str | None, workers: tuple[Worker, ...]) -> int:
    path, settings = daemon_settings(config)
    is_authority = any(worker.authority for worker in workers)
    if is_authority and os.geteuid() != 0:
        raise UsageFailure("the enforcer writes the kernel's rules: run this as root")
    try:
        preload(workers)
    except ModuleNotFoundError as error:
        if error.name not in _PACKAGE_OF:
            raise
        package = _PACKAGE_OF[error.name]
        how = f"apt-get install {package}, and a virtual environment with --system-site-packages"
        raise UsageFailure(f"Python cannot import {error.name}; {how}") from None
    at = Node(settings.node, path, settings.runtime_dir, settings.log.format == "json")
    try:
        return Supervisor(at, workers, os.environ).run(lambda: _sockets(settings) if is_authority else {})
    except SupervisorError as error:
        raise CommandFailure(str(error)) from None


def _sockets(settings: Settings) -> Mapping[str, socket.socket]:
    """Open what pods and other clients ask, as the resolver's user (for the kernel's fence around it)."""
    try:
        account = resolver_account(settings.dns.user)
        sockets = open_dns_sockets(Layout().dns_port, account.uid) if settings.dns.capture else {}
        listening = open_listen_sockets([parse_listen(text) for text in settings.dns.listen], account.uid)
    except AccountError as error:
        raise UsageFailure(str(error)) from None
    except SocketRefused as error:
        raise CommandFailure(f"{error.strerror}; is another program there? (ss -lunpt)") from None
    return {**sockets, **listening}
