"""Break-glass in time: when it begins, ends, and is refused; told in records, status and inventory."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from enforcer.blocked import BlockedRecords
from enforcer.break_glass import SLACK_S, Openings, said_open
from enforcer.doors import OffLoop
from enforcer.inventory import Inventory
from enforcer.node import Later, Node
from enforcer.sources import Seen
from policy.break_glass import REASON_MARK, UNTIL_MARK, BreakGlass, rfc3339
from policy.manifest import Loaded
from policy.runtime.clock import wall_seconds
from policy.runtime.settings import load_settings
from policy.snapshot import compile_snapshot
from policy.world import World
from tests.enforcer.rig import A as POD
from tests.enforcer.rig import KeptRecords, Rig, permit, policy

WALL = 1_795_000_000.0
HOUR_S = 3600.0
LONGEST_S = 4 * HOUR_S
Marks = dict[str, dict[str, str]]


def marks(after_s: float, namespace: str = "mcp", reason: str = "incident 7") -> Marks:
    """Break-glass that ends so many seconds after ``WALL``."""
    return {namespace: {UNTIL_MARK: rfc3339(WALL + after_s), REASON_MARK: reason}}


class Looker:
    """Openings with clocks that a test moves; each look says which namespaces are open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = KeptRecords()
        self.now, self.wall = 1000.0, WALL
        self.longest_s = LONGEST_S
        self.openings = Openings(folder / "break-glass", self.records)

    def restart(self) -> None:
        """Another process, in the same folder."""
        self.openings = Openings(self.folder / "break-glass", self.records)

    def look(self, asked: Marks, governed: Callable[[str], bool] = lambda _: True) -> list[str]:
        """Look, after time has passed or not."""
        found = self.openings.look(asked, governed, longest_s=self.longest_s, now=self.now, wall=self.wall)
        assert found == self.openings.open
        return [each.namespace for each in found]

    def wait(self, seconds: float) -> None:
        """Let both clocks go on."""
        self.now += seconds
        self.wall += seconds


@pytest.fixture
def looker(tmp_path: Path) -> Looker:
    """A fresh one."""
    return Looker(tmp_path)


def test_it_begins_and_ends_by_itself(looker: Looker) -> None:
    """Open until its time, told twice, with who gave which reason; never again after it."""
    asked = marks(HOUR_S)
    assert looker.look(asked) == ["mcp"]
    assert "namespace mcp is open by break-glass until" in said_open(looker.openings.open[0])
    assert "incident 7" in said_open(looker.openings.open[0])
    assert looker.openings.problems == ()
    looker.wait(HOUR_S - 10)
    assert looker.look(asked) == ["mcp"]
    assert looker.openings.next_look_s(looker.now) == pytest.approx(10.0)
    looker.wait(10)
    assert looker.look(asked) == looker.look(asked) == []
    assert looker.openings.problems == ()
    assert looker.openings.next_look_s(looker.now) is None
    assert looker.records.events() == ["break_glass.opened", "break_glass.ended"]
    opened, ended = (fields for _, fields in looker.records.told)
    assert (opened["namespace"], opened["because"], opened["until"]) == (
        "mcp",
        "incident 7",
        rfc3339(WALL + HOUR_S),
    )
    assert ended["why"] == "its time has come"


def test_a_clock_that_jumps_does_not_prolong_it(looker: Looker) -> None:
    """Back: the monotonic clock ends it. Forth: the wall clock does. It does not come back."""
    asked = marks(HOUR_S)
    assert looker.look(asked) == ["mcp"]
    looker.wall -= 10 * HOUR_S
    looker.now += HOUR_S
    assert looker.look(asked) == []
    looker.restart()
    looker.wall = WALL
    assert looker.look(asked) == ["mcp"]
    looker.wall += 2 * HOUR_S
    assert looker.look(asked) == []
    looker.wall = WALL
    assert looker.look(asked) == []


