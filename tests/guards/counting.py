"""Counts what a call does, not how long it takes: bytecodes, functions entered, lookups in tables, memory.

Owns the ways to count, for the sources as they are (compiled code runs no bytecodes). Never times anything.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

OURS = ("policy.", "resolver.", "enforcer.")
TESTS = ("tests.", "__main__")


def executed(calls: Sequence[Callable[[], object]]) -> tuple[int, int]:
    """Bytecodes executed and functions entered by the calls, but those of tests; C functions are one call."""
    bytecodes = entered = 0

    def trace(frame: Any, event: str, _arg: object) -> Any:
        nonlocal bytecodes, entered
        if event == "call":
            is_counted = not frame.f_globals.get("__name__", "").startswith(TESTS)
            frame.f_trace_opcodes, frame.f_trace_lines = is_counted, False
            entered += is_counted
        elif event == "opcode":
            bytecodes += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for call in calls:
            call()
    finally:
        sys.settrace(before)
    return bytecodes, entered


class Counting(dict):  # type: ignore[type-arg]
    """A table that counts how often it is looked into or written to."""

    uses = 0

    def get(self, *arguments):
        Counting.uses += 1
        return super().get(*arguments)

    def __getitem__(self, key):
        Counting.uses += 1
        return super().__getitem__(key)

    def __contains__(self, key):
        Counting.uses += 1
        return super().__contains__(key)

    def __setitem__(self, key, value):
        Counting.uses += 1
        super().__setitem__(key, value)

    def __delitem__(self, key):
        Counting.uses += 1
        super().__delitem__(key)

    def pop(self, *arguments):
        Counting.uses += 1
        return super().pop(*arguments)

    def setdefault(self, *arguments):
        Counting.uses += 1
        return super().setdefault(*arguments)


def count_tables(root: object) -> int:
    """Have every dictionary of ``root`` and of what it consists of count its uses; return their number."""
    seen: set[int] = set()
    waiting = [root]
    found = 0
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, tuple | list | set):
            waiting += item
        if not type(item).__module__.startswith(OURS):
            continue
        for name in _attributes(item):
            value = getattr(item, name, None)
            if type(value) is dict:
                try:
                    setattr(item, name, Counting(value))
                except AttributeError:  # frozen: it is made once and seldom looked into
                    continue
                found += 1
            waiting.append(value)
    return found


def _attributes(item: object) -> list[str]:
    names = list(getattr(item, "__dict__", ()))
    for each in type(item).__mro__:
        slots = each.__dict__.get("__slots__", ())
        names += (slots,) if isinstance(slots, str) else slots
    return [name for name in names if not name.startswith("__")]


def looked_up(call: Callable[[], object]) -> int:
    """How often the tables that count were used by a call."""
    before = Counting.uses
    call()
    return Counting.uses - before


def kept_blocks(call: Callable[[int], object], times: int) -> float:
    """Blocks of memory that a call leaves behind; ``call`` takes its number."""
    for number in range(times):
        call(number)
    gc.collect()
    gc.disable()
    before = sys.getallocatedblocks()
    for number in range(times, 2 * times):
        call(number)
    after = sys.getallocatedblocks()
    gc.enable()
    return (after - before) / times


def kept_bytes(
    call: Callable[[int], object], times: int, settle: Callable[[], object] | None = None
) -> float:
    """Octets of memory that a call leaves behind; ``settle`` comes once, before what is left is counted."""
    tracemalloc.start()
    for number in range(times):
        call(number)
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(times, 3 * times):
        call(number)
    if settle is not None:
        settle()
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (after - before) / (2 * times)
