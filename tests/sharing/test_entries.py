"""Replies of Redis as they are read: whatever is between us and it, they are values or ``Malformed``."""

from __future__ import annotations

import pytest

from enforcer.sharing.redis.entries import Malformed, entries_of, instant_of, time_of
from policy.runtime.clock import wall_now


def test_time_is_seconds_and_microseconds() -> None:
    """In milliseconds."""
    assert time_of([b"1790000000", b"123456"]) == 1_790_000_000_123


@pytest.mark.parametrize(
    "reply",
    [
        [b"9" * 5000, b"0"],
        [b"1", b"9" * 5000],
        [b"9" * 4299, b"0"],
        [b"9" * 12, b"0"],
        [b"1790000000"],
        [b"-1", b"0"],
        [b"\xb2", b"0"],
        None,
        17,
    ],
)
def test_a_clock_that_no_redis_has_is_malformed(reply: object) -> None:
    """Somebody between us and Redis says any number: the connection ends, and nothing else."""
    with pytest.raises(Malformed):
        time_of(reply)


def test_every_age_that_can_come_of_both_is_one_that_can_be_shown() -> None:
    """The oldest entry by the furthest clock."""
    (entry,) = entries_of([[b"0-1", [b"f", b"v"]]], time_of([b"9" * 10, b"999999"]))
    assert wall_now(entry.age_ms / 1000) < wall_now()


@pytest.mark.parametrize("said", [b"1", b"1-", b"-1", b"1-1-1", b"9" * 50 + b"-0", b"\xb2-0"])
def test_an_id_that_is_none_is_malformed(said: bytes) -> None:
    """Whatever its length."""
    with pytest.raises(Malformed):
        instant_of(said)
