"""Refusals are grouped, bounded, and a noisy pod keeps its noise to itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from enforcer.blocked import EVICTED_SHARE, LEAST_SHARE, POD_SHARE, BlockedRecords, Refused


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


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
PORTS = st.none() | st.integers(0, 65535)
INSTANTS = st.floats(0, 1e9)
REFUSALS = st.builds(
    Refused, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, PORTS, TEXTS, TEXTS, TEXTS, TEXTS,
    st.integers(1, 1_000_000), INSTANTS,
)  # fmt: skip


@given(st.lists(REFUSALS, max_size=20))
def test_what_is_listed_is_what_was_recorded(said: list[Refused]) -> None:
    """Every field of every record, whatever a stranger has it say."""
    records = BlockedRecords(100)
    for refused in said:
        records.add(refused)
    assert records.raw == said
    listed = [group.last for group in records.groups()]
    assert set(listed) <= set(said)
    assert sum(group.count for group in records.groups()) == sum(refused.times for refused in said)
    if said:
        assert said[-1] in listed


def test_a_pods_groups_alone() -> None:
    """By namespace, by name, by both."""
    records = BlockedRecords(10)
    for pod in ("a", "b"):
        records.add(_refused(pod, "x"))
    records.add(_refused("a", "y")._replace(namespace="other"))
    listed = [(group.last.namespace, group.last.name) for group in records.groups(pod="a")]
    assert listed == [("ns", "x"), ("other", "y")]
    assert [group.last.pod for group in records.groups("ns")] == ["a", "b"]
    assert [group.last.name for group in records.groups("other", "a")] == ["y"]


def test_the_latest_of_all_pods() -> None:
    """So many, the latest first; one that was refused again is late."""
    records = BlockedRecords(100)
    for at in range(20):
        records.add(_refused("ab"[at % 2], f"n{at}", float(at)))
    records.add(_refused("a", "n4", 30.0))
    assert [group.last.name for group in records.latest(4)] == ["n4", "n19", "n18", "n17"]
    assert len(records.latest(100)) == 20


def test_records_may_come_while_they_are_listed() -> None:
    """Who lists them slowly sees those that were there of a pod when its turn came."""
    records = BlockedRecords(5)
    for number in range(5):
        records.add(_refused("a", f"n{number}"))
    seen = []
    for group in records.groups():
        seen.append(group.last.name)
        records.add(_refused("a", f"later{len(seen)}"))
    assert seen == [f"n{number}" for number in range(5)]


def test_a_noisy_pod_loses_few_of_its_records_at_once() -> None:
    """However full: never more than a sixty-fourth of what it has."""
    records = BlockedRecords(1000)
    for number in range(5000):
        records.add(_refused("noisy", f"n{number}"))
        assert len(records) >= min(number + 1, 984)
    assert list(records.groups())[-1].last.name == "n4999"


def test_one_pods_flood_fills_its_share_only() -> None:
    """Memory stays flat in a flood, long before all pods' room is full; the latest names are there."""
    records = BlockedRecords(100_000)
    records.add(_refused("quiet", "evidence"))
    sizes = []
    for number in range(20_000):
        records.add(_refused("noisy", f"n{number}"))
        sizes.append(len(records))
    share = 100_000 // POD_SHARE
    assert max(sizes) == share + 1
    assert min(sizes[share:]) >= share - share // EVICTED_SHARE
    assert [group.last.name for group in records.groups(pod="quiet")] == ["evidence"]
    assert list(records.groups())[-1].last.name == "n19999"


def test_a_pod_that_is_alone_with_little_room_has_it_all() -> None:
    """A small capacity is not divided."""
    records = BlockedRecords(LEAST_SHARE)
    for number in range(2 * LEAST_SHARE):
        records.add(_refused("only", f"n{number}"))
    assert len(records) > LEAST_SHARE - LEAST_SHARE // EVICTED_SHARE - 1
