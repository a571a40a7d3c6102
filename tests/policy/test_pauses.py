"""Garbage collection: what has settled is not looked at again, garbage of cycles does not stay."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator

import pytest

from policy.pods import Pod
from policy.rules import Destination, Policy, PortRange, Rule
from policy.runtime import pauses
from policy.snapshot import Snapshot, compile_snapshot
from policy.world import World


class Knot:
    """An object that holds itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _unsettled() -> Iterator[None]:
    """Leave the collector as it was found."""
    thresholds, interval, thorough_at = (
        gc.get_threshold(),
        sys.getswitchinterval(),
        pauses._Process.thorough_at,
    )
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(interval)
    pauses._Process.thorough_at = thorough_at


def test_what_is_there_is_not_looked_at_again() -> None:
    """A full collection after it passes over everything that had come before."""
    kept = [Knot() for _ in range(1000)]
    pauses.settle()
    assert gc.get_freeze_count() > len(kept)
    assert not any(each is kept[0] for each in gc.get_objects())


def test_garbage_of_cycles_goes_within_the_hour() -> None:
    """What was alive when something settled and ended later is found by the thorough look."""
    knot = Knot()
    gone = weakref.ref(knot)
    pauses.settle()
    del knot
    pauses.settle()
    assert gone() is not None
    pauses._Process.thorough_at = 0.0
    pauses.settle()
    assert gone() is None
    assert pauses._Process.thorough_at > 0.0


def test_snapshots_leave_nothing_behind() -> None:
    """A policy that was replaced goes without any collection: nothing in it holds itself."""
    rule = Rule(
        name="r", action="permit", destinations=(Destination(kind="public"),), web_groups=("*.example.com",),
        protocol="tcp", ports=PortRange(443, 443),
    )  # fmt: skip
    pod = Pod(namespace="t", name="a", uid="u", addresses=("10.0.0.2",))

    def snapshot(generation: int) -> Snapshot:
        policy = Policy(namespace="t", name=f"p{generation}", kind="FirewallPolicy", rules=(rule,))
        return compile_snapshot(World(generation=generation, pods=(pod,), policies=(policy,)))

    current = snapshot(1)
    current.access(pod, "www.example.com")
    gc.collect()
    before = sum(isinstance(each, Snapshot) for each in gc.get_objects())
    gc.disable()
    try:
        for generation in range(2, 6):
            current = snapshot(generation)
            assert current.access(pod, "www.example.com").resolvable
        assert sum(isinstance(each, Snapshot) for each in gc.get_objects()) == before
    finally:
        gc.enable()


def test_a_process_begins_with_short_pauses() -> None:
    """Thresholds and the switch of threads; a shorter switch that somebody set stays."""
    sys.setswitchinterval(0.0001)
    pauses.begin()
    assert gc.get_threshold() == pauses.THRESHOLDS
    assert sys.getswitchinterval() < pauses.SWITCH_S
