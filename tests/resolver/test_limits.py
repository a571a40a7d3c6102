"""What one pod may cost the others."""

from __future__ import annotations

from resolver.core_settings import CoreSettings
from resolver.limits import MAX_DOMAINS, MAX_METERS, MAX_NAMES, Meter, Meters

SETTINGS = CoreSettings(distinct_names=3, distinct_names_period_s=600.0)


def test_rate_is_per_second():
    """So many queries in a second, then none, then so many again."""
    meter = Meter()
    assert [meter.take(0.0, 2) for _ in range(3)] == [True, True, False]
    assert not meter.take(0.9, 2)
    assert meter.take(1.0, 2)


def test_refusals_are_told_once_a_second():
    """A flood of refusals is one record a second."""
    meter = Meter()
    assert [meter.tells(at) for at in (0.0, 0.5, 0.99, 1.0, 1.5)] == [True, False, False, True, False]


def test_distinct_names_slide():
    """The fourth name of a domain within the period is too many; old ones leave the count."""
    meter = Meter()
    for at in range(3):
        assert not meter.count_name(f"x{at}.example.com", float(at), SETTINGS)
    assert meter.count_name("x3.example.com", 10.0, SETTINGS) == "example.com"
    assert not meter.count_name("x1.example.com", 10.0, SETTINGS), "counted already"
    assert not meter.count_name("x3.example.net", 10.0, SETTINGS), "another domain"
    assert not meter.count_name("x3.example.com", 600.0, SETTINGS), "the first has left"
    assert meter.count_name("x4.example.com", 600.5, SETTINGS)


def test_registrable_domains():
    """Domains are counted under their public suffix, so neighbours do not share a count."""
    meter = Meter()
    for at in range(3):
        assert not meter.count_name(f"x{at}.one.co.uk", 0.0, SETTINGS)
    assert meter.count_name("x3.one.co.uk", 0.0, SETTINGS) == "one.co.uk"
    assert not meter.count_name("x3.two.co.uk", 0.0, SETTINGS)


def test_a_count_is_not_washed_away():
    """A flood of other domains does not make room for more names of the one that had too many."""
    meter = Meter()
    for number in range(3):
        meter.count_name(f"x{number}.example.com", 0.0, SETTINGS)
    for number in range(5 * MAX_DOMAINS):
        meter.count_name(f"www.d{number}.com", 1.0, SETTINGS)
    assert meter.count_name("x3.example.com", 2.0, SETTINGS) == "example.com"


def test_memory_is_bounded():
    """However many domains and clients there are, a bounded number is remembered."""
    meter = Meter()
    for number in range(MAX_DOMAINS + 100):
        meter.count_name(f"www.d{number}.com", 0.0, SETTINGS)
    assert meter.domains <= MAX_DOMAINS
    many = CoreSettings(distinct_names=300)
    meter = Meter()
    for number in range(MAX_NAMES + 10_000):
        meter.count_name(f"n{number}.d{number // 300}.com", 0.0, many)
    assert meter.names <= MAX_NAMES + 300
    meters = Meters()
    for number in range(MAX_METERS + 100):
        meters.of(number.to_bytes(4, "big"))
    assert len(meters) <= MAX_METERS


def test_meters_go_with_their_pods():
    """A pod that is gone is forgotten; what is in flight keeps its meter."""
    meters = Meters()
    kept, busy = meters.of("kept"), meters.of(b"\x0a\x00\x00\x01")
    busy.in_flight = 1
    meters.of("gone")
    meters.keep({"kept"})
    assert len(meters) == 2
    assert meters.of("kept") is kept
