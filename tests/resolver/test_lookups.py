"""Questions to upstreams: who waits for one, and what is left of it afterwards."""

from __future__ import annotations

import gc
import weakref

import pytest

from resolver.cache import Asked
from resolver.core_settings import CoreSettings
from resolver.deadlines import Deadlines
from resolver.lookups import Lookups


class Somebody:
    """Waits."""


ANSWER = b"\0\1\x81\x80\0\1\0\0\0\0\0\0\1b\0\0\1\0\1"


@pytest.mark.parametrize("wire", [b"", ANSWER, None], ids=["unreadable", "answer", "silence"])
def test_what_was_answered_keeps_nobody(wire):
    """Who waited for an answer is let go with it, though a question before it still waits for its own."""
    deadlines = Deadlines()
    lookups = Lookups(CoreSettings(), deadlines)
    lookups.ask(Asked(b"\1a\0", 1, b"\0\1", signed=False), "outside", "", Somebody(), 0.0)
    somebody = Somebody()
    begun = lookups.ask(Asked(b"\1b\0", 1, b"\0\1", signed=False), "outside", "", somebody, 0.5)
    waiters, _ = lookups.failed(begun.id, 22, 0.6) if wire is None else lookups.answered(begun.id, wire, 0.6)
    assert waiters == [somebody]
    gone = weakref.ref(somebody)
    del waiters, somebody
    gc.collect()
    assert gone() is None
    assert deadlines.next_at() == 1.8
