"""Refusals are grouped, bounded, and a noisy pod keeps its noise to itself."""

from __future__ import annotations

from enforcer.blocked import BlockedRecords, Refused


def _refused(pod: str, name: str, at: float = 1.0, times: int = 1) -> Refused:
    return Refused(
        "lookup", "ns", pod, "10.0.0.1", name, "A", "", "", None, "", "", "no", "blocked", times, at
    )


def test_equal_refusals_are_one_group_with_first_and_last() -> None:
    """The wording of the reason does not split a group."""
    records = BlockedRecords(10)
    records.add(_refused("a", "x", 1.0, 3))
    records.add(_refused("a", "x", 5.0)._replace(reason="expired 4 s ago"))
    (group,) = records.groups()
    assert (group.count, group.first_at, group.last.at, group.last.reason) == (4, 1.0, 5.0, "expired 4 s ago")


def test_a_noisy_pod_evicts_its_own_oldest() -> None:
    """The other pod's one record stays."""
    records = BlockedRecords(100)
    records.add(_refused("quiet", "evidence"))
    for number in range(1000):
        records.add(_refused("noisy", f"n{number}"))
    assert len(records) == 100
    groups = list(records.groups())
    assert [group.last.name for group in groups if group.last.pod == "quiet"] == ["evidence"]
    assert [group.last.name for group in groups if group.last.pod == "noisy"] == [
        f"n{i}" for i in range(901, 1000)
    ]


def test_unknown_sources_count_as_one() -> None:
    """Forging a thousand addresses evicts no pod's records."""
    records = BlockedRecords(10)
    records.add(_refused("quiet", "evidence"))
    for number in range(1000):
        records.add(_refused("", f"n{number}")._replace(namespace="", pod_ip=f"192.0.2.{number}"))
    assert "evidence" in [group.last.name for group in records.groups()]


def test_a_group_is_told_at_first_and_then_now_and_then() -> None:
    """The log gets the first one at once, later ones with their number."""
    records = BlockedRecords(10)
    assert records.add(_refused("a", "x", 0.0)) == 1
    assert [records.add(_refused("a", "x", at)) for at in (1.0, 2.0, 9.0)] == [0, 0, 0]
    assert records.add(_refused("a", "x", 10.0)) == 4


def test_a_follower_hears_each_until_it_stops() -> None:
    """Also one that stops while it is being told."""
    records = BlockedRecords(10)
    heard: list[str] = []
    stop = records.listen(lambda refused: heard.append(refused.name))
    records.add(_refused("a", "x"))
    stop()
    records.add(_refused("a", "y"))
    assert heard == ["x"]
