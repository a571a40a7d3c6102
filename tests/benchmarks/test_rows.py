"""What the bench says of its runs: the arithmetic, the refused verdict, the file's contract. No timing."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import registry, shared_cost
from benchmarks.loads.data_path import CONNTRACK, NONE, either
from benchmarks.loads.losses import none_of
from benchmarks.rows import (
    OWN,
    ROUNDS,
    Bench,
    Limit,
    Plan,
    Row,
    all_rows,
    interleaved,
    judged,
    median,
    not_measured,
    read,
    spread,
    table,
    write,
)
from benchmarks.timing import Clock

QUIET = {OWN: [9.0, 10.0, 10.1, 10.0, 9.9], "dnsmasq": [10.0, 10.0, 10.0, 10.0, 10.0]}
CONTRACT = {"work", "unit", "value", "spread", "peers", "ratio", "goal", "met"}


def test_a_row_says_the_median_its_ratio_and_that_the_goal_is_met() -> None:
    """The figures are medians; the ratio is to the first limit's peer."""
    row = judged("cached", "µs", QUIET, (Limit(1.0, "dnsmasq"),))
    assert (row.value, row.peers, row.ratio, row.met) == (10.0, {"dnsmasq": 10.0}, 1.0, True)
    assert row.spread == pytest.approx(0.01)
    assert row.runs[OWN] == QUIET[OWN]


def test_spread_is_how_far_the_middle_half_lies_apart() -> None:
    """One run that was disturbed is not in it; half of them are."""
    assert spread([10, 10, 10, 10, 100]) == 0
    assert spread([8, 9, 10, 11, 12]) == pytest.approx(0.2)
    assert spread([5]) == 0
    assert median([3, 1, 2]) == 2


def test_a_noisy_run_has_no_verdict() -> None:
    """However good or bad the median is: neither met nor missed."""
    runs = {OWN: [1.0, 5.0, 10.0, 15.0, 30.0], "dnsmasq": [10.0] * 5}
    for limit in (Limit(100.0, "dnsmasq"), Limit(1.0, "dnsmasq"), Limit(0.01, "dnsmasq")):
        row = judged("cached", "µs", runs, (limit,))
        assert row.met is None
        assert "too noisy" in row.note
        assert "no verdict" in row.line()


CLEAR = [0.48, 0.55, 0.61, 0.66, 0.72]
"""A spread of 18 %, all of it far below one."""


@pytest.mark.parametrize(
    ("rounds", "limit", "met", "why"),
    [
        (CLEAR, Limit(1.0), True, ""),
        (CLEAR, Limit(0.3), False, ""),
        (CLEAR, Limit(0.3, at_least=True), True, ""),
        (CLEAR, Limit(1.0, at_least=True), False, ""),
        (CLEAR, Limit(0.6), None, "both sides of ≤ 0.6"),
        ([0.48, 0.55, 0.61, 0.66, 1.01], Limit(1.0), None, "both sides of ≤ 1"),
        (CLEAR, Limit(0.75), None, "too near to ≤ 0.75"),
        (CLEAR, Limit(0.45), None, "too near to ≤ 0.45"),
        ([0.1, 0.2, 0.6, 0.7, 0.8], Limit(100.0), None, "83% > 50%"),
    ],
)
def test_noise_refuses_only_the_verdict_that_it_could_have_changed(
    rounds: list[float], limit: Limit, met: bool | None, why: str
) -> None:
    """Above the bound every round has to be clear of the goal, met or missed; far above nothing helps."""
    row = judged("cached", "µs", {OWN: rounds}, (limit,))
    assert row.spread > 0.15
    assert row.met is met
    assert why in row.note
    assert ("too noisy" in row.note) is (met is None)


