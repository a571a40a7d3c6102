"""What the demo prints: exact JSON, a table that fits, sentences that say what to do."""

from __future__ import annotations

import json
from io import StringIO

import msgspec
import pytest
from rich.console import Console

from enforcer.demo import prerequisites
from enforcer.demo.failure import LabFailureError
from enforcer.demo.report import Step, as_json, print_progress, print_table
from enforcer.demo.scenes import Facts, Scene, play

STEP = Step(name="n", invariant="1", tried="t", expected="e", seen="[bold]s[/]", ok=True)


def test_json_has_exactly_the_promised_fields() -> None:
    """{ok, steps: [{name, invariant, tried, expected, seen, ok}]} and nothing else."""
    failed = msgspec.structs.replace(STEP, ok=False)
    row = {"name": "n", "invariant": "1", "tried": "t", "expected": "e", "seen": "[bold]s[/]", "ok": True}
    assert json.loads(as_json([STEP])) == {"ok": True, "steps": [row]}
    assert json.loads(as_json([STEP, failed])) == {"ok": False, "steps": [row, {**row, "ok": False}]}


def test_no_steps_are_not_a_success() -> None:
    """A demo that did nothing does not say that all is well."""
    assert json.loads(as_json([]))["ok"] is False


def test_the_table_fits_and_shows_text_as_it_is() -> None:
    """Markup in what was seen is printed, not obeyed; a failed step is named and counted."""
    out = StringIO()
    console = Console(file=out, width=100)
    failed = msgspec.structs.replace(STEP, name="broken", ok=False)
    print_progress(console, failed, 0.1)
    print_table(console, [STEP, failed], 1.0)
    text = out.getvalue()
    assert "[bold]s[/]" in text
    assert "1 of 2 steps failed" in text
    assert all(len(line) <= 100 for line in text.splitlines())


def _breaks(_stage: object, _facts: Facts) -> None:
    raise LabFailureError("the cable is cut")


def _does_nothing(_stage: object, _facts: Facts) -> None:
    return


@pytest.mark.parametrize(("body", "seen"), [(_breaks, "the cable is cut"), (_does_nothing, "nothing")])
def test_a_scene_that_breaks_or_notes_nothing_is_a_failed_step(body: object, seen: str) -> None:
    """An exception in a scene, or a scene without facts, never counts as held."""
    step = play(Scene("n", "1", "t", "e", body), None)  # type: ignore[arg-type]
    assert not step.ok
    assert seen in step.seen


def test_facts_hold_only_together() -> None:
    """One fact that does not hold fails the step, and is marked in what was seen."""
    facts = Facts()
    facts.check(holds=True, seen="good")
    assert facts.held
    facts.check(holds=False, seen="bad")
    assert not facts.held
    assert facts.text == "good; NOT AS EXPECTED: bad"


def test_missing_programs_are_named_by_their_packages() -> None:
    """What is not installed is named as Debian's package, once each."""
    assert prerequisites.missing_programs(lambda _name: None) == ["iproute2", "nftables", "nsd", "util-linux"]
    assert "redis-server" in prerequisites.missing_programs(lambda _name: None, redis=True)
    assert prerequisites.missing_programs(lambda name: f"/bin/{name}", redis=True) == []
