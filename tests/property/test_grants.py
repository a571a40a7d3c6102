"""Laws of the reasons of a grant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.grants import Reason, holding, joined, lasts_until, without

reason = st.builds(
    Reason,
    name=st.sampled_from(["a.example", "b.example", "c.example"]),
    policy=st.sampled_from(["n/p", "n/q"]),
    rule=st.sampled_from(["r", "s"]),
)
reasons = st.dictionaries(reason, st.floats(0, 1000, allow_nan=False), max_size=8)


@given(reasons, reasons)
def test_joining_is_commutative(left: dict[Reason, float], right: dict[Reason, float]) -> None:
    """Which reason came first does not matter."""
    assert joined(left, right) == joined(right, left)


@given(reasons)
def test_joining_is_idempotent(some: dict[Reason, float]) -> None:
    """A reason that comes twice is one reason."""
    assert joined(some, some) == some


@given(reasons, reasons, reasons)
def test_joining_is_associative(
    one: dict[Reason, float], two: dict[Reason, float], three: dict[Reason, float]
) -> None:
    """Batches may be cut anywhere."""
    assert joined(joined(one, two), three) == joined(one, joined(two, three))


@given(reasons, reasons)
def test_an_element_lasts_until_its_latest_reason(
    left: dict[Reason, float], right: dict[Reason, float]
) -> None:
    """Joining never shortens."""
    assert lasts_until(joined(left, right)) == max(lasts_until(left), lasts_until(right))


@given(reasons, reason, st.floats(0, 1000, allow_nan=False))
def test_taking_one_reason_away_closes_nothing_that_another_opens(
    some: dict[Reason, float], gone: Reason, now: float
) -> None:
    """What holds without the taken reason holds exactly as long as before."""
    rest = without(some, lambda each: each == gone)
    assert gone not in rest
    for other, until in some.items():
        if other != gone:
            assert rest[other] == until
    if any(until > now for other, until in some.items() if other != gone):
        assert holding(rest, now)


def test_nothing_lasts_for_ever_without_a_reason() -> None:
    """No reasons: over since always."""
    assert lasts_until({}) == float("-inf")
    assert lasts_until({Reason("a", "n/p", "r"): 3.0}) == pytest.approx(3.0)
