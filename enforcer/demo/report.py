"""What the demo found, for people and for programs.

Owns the shape of the result and how it is printed. Never decides whether a step held.
"""

from __future__ import annotations

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Step(msgspec.Struct, frozen=True):
    """One step: what was tried, expected and seen, and whether that held."""

    name: str
    invariant: str
    tried: str
    expected: str
    seen: str
    ok: bool


class Result(msgspec.Struct, frozen=True):
    """The whole demo; ``ok`` only if every step held."""

    ok: bool
    steps: tuple[Step, ...]


def as_json(steps: list[Step]) -> str:
    """Return the result as the JSON object that interfaces promise."""
    result = Result(ok=bool(steps) and all(step.ok for step in steps), steps=tuple(steps))
    return msgspec.json.format(msgspec.json.encode(result), indent=2).decode()


def print_progress(console: Console, step: Step, took_s: float) -> None:
    """Print one line as soon as a step is over."""
    mark = "[green]held[/]" if step.ok else "[bold red]FAILED[/]"
    console.print(f"{mark} {escape(step.name)} [dim]{took_s:.1f} s[/]", highlight=False)
    if not step.ok:
        console.print(f"  seen: {escape(step.seen)}", highlight=False)


def print_table(console: Console, steps: list[Step], took_s: float) -> None:
    """Print the table of all steps and one sentence."""
    table = Table(show_lines=True, expand=True)
    table.add_column("step", style="bold", ratio=3)
    table.add_column("tried", ratio=5, overflow="fold")
    table.add_column("expected", ratio=4)
    table.add_column("seen", ratio=6, overflow="fold")
    table.add_column("", no_wrap=True)
    for step in steps:
        mark = "[green]held[/]" if step.ok else "[bold red]FAILED[/]"
        name = f"{escape(step.name)}\n[dim]{escape(step.invariant)}[/]"
        table.add_row(name, escape(step.tried), escape(step.expected), escape(step.seen), mark)
    console.print(table)
    failed = sum(not step.ok for step in steps)
    verdict = (
        f"[bold red]{failed} of {len(steps)} steps failed[/]" if failed else f"all {len(steps)} steps held"
    )
    console.print(f"{verdict}, {took_s:.0f} s", highlight=False)
