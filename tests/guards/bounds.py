"""How much work an answer may be: the bounds, all in one place, to be lowered whenever a figure is.

``python -m tests.guards.figures`` (with ``NAMEWARD_PURE=1``) prints what the core takes now. A bound is a
tenth above its figure, for the differences between versions of Python: who has made something cheaper
lowers its bound, so that it stays so. Who needs a higher one says in the commit what is bought with it.
"""

from __future__ import annotations

CORE = {
    "hit": {"bytecodes": 97, "functions": 1, "lookups": 2, "blocks": 0.01},
    "hit, blocked": {"bytecodes": 111, "functions": 1, "lookups": 2, "blocks": 0.01},
    "hit, mixed case": {"bytecodes": 166, "functions": 1, "lookups": 3, "blocks": 0.01},
    "cached, the long way": {"bytecodes": 2900, "functions": 76, "lookups": 18, "blocks": 1.1},
    "blocked, the long way": {"bytecodes": 2570, "functions": 67, "lookups": 13, "blocks": 2.1},
    "miss, 1 address": {"bytecodes": 5380, "functions": 126, "lookups": 47, "blocks": 52},
    "miss, 8 addresses": {"bytecodes": 7500, "functions": 157, "lookups": 47, "blocks": 69},
}
"""Of the resolver's core, by work: bytecodes executed, functions of ours entered, uses of its tables, and
blocks of memory that stay. "the long way" is without a prepared reply."""

REMEDY = {
    "bytecodes": "each is some 5 ns: look at the functions that the change touched, with `dis`",
    "functions": "each call is some 50 ns: what is called for every packet is written where it is used",
    "lookups": "each is some 30 ns and a cache line: keep what belongs together under one key",
    "blocks": "something is kept for each: leave it out, or bound it and say why",
}
"""What to do about it."""