def test_each_limit_is_decided_by_its_own_noise() -> None:
    """One that is surely missed misses the goal; one that is open leaves it open."""
    runs = {
        OWN: [10.0] * 5,
        "dnsmasq": [8.0, 9.0, 11.0, 12.0, 13.0],
        "CoreDNS": [100.0, 120.0, 130.0, 90.0, 99.0],
    }
    straddled, sure, missed = Limit(1.0, "dnsmasq"), Limit(0.5, "CoreDNS"), Limit(0.01, "CoreDNS")
    assert judged("cached", "µs", runs, (straddled,)).met is None
    assert judged("cached", "µs", runs, (sure,)).met is True
    assert judged("cached", "µs", runs, (straddled, sure)).met is None
    assert judged("cached", "µs", runs, (straddled, missed)).met is False


def test_a_row_s_own_bound_judges_the_median() -> None:
    """Where one's rounds are never quiet; and no round has to be clear then."""
    rounds = [8.0, 9.0, 10.0, 13.0, 14.0]
    assert judged("start", "s", {OWN: rounds}, (Limit(10.5),)).met is None
    assert judged("start", "s", {OWN: rounds}, (Limit(10.5),), too_noisy=0.5).met is True


def test_a_difference_is_noisy_by_its_goal() -> None:
    """Its median may be nothing, of which every spread would be too much."""
    added = [-0.1, 0.0, 0.01, 0.1, 0.2]
    assert judged("hold", "ms", {OWN: added}, (Limit(3.0),)).met is None
    row = judged("hold", "ms", {OWN: added}, (Limit(3.0),), of_goal=True)
    assert (row.met, row.spread) == (True, pytest.approx(0.0333, abs=0.001))
    assert judged("hold", "ms", {OWN: added}, (Limit(0.1),), of_goal=True).met is None


def test_the_easier_of_two_limits_is_the_data_path_s_goal() -> None:
    """Missed only if both are; open if one is."""

    def row(none: list[float], alone: list[float]) -> bool | None:
        return either("path", "Gbit/s", {OWN: [10.0] * 5, NONE: none, CONNTRACK: alone}, "").met

    assert row([9.0] * 5, [20.0] * 5) is True
    assert row([20.0] * 5, [20.0] * 5) is False
    assert row([20.0] * 5, [5.0, 8.0, 10.0, 12.0, 15.0]) is None


def test_a_machine_slow_for_a_while_is_slow_for_all() -> None:
    """What is judged is compared within its round."""
    speed = [1.0, 2.0, 1.5, 3.0, 1.0]
    runs = {OWN: [8.0 * factor for factor in speed], "dnsmasq": [10.0 * factor for factor in speed]}
    assert judged("cached", "µs", runs, (Limit(1.0, "dnsmasq"),)).met is True
    assert judged("cached", "µs", runs, (Limit(20.0),)).met is None


def test_a_refused_run_has_no_verdict() -> None:
    """Whatever its figures are."""
    row = judged("cached", "µs", QUIET, (Limit(1.0, "dnsmasq"),), refused="the machine was too busy")
    assert row.met is None
    assert row.note == "the machine was too busy"


def test_too_few_rounds_have_no_verdict() -> None:
    """Four are not five."""
    row = judged("cached", "µs", {OWN: [1.0] * (ROUNDS - 1)}, (Limit(2.0),))
    assert row.met is None
    assert "too few" in row.note


@pytest.mark.parametrize(
    ("limit", "met"),
    [
        (Limit(1.0, "dnsmasq"), True),
        (Limit(0.4, "dnsmasq"), False),
        (Limit(0.4, "dnsmasq", at_least=True), True),
        (Limit(0.9, "dnsmasq", at_least=True), False),
        (Limit(2.0, "dnsmasq", per_own=True), True),
        (Limit(25.0, "dnsmasq", per_own=True), False),
        (Limit(5.0), True),
        (Limit(4.9), False),
        (Limit(5.0, at_least=True), True),
    ],
    ids=str,
)
def test_each_kind_of_limit(limit: Limit, met: bool) -> None:
    """At most, at least, so many times less than, and without a peer."""
    row = judged("cached", "µs", {OWN: [5.0] * 5, "dnsmasq": [10.0] * 5}, (limit,))
    assert row.met is met


