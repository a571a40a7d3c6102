"""``nameward check``: would these manifests be understood, and do they say what they seem to say?"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
import msgspec
from rich.text import Text

from enforcer.cli import manifests
from enforcer.cli.escaping import safe
from enforcer.cli.options import EXIT_FAILED, config_option, output_option, reader_settings
from enforcer.cli.output import console, show_json, show_yaml
from policy.check import check as lint
from policy.manifest import Finding, load_manifests

_COLOR = {"error": "bold red", "warning": "bold yellow"}


@click.command()
@click.argument("paths", metavar="PATH…", nargs=-1, required=True)
@output_option
@config_option
@click.pass_context
def check(ctx: click.Context, paths: tuple[str, ...], output: str, config: str | None) -> None:
    """Validate manifests as the enforcer would read them; PATH is a file, a folder, or - for input.

    Errors and warnings each say where and what to write instead. Exit code 1 if there are errors.
    """
    settings = reader_settings(config)
    files = manifests.read(paths)
    loaded = load_manifests(files, manifests.governed(settings, config))
    found = [*loaded.findings, *lint(loaded)]
    found.sort(key=lambda finding: (finding.file, finding.document))
    rows = [msgspec.to_builtins(finding) for finding in found]
    if output == "json":
        show_json(rows)
    elif output == "yaml":
        show_yaml(rows)
    else:
        _show(found)
        errors = sum(finding.severity == "error" for finding in found)
        counted = f"{len(files)} files, {len(loaded.policies)} policies, {len(loaded.pods)} pods"
        print(f"{counted}: {errors} errors, {len(found) - errors} warnings", file=sys.stderr)
    if any(finding.severity == "error" for finding in found):
        ctx.exit(EXIT_FAILED)


def _show(findings: Sequence[Finding]) -> None:
    on = console()
    for finding in findings:
        place = f"{finding.file}, document {finding.document}" if finding.document else finding.file
        where = f"{place}, {finding.pointer}" if finding.pointer else place
        head = Text.assemble((finding.severity, _COLOR[finding.severity]), ": ", (safe(where), "bold"))
        on.print(head)
        on.print(Text(f"  {safe(finding.message)}"))
        on.print(Text.assemble("  fix: ", safe(finding.fix)))
