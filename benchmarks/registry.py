"""Which modules have rows, in the order in which they run: each has ``ROWS: tuple[Bench, ...]``."""

from __future__ import annotations

from importlib import import_module

from benchmarks.rows import Bench

MODULES: tuple[str, ...] = (
    "benchmarks.serving.answers",
    "benchmarks.serving.misses",
    "benchmarks.serving.held",
    "benchmarks.serving.throughput",
    "benchmarks.serving.streams",
    "benchmarks.loads.changes",
    "benchmarks.loads.connecting",
    "benchmarks.loads.crowds",
    "benchmarks.loads.saturation",
    "benchmarks.loads.data_path",
    "benchmarks.loads.sharing",
)


def benches() -> list[Bench]:
    """Return all of them; a name stands for one."""
    found = [bench for module in MODULES for bench in import_module(module).ROWS]
    names = [bench.name for bench in found]
    assert len(set(names)) == len(names), names
    return found