def test_all_limits_count() -> None:
    """One that is missed misses the goal."""
    runs = {OWN: [5.0] * 5, "dnsmasq": [10.0] * 5, "CoreDNS": [9.0] * 5}
    row = judged("cached", "µs", runs, (Limit(1.0, "dnsmasq"), Limit(0.5, "CoreDNS")))
    assert row.met is False
    assert row.ratio == 0.5


def test_an_absent_peer_is_named() -> None:
    """The rest is judged; without any, or without runs of our own, there is no verdict."""
    both = (Limit(1.0, "dnsmasq"), Limit(0.5, "CoreDNS"))
    row = judged("cached", "µs", QUIET, both)
    assert row.met is True
    assert row.note == "not measured: CoreDNS"
    assert judged("cached", "µs", {OWN: [1.0] * 5}, both).met is None
    absent = not_measured("cached", "µs", both, "no kernel")
    assert absent.met is None
    assert absent.note == "no kernel; not measured"


@pytest.mark.parametrize(
    ("lost", "met"),
    [([0.0] * 5, True), ([0.0, 0.0, 1.0, 0.0, 0.0], False), ([0.0], None), ([2.0], False), ([], None)],
)
def test_what_must_not_happen_is_judged_by_every_round(lost: list[float], met: bool | None) -> None:
    """Not by the middle one; few rounds without a loss prove nothing."""
    row = none_of("quiet pods", "lookups", lost)
    assert (row.value, row.met) == (sum(lost), met)


def test_candidates_take_turns() -> None:
    """A B C A B C, after a round that only warms up."""
    order: list[tuple[str, int]] = []

    def run_of(name: str) -> float:
        order.append((name, len(order)))
        return float(len(order))

    runs = interleaved(2, {"A": lambda _: run_of("A"), "B": lambda _: run_of("B")})
    assert [name for name, _ in order] == ["A", "B"] * 3
    assert runs == {"A": [3.0, 5.0], "B": [4.0, 6.0]}


def test_rows_are_said_as_they_are_done() -> None:
    """Before the next is measured."""
    said: list[str] = []

    def both(_: Plan) -> Iterator[Row]:
        yield judged("first", "µs", QUIET)
        assert any("first" in line for line in said)
        yield judged("second", "µs", QUIET)

    assert (
        len(
            list(
                all_rows([Bench("both", "two rows", quick=True, run=both)], Plan(), said.append, [], Clock())
            )
        )
        == 2
    )
    assert len(said) == 3


def test_what_cannot_be_measured_is_said_and_the_next_goes_on() -> None:
    """A row without a verdict, and a failure."""

    def broken(_: Plan) -> Iterator[Row]:
        yield judged("first", "µs", QUIET)
        raise SystemExit("dnsperf is gone")

    def fine(_: Plan) -> Iterator[Row]:
        yield judged("second", "µs", QUIET)

    failures: list[str] = []
    benches = [Bench("a", "broken", quick=True, run=broken), Bench("b", "fine", quick=True, run=fine)]
    rows = list(all_rows(benches, Plan(), lambda _: None, failures, Clock()))
    assert [row.work for row in rows] == ["first", "broken", "second"]
    assert rows[1].met is None
    assert rows[1].note == "dnsperf is gone; not measured"
    assert failures == ["a: dnsperf is gone"]


def test_figures_that_cannot_be_computed_with_end_one_bench_only() -> None:
    """A peer that cost nothing at all has no ratio."""

    def nothing(_: Plan) -> Iterator[Row]:
        yield judged("first", "µs", {OWN: [1.0] * 5, "dnsmasq": [0.0] * 5}, (Limit(1.0, "dnsmasq"),))

    failures: list[str] = []
    benches = [Bench("a", "nothing", quick=True, run=nothing)]
    assert [row.met for row in all_rows(benches, Plan(), lambda _: None, failures, Clock())] == [None]
    assert len(failures) == 1


