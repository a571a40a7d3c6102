"""A hit, a miss and a grant take no more work than they did: counted, not timed; fails where it changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.guards.bounds import CORE, REMEDY
from tests.guards.counting import Counting, executed, kept_blocks, kept_bytes, looked_up

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def figures():
    """What the core takes, counted on the sources in a process of its own."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.guards.figures"], cwd=ROOT, check=False, capture_output=True, text=True,
        env={**os.environ, "NAMEWARD_PURE": "1"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize(("work", "what"), [(work, what) for work, bounds in CORE.items() for what in bounds])
def test_no_more_than_is_allowed(figures, work, what):
    """Bytecodes, functions, lookups in tables, memory kept and transactions, each for each kind of work."""
    found, most = figures[work][what], CORE[work][what]
    print(f"{work}: {found:g} {what}, at most {most:g}")
    assert found <= most, (
        f"{work}: {found:g} {what}, at most {most:g} are allowed (tests/guards/bounds.py). {REMEDY[what]}"
    )


def test_every_figure_has_its_bound(figures):
    """Nothing is counted in vain, and no bound is of something that is not counted."""
    assert {work: set(found) for work, found in figures.items()} == {
        work: set(bounds) for work, bounds in CORE.items()
    }
    assert all(value > 0 for found in figures.values() for what, value in found.items() if what != "blocks")


def test_what_counts_sees_more_work():
    """Twice the work is twice the count; what is kept is seen to be kept."""
    theirs: dict[str, Any] = {"__name__": "theirs", "table": {}}
    exec("def work(times):\n for number in range(times):\n  table.get(number)", theirs)
    once = executed([partial(theirs["work"], 100)])
    twice = executed([partial(theirs["work"], 200), partial(theirs["work"], 0)])
    assert 1.9 < twice[0] / once[0] < 2.1
    assert (once[1], twice[1]) == (1, 2)
    theirs["table"] = Counting()
    assert looked_up(lambda: theirs["work"](100)) == 100
    kept: list[object] = []
    assert kept_blocks(lambda number: kept.append(object()), 100) >= 1
    assert kept_blocks(lambda number: object(), 1000) < 0.05
    assert kept_bytes(lambda number: kept.append(bytes(1000)), 100) >= 1000
    assert kept_bytes(lambda number: bytes(1000), 100) < 100
