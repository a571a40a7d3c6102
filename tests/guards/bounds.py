"""How much work an answer may be: the bounds, all in one place, to be lowered whenever a figure is.

``python -m tests.guards.figures`` (with ``NAMEWARD_PURE=1``) prints what it is now. A bound is a
tenth above its figure, for the differences between versions of Python: who has made something cheaper
lowers its bound, so that it stays so. Who needs a higher one says in the commit what is bought with it.
"""

from __future__ import annotations

CORE = {
    "hit": {"bytecodes": 87, "functions": 1, "lookups": 2, "blocks": 0.01},
    "hit, blocked": {"bytecodes": 101, "functions": 1, "lookups": 2, "blocks": 0.01},
    "hit, mixed case": {"bytecodes": 161, "functions": 1, "lookups": 3, "blocks": 0.01},
    "cached, the long way": {"bytecodes": 2930, "functions": 81, "lookups": 15, "blocks": 1.1},
    "blocked, the long way": {"bytecodes": 2310, "functions": 71, "lookups": 12, "blocks": 2.1},
    "miss, 1 address": {"bytecodes": 5380, "functions": 134, "lookups": 43, "blocks": 24.4},
    "miss, 8 addresses": {"bytecodes": 7540, "functions": 157, "lookups": 43, "blocks": 33.2},
    "grant, alone": {"bytecodes": 1520, "functions": 45, "transactions": 1},
    "grant, 32 together": {"bytecodes": 1390, "functions": 38, "transactions": 0.04},
    "grant, in the resolver": {"bytes": 220},
    "grant, in the enforcer": {"bytes": 111},
    "refusal": {"bytes": 286},
}
"""Of the resolver's core, and of the enforcer's authority for each of the requests of a turn."""

REMEDY = {
    "bytecodes": "each is some 5 ns: look at the functions that the change touched, with `dis`",
    "transactions": "all grants of a turn go to the kernel in one: a transaction is some 40 µs",
    "functions": "each call is some 50 ns: what is called for every packet is written where it is used",
    "lookups": "each is some 30 ns and a cache line: keep what belongs together under one key",
    "blocks": "something is kept for each: leave it out, or bound it and say why",
    "bytes": "kept for each of so many: share what is the same, keep octets instead of objects",
}
"""What is counted, and what to do about it: bytecodes executed, functions entered (but C's), uses of the
core's tables, blocks and bytes of memory that stay. "the long way" is without a prepared reply."""

KERNEL = {
    "hit": {"resolver's calls": 2.6, "enforcer's calls": 0.5},
    "hit, blocked": {"resolver's calls": 2.6, "enforcer's calls": 0.5},
    "hit, one at a time": {"resolver's calls": 4.3, "enforcer's calls": 0.5},
    "hit, a connection each": {"resolver's calls": 8.0},
    "miss": {"resolver's calls": 7.0, "enforcer's calls": 1.5, "transactions": 0.25},
}
"""Of the running node, for each question of a burst of 32: system calls and transactions with nftables.
Bursts fall apart on a machine that is busy otherwise: the bounds are what that may cost, not a tenth."""

KERNEL_REMEDY = {
    "resolver's calls": "each is 1 to 4 µs: what several questions of a turn need is asked for together",
    "enforcer's calls": "each is 1 to 4 µs: a turn reads, commits and tells once",
    "transactions": "each is some 40 µs: all grants of a turn go in one",
}
