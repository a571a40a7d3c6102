"""What the commands share: their options, their errors, and finding the configuration.

Owns ``--config`` and ``-o``, and the form of an error: one sentence on standard error that says
what to do. Never prints results.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Literal

import click

from enforcer.cli.escaping import safe
from policy.runtime.kinds import Duration, Wrong
from policy.runtime.settings import DEFAULT_PATH, Settings, SettingsError, load_settings

EXIT_FAILED, EXIT_USAGE = 1, 2
Output = Literal["table", "json", "yaml", "wide"]
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class CommandFailure(click.ClickException):
    """The command ends here, with exit code 1; each line of ``message`` is one sentence."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it on standard error."""
        for line in self.message.splitlines():
            print(f"nameward: {safe(line)}", file=file or sys.stderr)


class UsageFailure(CommandFailure):
    """Wrong usage or configuration: exit code 2."""

    exit_code = EXIT_USAGE


class DurationParameter(click.ParamType[float]):
    """A duration with its unit, in seconds: 300ms, 30s, 1h30m."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it as the configuration does."""
        if isinstance(value, float):
            return value
        try:
            return Duration(0.001, 366 * 86400).read(value)
        except Wrong as wrong:
            self.fail(f"{wrong.message}; {wrong.fix}", param, ctx)


config_option: Decorator = click.option(
    "--config",
    metavar="FILE",
    envvar="NAMEWARD_CONFIG",
    type=click.Path(dir_okay=False),
    help=f"The configuration.  [default: {DEFAULT_PATH}; variable: NAMEWARD_CONFIG]",
)
output_option: Decorator = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml", "wide"]),
    default="table",
    show_default=True,
    help="The form of the result.",
)

node_option: Decorator = click.option(
    "--node", default="", help="Only this node.  [default: all, where their state is shared]"
)


def daemon_settings(config: str | None) -> tuple[str, Settings]:
    """Load the configuration that a daemon must have; returns its path too."""
    path = config or DEFAULT_PATH
    return os.path.abspath(path), _load(path)


def reader_settings(config: str | None) -> Settings:
    """Load the configuration if there is one: who only asks needs none, nor the right to read it."""
    if config is None and not os.access(DEFAULT_PATH, os.R_OK):
        return _load(None)
    return _load(config or DEFAULT_PATH)


def has_configuration(config: str | None) -> bool:
    """Say whether there is a configuration to go by."""
    return config is not None or Path(DEFAULT_PATH).exists()


def _load(path: str | None) -> Settings:
    try:
        return load_settings(path, os.environ)
    except SettingsError as error:
        raise UsageFailure(str(error)) from None
