"""The shared cache: bounded, and fair between the pods that fill it."""

from __future__ import annotations

from resolver.answers import Answer
from resolver.cache import COST_BYTES, STALE_S, Cache


def an_answer(ttl_s=60, size_bytes=100, records=(b"\x01\x01\x01\x01",)):
    return Answer(0, (), 1, records, None, signatures=(), ttl_s=ttl_s, size_bytes=size_bytes)


def key(number):
    return f"n{number}".encode() + b"\x00\x00\x01"


def test_bounded():
    """However many entries come, the capacity holds."""
    cache = Cache(10)
    for number in range(1000):
        cache.put(key(number), an_answer(), f"pod-{number % 7}", 0.0, 60)
        assert cache.used <= 10
    assert len(cache) == 10


def test_large_answers_cost_more():
    """An answer of 64 kB takes the place of many small ones."""
    cache = Cache(200)
    for number in range(100):
        cache.put(key(number), an_answer(), "pod", 0.0, 60)
    cache.put(key("big"), an_answer(size_bytes=150 * COST_BYTES), "pod", 0.0, 60)
    assert cache.used <= 200
    assert len(cache) == 50
    cache.put(key("big"), an_answer(), "pod", 0.0, 60)
    assert cache.used == 50


def test_a_flood_evicts_its_own():
    """One pod's flood cannot empty the cache of the others, however late it comes."""
    cache = Cache(100)
    for number in range(50):
        cache.put(key(f"quiet-{number}"), an_answer(), "quiet", 0.0, 60)
    for number in range(10_000):
        cache.put(key(number), an_answer(), "flood", 0.0, 60)
    assert all(cache.get(key(f"quiet-{number}")) for number in range(50))


def test_a_newcomer_gets_its_share():
    """A pod that comes when the cache is full takes from the one that has most."""
    cache = Cache(100)
    for number in range(100):
        cache.put(key(number), an_answer(), "first", 0.0, 60)
    for number in range(50):
        cache.put(key(f"second-{number}"), an_answer(), "second", 0.0, 60)
    assert sum(cache.get(key(f"second-{number}")) is not None for number in range(50)) == 50


def test_least_recently_used_goes_first():
    """Of one pod's entries the one that was not asked for longest goes."""
    cache = Cache(2)
    cache.put(key(1), an_answer(), "pod", 0.0, 60)
    cache.put(key(2), an_answer(), "pod", 0.0, 60)
    assert cache.get(key(1))
    cache.put(key(3), an_answer(), "pod", 0.0, 60)
    assert cache.get(key(1))
    assert cache.get(key(2)) is None


def test_a_newer_answer_leaves_the_older_one_as_it_was():
    """A reply on hold was drafted from the entry: what a prefetch brings meanwhile is another entry."""
    cache = Cache(10)
    held = cache.put(key(1), an_answer(), "pod", 0.0, 60)
    fresh = cache.put(key(1), an_answer(ttl_s=600, records=(b"\x02\x02\x02\x02",)), "other", 50.0, 60)
    assert held.answer.records == (b"\x01\x01\x01\x01",)
    assert held.expires_at == 60.0
    assert cache.get(key(1)) is fresh
    assert fresh.share.owner == "pod"
    assert cache.used == 1


def test_lives():
    """A day at most, maxTTL for negatives, one second at least; stale for an hour, positives only."""
    cache = Cache(10)
    positive = cache.put(key(1), an_answer(ttl_s=2**32 - 1), "pod", 0.0, 60)
    assert positive.expires_at == 86400
    assert positive.is_usable_stale(86400 + STALE_S - 1)
    assert not positive.is_usable_stale(86400 + STALE_S)
    negative = cache.put(key(2), an_answer(ttl_s=3600, records=()), "pod", 0.0, 60)
    assert negative.expires_at == 60
    assert not negative.is_usable_stale(61)
    assert cache.put(key(3), an_answer(ttl_s=0), "pod", 0.0, 60).expires_at == 1


def test_a_failure_keeps_the_old_answer():
    """A failure is remembered for 5 s beside the answer that may still be given stale."""
    cache = Cache(10)
    cache.put(key(1), an_answer(ttl_s=10), "pod", 0.0, 60)
    cached = cache.put_failure(key(1), 22, "pod", 20.0)
    assert cached.answer is not None
    assert cached.failed_until == 25.0
    assert cached.ttl_s(21.0, 60) == 30


def test_the_order_of_use_is_kept_through_any_use():
    """Entries from the middle, the ends, replaced ones and failures: what was used longest ago goes first."""
    cache = Cache(5)
    for number in range(5):
        cache.put(key(number), an_answer(), "pod", 0.0, 60)
    for number in (2, 0, 4, 4):
        cache.get(key(number))
    cache.put(key(1), an_answer(), "pod", 1.0, 60)
    cache.put_failure(key(3), 22, "pod", 1.0)
    gone = []
    for number in range(10, 15):
        before = {each for each in range(5) if key(each) in cache._entries}
        cache.put(key(number), an_answer(), "pod", 2.0, 60)
        gone += before - {each for each in range(5) if key(each) in cache._entries}
    assert gone == [2, 0, 4, 1, 3]
    assert len(cache) == cache.used == 5
