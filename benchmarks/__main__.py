"""``make bench``: measure every row beside its peers, print each with its verdict, write the result.

    python -m benchmarks [--quick] [--only NAME ...] [--write-docs] [--list]

Timing never fails: the exit code is 1 only if something could not be measured that should have been.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from pathlib import Path

from benchmarks import machine
from benchmarks.pages import write_docs
from benchmarks.registry import benches
from benchmarks.rows import Bench, Plan, Row, all_rows, read, table, write
from benchmarks.timing import Clock

WHOLE = {"begun_before_s": 840.0, "over_after_s": 870.0}
QUICK = {"begun_before_s": 105.0, "over_after_s": 112.0}
"""When no other bench is begun, and when the one that runs is ended: a slow machine ends in time as well."""
RESULT = Path(__file__).parent / "results" / "latest.json"
TOOLS = {
    "nsd": "nsd", "dnsmasq": "dnsmasq-base", "unbound": "unbound", "dnsperf": "dnsperf", "nft": "nftables",
    "dig": "bind9-dnsutils", "taskset": "util-linux", "iperf3": "iperf3", "gcc": "gcc",
}  # fmt: skip


def main() -> int:
    """Run what was asked for."""
    options = _options()
    chosen = [bench for bench in benches() if _is_chosen(bench, options)]
    if options.list:
        print("\n".join(f"{bench.name:14} {bench.title}" for bench in chosen))
        return 0
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if os.geteuid() != 0 or missing:
        print(f"needs root; missing: apt-get install {' '.join(missing) or 'nothing'}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    plan = Plan(quick=options.quick)
    clock = Clock() if options.only else Clock(**(QUICK if plan.quick else WHOLE))
    failures: list[str] = []
    rows: list[Row] = []
    for row in all_rows(chosen, plan, _say, failures, clock):
        rows.append(row)
        _save(rows, plan, clock, failures)
    _save(rows, plan, clock, failures)
    took = ", ".join(f"{name} {seconds:.0f}" for name, seconds in plan.took_s.items())
    print(f"\n{table(rows)}\n\n{clock.gone_s():.0f} s ({took}); {RESULT}")
    if options.write_docs:
        write_docs(read(RESULT))
    return 1 if failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure beside the peers.")
    parser.add_argument("--quick", action="store_true", help="fewer rows and shorter loads: two minutes")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="only this (see --list)")
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument(
        "--write-docs", action="store_true", help="write the table and the curves into docs/performance.md"
    )
    options = parser.parse_args()
    unknown = set(options.only) - {bench.name for bench in benches()}
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; --list says what there is")
    return options


def _is_chosen(bench: Bench, options: argparse.Namespace) -> bool:
    return bench.name in options.only if options.only else bench.quick or not options.quick


def _say(line: str) -> None:
    print(line, flush=True)


def _save(rows: list[Row], plan: Plan, clock: Clock, failures: list[str]) -> None:
    write(
        RESULT,
        rows,
        machine=machine.machine(),
        kernel=machine.kernel(),
        versions=machine.versions(),
        quick=plan.quick,
        seconds=round(clock.gone_s()),
        took_s=plan.took_s,
        curves=plan.curves,
        failures=failures,
    )


if __name__ == "__main__":
    sys.exit(main())
