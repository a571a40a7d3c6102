"""Pauses: how long the interpreter itself may hold up a lookup, by collecting garbage or by another thread.

Owns the settings of both, for a whole process. Decides nothing. Invariant: what has come to stay is not
looked through again and again for garbage, and nothing that is garbage stays for ever.
"""

from __future__ import annotations

import gc
import sys

from policy.runtime.clock import now

THRESHOLDS = (2_000, 5, 500)
"""A collection of the young looks at so many objects, one of the middle-aged at five times as many: about a
millisecond, and a few. Everything is looked through once in millions of objects that stay."""
SWITCH_S = 0.0005
"""How long a thread may hold the interpreter while the loop wants it: 5 ms by default (docs/adr/0011)."""
THOROUGH_S = 3600.0


def begin() -> None:
    """Set what holds for this process from now on."""
    gc.set_threshold(*THRESHOLDS)
    sys.setswitchinterval(min(SWITCH_S, sys.getswitchinterval()))


class _Process:
    """What there is one of."""

    thorough_at = now() + THOROUGH_S


def settle() -> None:
    """Something large has come to stay: take what is there out of the garbage collector's sight.

    Objects that end without being part of a cycle (snapshots, grants) are freed all the same. For those
    that were in a cycle (a connection), everything is looked through once an hour at most, now.
    """
    if now() >= _Process.thorough_at:
        _Process.thorough_at = now() + THOROUGH_S
        gc.unfreeze()
        gc.collect()
    else:
        gc.collect(0)
    gc.freeze()