def test_without_time_left_no_other_bench_is_begun() -> None:
    """Each has a row that says so."""

    def one(_: Plan) -> Iterator[Row]:
        yield judged("first", "µs", QUIET)
        time.sleep(1.1)

    plan = Plan()
    benches = [Bench(name, f"title of {name}", quick=True, run=one) for name in "ab"]
    rows = list(all_rows(benches, plan, lambda _: None, [], Clock(begun_before_s=1.0)))
    assert [row.work for row in rows] == ["first", "title of b"]
    assert rows[1].met is None
    assert "--only b" in rows[1].note
    assert set(plan.took_s) == {"a"}


def test_the_bench_that_runs_is_ended_when_the_time_is_over() -> None:
    """It takes down what it stood up, has a row that says so, and keeps what it had; it has not failed."""
    taken_down: list[str] = []

    def endless(_: Plan) -> Iterator[Row]:
        try:
            yield judged("first", "µs", QUIET)
            while True:
                time.sleep(60)
        finally:
            taken_down.append("all")

    failures: list[str] = []
    benches = [Bench(name, f"title of {name}", quick=True, run=endless) for name in "ab"]
    clock = Clock(begun_before_s=1.9, over_after_s=2.0)
    rows = list(all_rows(benches, Plan(), lambda _: None, failures, clock))
    assert [row.work for row in rows] == ["first", "title of a", "title of b"]
    assert rows[1].note == "the time was over; --only a; not measured"
    assert (taken_down, failures) == (["all"], [])
    assert clock.gone_s() < 30


def test_time_is_over_only_while_a_bench_measures() -> None:
    """What is done with a row is not interrupted."""

    def one(_: Plan) -> Iterator[Row]:
        yield judged("first", "µs", QUIET)

    benches = [Bench("a", "title of a", quick=True, run=one)]
    for row in all_rows(benches, Plan(), lambda _: None, [], Clock(over_after_s=0.1)):
        time.sleep(0.3)
        assert row.work in {"first", "title of a"}


def test_the_file_holds_what_the_contract_names(tmp_path: Path) -> None:
    """And can be read again."""
    rows = [
        judged("cached", "µs", QUIET, (Limit(1.0, "dnsmasq"),)),
        not_measured("tcp", "1/s", (), "no tool"),
    ]
    path = tmp_path / "results" / "latest.json"
    write(path, rows, machine="2 cores", kernel="6.18", versions={"dnsmasq": "2.90"})
    result = json.loads(path.read_text())
    assert set(result) == {"machine", "kernel", "versions", "rows"}
    assert all(set(row) >= CONTRACT for row in result["rows"])
    assert [row["met"] for row in result["rows"]] == [True, None]
    assert read(path)["rows"] == rows
    assert [file.name for file in path.parent.iterdir()] == ["latest.json"]


def test_the_table_has_a_line_for_each_row() -> None:
    """With the verdict in words."""
    lines = table([judged("cached", "µs", QUIET, (Limit(0.5, "dnsmasq"),))]).splitlines()
    assert len(lines) == 3
    assert "MISSED" in lines[2]


def test_what_shared_state_costs_is_a_bench() -> None:
    """With the goals of its issue: CPU and memory of a grant, and the way to another node."""
    from benchmarks.loads import sharing

    assert "sharing" in {bench.name for bench in registry.benches()}
    assert (*sharing.A_GRANT, *sharing.MEMORY) == (Limit(15.0), Limit(600.0))
    assert {"P50": Limit(3.0), "P99": Limit(15.0)} == sharing.ADDED
    assert shared_cost.Cost(30.0, 44.0, 500.0).added_us == 14.0


def test_every_registered_bench_has_a_name_of_its_own() -> None:
    """``--only`` finds one; what no goal asks for comes last."""
    names = [bench.name for bench in registry.benches()]
    assert len(set(names)) == len(names)
    assert tuple(names[-len(registry.LAST) :]) == registry.LAST


def test_every_module_with_rows_is_registered() -> None:
    """One that is forgotten is measured by nobody."""
    root = Path(registry.__file__).parent
    found = {
        ".".join(("benchmarks", *path.relative_to(root).with_suffix("").parts))
        for path in root.rglob("*.py")
        if re.search(r"^ROWS\b.* = ", path.read_text(), re.MULTILINE)
    }
    assert found == set(registry.MODULES)
