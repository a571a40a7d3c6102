"""Which benches there are, in the order in which they run: the goals' rows first, what is only shown last.

A module has ``ROWS: tuple[Bench, ...]``.
"""

from __future__ import annotations

from importlib import import_module

from benchmarks.rows import Bench

MODULES: tuple[str, ...] = (
    "benchmarks.serving.answers",
    "benchmarks.serving.misses",
    "benchmarks.serving.held",
    "benchmarks.loads.changes",
    "benchmarks.serving.throughput",
    "benchmarks.serving.streams",
    "benchmarks.loads.data_path",
    "benchmarks.loads.crowds",
    "benchmarks.loads.saturation",
    "benchmarks.loads.connecting",
    "benchmarks.loads.sharing",
)
LAST = ("scaling", "sharing")
"""What is only shown, and shared state, which has a page of its own; missing where time does not suffice."""


def benches() -> list[Bench]:
    """Return all of them; a name stands for one."""
    found = [bench for module in MODULES for bench in import_module(module).ROWS]
    names = [bench.name for bench in found]
    assert len(set(names)) == len(names), names
    return sorted(found, key=lambda bench: bench.name in LAST)