def test_the_wall_clock_is_looked_at_while_it_is_open(looker: Looker) -> None:
    """Every half minute at least."""
    looker.look(marks(HOUR_S))
    assert looker.openings.next_look_s(looker.now) == 30.0


def test_taking_it_back_ends_it(looker: Looker) -> None:
    """Without the annotation it is over at once."""
    assert looker.look(marks(HOUR_S)) == ["mcp"]
    assert looker.look({}) == []
    assert looker.records.told[-1][1]["why"] == "it was taken back"


def test_what_is_over_does_not_begin(looker: Looker) -> None:
    """A time in the past, perhaps in another zone than its author believes: told once."""
    assert looker.look(marks(-1)) == looker.look(marks(-1)) == []
    assert [fields["why"] for _, fields in looker.records.told] == ["its time is over"]
    assert looker.openings.problems == ()


def test_too_far_ahead_is_refused_and_stays_so(looker: Looker) -> None:
    """Waiting, or a restart of the process, opens nothing; a time written anew does."""
    asked = marks(10 * HOUR_S)
    assert looker.look(asked) == []
    assert "which is refused" in looker.openings.problems[0]
    looker.wait(7 * HOUR_S)
    assert looker.look(asked) == []
    looker.restart()
    assert looker.look(asked) == []
    assert "which is refused" in looker.openings.problems[0]
    assert looker.look(marks(9 * HOUR_S)) == ["mcp"]
    looker.wait(3 * HOUR_S)
    assert looker.look(marks(9 * HOUR_S)) == []


def test_its_authors_clock_may_be_ahead_a_little(looker: Looker) -> None:
    """Four hours exactly, by a clock that is a minute ahead."""
    assert looker.look(marks(LONGEST_S + SLACK_S)) == ["mcp"]
    assert looker.look(marks(LONGEST_S + SLACK_S + 1)) == []


def test_zero_turns_it_off(looker: Looker) -> None:
    """And says so."""
    looker.longest_s = 0.0
    assert looker.look(marks(60)) == []
    assert "policy.breakGlassMax is 0s" in looker.openings.problems[0]


def test_prolonging_is_a_new_one(looker: Looker) -> None:
    """Each is told of; one that asks for too much closes what was open."""
    assert looker.look(marks(HOUR_S)) == ["mcp"]
    looker.wait(HOUR_S / 2)
    assert looker.look(marks(2 * HOUR_S)) == ["mcp"]
    assert looker.records.events() == ["break_glass.opened"] * 2
    assert looker.look(marks(30 * HOUR_S)) == []


def test_only_governed_namespaces_have_it(looker: Looker) -> None:
    """Elsewhere there is nothing to open; what cannot be read asks for nothing."""
    assert looker.look(marks(HOUR_S), lambda _: False) == []
    assert looker.look({"mcp": {UNTIL_MARK: "tomorrow"}}) == []
    assert looker.records.told == []


def test_a_new_reason_is_shown(looker: Looker) -> None:
    """Without it being another break-glass."""
    looker.look(marks(HOUR_S, reason="one"))
    looker.look(marks(HOUR_S, reason="two"))
    assert [each.reason for each in looker.openings.open] == ["two"]
    assert looker.records.events() == ["break_glass.opened"]


def test_a_spoilt_memory_is_no_memory(tmp_path: Path) -> None:
    """Whatever stands in the file, the time is judged anew; so it does where there is no folder."""
    (tmp_path / "break-glass").write_bytes(b"\xff{")
    assert Looker(tmp_path).look(marks(HOUR_S)) == ["mcp"]
    looker = Looker(tmp_path / "gone")
    assert looker.look(marks(9 * HOUR_S)) == []
    assert "break_glass.unremembered" in looker.records.events()


def test_many_namespaces_are_bounded(looker: Looker) -> None:
    """A thousand, always the same."""
    asked = {name: marks(HOUR_S)["mcp"] for name in (f"n{number:05}" for number in range(3000))}
    assert looker.look(asked) == [f"n{number:05}" for number in range(1000)]


