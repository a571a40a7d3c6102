"""The command line, ``nameward``: everything a person types.

Owns words, tables and exit codes (0 fine, 1 findings or failures, 2 wrong usage or configuration).
Decides nothing: it asks the node's inspection socket, or the policy code for manifests offline.
Whatever comes from a record is escaped before it meets a terminal.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version

import click

__all__ = ["main"]

_MODULES = {
    "demo": "demo",
    "node": "daemons",
    "enforcer": "daemons",
    "resolver": "daemons",
    "controller": "controller",
    "bridge": "bridge",
    "check": "check",
    "explain": "explain",
    "blocked": "blocked",
    "grants": "grants",
    "inventory": "inventory",
    "status": "status",
    "gate": "gate",
    "health": "health",
    "uninstall": "uninstall",
}


class _Commands(click.Group):
    """Imports a command's module when it is used: ``status`` needs no policy code, ``node`` no tables."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _MODULES:
            return None
        module = importlib.import_module(f"enforcer.cli.{_MODULES[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command


def _version() -> str:
    try:
        return version("nameward")
    except PackageNotFoundError:
        return "not installed"


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(_version(), prog_name="nameward")
def main() -> None:
    """Give every workload exactly the egress its policy declares."""