def _node(
    tmp_path: Path,
    rig: Rig,
    off_loop: OffLoop = lambda work, done: done(work()),
    later: Later = lambda delay_s, call: None,
) -> Node:
    return Node(
        settings=load_settings(None, {"NAMEWARD_POLICY_GOVERNEDNAMESPACES": "mcp"}),
        version="1",
        ledger=rig.ledger,
        blocked=BlockedRecords(10),
        authority=rig.authority,
        reconciler=rig.reconciler,
        records=rig.records,
        openings=Openings(tmp_path / "break-glass", rig.records),
        addresses=frozenset,
        off_loop=off_loop,
        later=later,
        now=rig.clock,
        pending=lambda: 0,
    )


def _says_open(node: Node) -> tuple[bool, bool]:
    """What ``status`` says and what the metric does."""
    said = any("open by break-glass" in each for each in node.status()["problems"])
    return said, "nameward_break_glass_namespaces 1.0" in generate_latest(node.metrics.registry).decode()


def test_the_node_opens_and_closes(tmp_path: Path) -> None:
    """From annotations to a snapshot, and back when the loop's timer says that its time has come."""
    rig = Rig(tmp_path).begin()
    timers: list[tuple[float, Callable[[], None]]] = []
    node = _node(tmp_path, rig, later=lambda delay_s, call: timers.append((delay_s, call)))
    until = rfc3339(wall_seconds() + HOUR_S)
    loaded = Loaded((policy(permit("a.com")),), (POD,), (), {}, (), {"mcp": {UNTIL_MARK: until}})
    node.source_seen(Seen(loaded, complete=True, problems=(), detected_at=rig.clock()))
    rig.run_threads()
    snapshot = rig.reconciler.snapshot
    assert snapshot is not None
    assert snapshot.decide(POD, "b.com", None, "tcp", 443).permitted
    assert _says_open(node) == (True, True)
    [(delay_s, look)] = timers
    assert delay_s == 30.0
    rig.clock.at += HOUR_S
    look()
    rig.run_threads()
    snapshot = rig.reconciler.snapshot
    assert snapshot is not None
    assert snapshot.decide(POD, "a.com", None, "tcp", 443).permitted
    assert not snapshot.decide(POD, "b.com", None, "tcp", 443).permitted
    assert len(timers) == 1
    assert _says_open(node) == (False, False)


def test_it_is_said_to_be_open_as_long_as_the_kernel_has_it_open(tmp_path: Path) -> None:
    """Not before it is, and until what closes it is compiled and the kernel has taken it."""
    rig = Rig(tmp_path).begin()
    compiling: list[Callable[[], None]] = []
    node = _node(tmp_path, rig, off_loop=lambda work, done: compiling.append(lambda: done(work())))

    def seen(annotations: Marks) -> None:
        loaded = Loaded((policy(permit("a.com")),), (POD,), (), {}, (), annotations)
        node.source_seen(Seen(loaded, complete=True, problems=(), detected_at=rig.clock()))

    def compiled() -> None:
        compiling.pop()()
        rig.run_threads()

    seen({"mcp": {UNTIL_MARK: rfc3339(wall_seconds() + HOUR_S)}})
    assert _says_open(node) == (False, False)
    compiled()
    assert _says_open(node) == (True, True)
    seen({})
    assert _says_open(node) == (True, True)
    rig.kernel.refuse(errno.ENOMEM)
    compiled()
    assert _says_open(node) == (True, True)
    node.renew()
    compiled()
    assert _says_open(node) == (False, False)


def test_the_inventory_says_it() -> None:
    """The pods of the namespace are in a state of their own, with the reason."""
    glass = BreakGlass("mcp", "2026-11-23T10:00:00Z", "incident 7")
    world = World(generation=1, pods=(POD,), break_glass=(glass,))
    [row] = Inventory(compile_snapshot(world)).rows("n1", ())
    assert row["state"] == "break-glass"
    assert row["policies"] == ["break-glass"]
    assert row["reason"] == "its namespace is open until 2026-11-23T10:00:00Z: incident 7"
