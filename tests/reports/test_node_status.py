"""What a NodeStatus says, and when it is written."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from enforcer.reports.node_status import (
    CHECK_S,
    MAX_POLICIES,
    PAUSE_S,
    SETTLE_S,
    SPREAD_S,
    Facts,
    InForce,
    Pace,
    facts_of,
    is_as_written,
    object_of,
    status_of,
)
from enforcer.reports.told import NodeTold
from policy.break_glass import BreakGlass
from policy.pods import Pod
from policy.rules import Destination, Policy, Rule, Selector
from policy.snapshot import Snapshot, compile_snapshot
from policy.world import World

ROW = {"version": "1.2.3", "enforcing": True, "problems": [], "pods": 2, "generation": 7}
LATEST_S = SETTLE_S + SPREAD_S
FACTS = facts_of(ROW, policies=(), break_glass=(), removed=False, unsaid=())


def policy(name: str, **labels: str) -> Policy:
    """A policy as the API server stored it, for pods with these labels."""
    rule = Rule(
        name="r",
        action="permit",
        destinations=(Destination(kind="anywhere"),),
        selector=Selector(match_labels=labels or None),
    )
    return Policy(
        namespace="mcp", name=name, kind="FirewallPolicy", rules=(rule,), uid=f"uid-{name}", generation=3
    )


def pod(name: str, node: str = "n1", **more: Any) -> Pod:
    """A pod with its name as label."""
    return Pod(
        namespace="mcp", name=name, uid=f"u-{name}", addresses=(), labels={"app": name}, node=node, **more
    )


def told(snapshot: Snapshot | None, row: dict[str, Any] | None = None, *, removed: bool = False) -> Facts:
    """What node n1 reports."""
    facts = NodeTold("n1", lambda: row or ROW, lambda: snapshot, lambda: removed).facts(())
    assert facts is not None
    return facts


def test_policies_of_this_nodes_pods_are_listed() -> None:
    """Each with what the API server calls it and how many pods of this node it has rules for."""
    world = World(
        generation=7,
        pods=(pod("a"), pod("b"), pod("c", "n2"), pod("d", host_network=True), pod("e", governed=False)),
        policies=(
            policy("all"),
            policy("for-a", app="a"),
            policy("elsewhere", app="c"),
            policy("host", app="d"),
            msgspec.structs.replace(policy("of-a-file", app="a"), uid="", generation=0),
        ),
        break_glass=(BreakGlass("mcp", "2026-11-23T10:00:00Z"),),
    )
    facts = told(compile_snapshot(world))
    assert facts.policies == (
        InForce("FirewallPolicy", "mcp", "all", "uid-all", 3, 2),
        InForce("FirewallPolicy", "mcp", "for-a", "uid-for-a", 3, 1),
    )
    assert facts.break_glass == ("mcp",)
    assert (facts.enforcing, facts.pods, facts.generation, facts.truncated) == (True, 2, 7, False)


def test_nothing_is_reported_before_anything_was_loaded() -> None:
    """No object is better than one that says nothing."""
    assert NodeTold("n1", lambda: ROW, lambda: None, lambda: False).facts(()) is None


def test_a_node_that_was_cleaned_says_so() -> None:
    """It enforces nothing, has no policies, and says it even if it never loaded any."""
    snapshot = compile_snapshot(World(generation=7, pods=(pod("a"),), policies=(policy("all"),)))
    for known in (snapshot, None):
        facts = told(known, removed=True)
        assert (facts.removed, facts.enforcing, facts.policies) == (True, False, ())


def test_it_knows_its_own_pods() -> None:
    """Events are for governed pods of this node alone."""
    world = World(generation=7, pods=(pod("a"), pod("b", "n2"), pod("c", governed=False)))
    snapshot = compile_snapshot(world)
    known = NodeTold("n1", lambda: ROW, lambda: snapshot, lambda: False)
    assert known.pod("mcp/a") is world.pods[0]
    assert known.pod("mcp/b") is known.pod("mcp/c") is known.pod("mcp/d") is None


def test_many_policies_are_cut_and_said() -> None:
    """The object stays small."""
    many = tuple(policy(f"p{number:04}") for number in range(MAX_POLICIES + 5))
    facts = told(compile_snapshot(World(generation=1, pods=(pod("a"),), policies=many)))
    assert (len(facts.policies), facts.truncated) == (MAX_POLICIES, True)


def test_problems_are_bounded_and_printable() -> None:
    """Eight, a thousand characters each, nothing that a terminal obeys; some are left out."""
    said = ["ours", *(f"problem {number} \x1b[31m" + "x" * 5000 for number in range(20))]
    facts = facts_of({**ROW, "problems": said}, policies=(), break_glass=(), removed=False, unsaid=("ours",))
    assert len(facts.problems) == 8
    assert facts.problems[-1] == "13 more problems: see nameward status on the node"
    assert all(len(each) <= 1024 and each.isprintable() for each in facts.problems)
    assert facts.problems[0].startswith("problem 0")


def test_the_object_is_the_nodes() -> None:
    """It goes when the Node goes; its status has the fields of the CRD."""
    written = object_of("n1", "uid-1", status_of(FACTS, "2026-11-23T10:00:00Z"))
    [owner] = written["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Node", "n1", "uid-1")
    assert set(written["status"]) == {
        *("version", "enforcing", "problems", "pods", "generation", "updatedAt", "removed"),
        *("breakGlass", "policies", "truncated"),
    }


def test_what_is_stored_is_compared() -> None:
    """Another owner, another status, no object's shape at all: not what was written."""
    written = object_of("n1", "uid-1", status_of(FACTS, "2026-11-23T10:00:00Z"))
    stored = {**written, "metadata": {**written["metadata"], "resourceVersion": "5"}}
    assert is_as_written(stored, written)
    assert not is_as_written({**stored, "status": {}}, written)
    assert not is_as_written(object_of("n1", "uid-2", written["status"]), written)
    for metadata in (None, {}, {"ownerReferences": None}, {"ownerReferences": [7]}):
        assert not is_as_written({**stored, "metadata": metadata}, written)


class TestPace:
    """When it is written."""

    def test_the_first_is_written_soon(self) -> None:
        """Within three seconds, not all nodes at the same time."""
        waits = set()
        for node in ("a", "b", "c", "d"):
            pace = Pace(node)
            assert not pace.is_due(FACTS, 100.0)
            waits.add(next(s for s in range(40) if pace.is_due(FACTS, 100.0 + s / 10)))
            assert pace.is_due(FACTS, 100.0 + LATEST_S)
        assert len(waits) > 1
        assert min(waits) >= 10

    @pytest.mark.parametrize(
        "row",
        [
            {"generation": 99},
            {"problems": ["3 pods wait since 14.5 s"]},
        ],
    )
    def test_what_changes_by_itself_causes_no_write(self, row: dict[str, Any]) -> None:
        """Numbers of generations, counts and times in sentences."""
        before = facts_of(
            {**ROW, "problems": ["4 pods wait since 2 s"] if "problems" in row else []},
            policies=(), break_glass=(), removed=False, unsaid=(),
        )  # fmt: skip
        pace = Pace("n1")
        pace.written(before, 100.0)
        after = facts_of({**ROW, **row}, policies=(), break_glass=(), removed=False, unsaid=())
        assert not any(pace.is_due(after, 100.0 + s) for s in range(1000))

    def test_two_writes_are_apart(self) -> None:
        """Ten seconds at least, whatever changes."""
        pace = Pace("n1")
        pace.written(FACTS, 100.0)
        changed = FACTS._replace(pods=3)
        due = [s for s in range(40) if pace.is_due(changed, 100.0 + s)]
        assert due[0] == PAUSE_S
        pace.written(changed, 110.0)
        assert not pace.is_due(changed, 200.0)

    def test_a_change_that_is_taken_back_is_none(self) -> None:
        """And the next one settles anew."""
        pace = Pace("n1")
        pace.written(FACTS, 100.0)
        assert not pace.is_due(FACTS._replace(pods=3), 120.0)
        assert not pace.is_due(FACTS, 120.5)
        assert not pace.is_due(FACTS._replace(pods=3), 125.0)
        assert pace.is_due(FACTS._replace(pods=3), 125.0 + LATEST_S)

    def test_removal_is_said_at_once(self) -> None:
        """Somebody waits for it; after a refusal it waits as all others do."""
        pace = Pace("n1")
        pace.written(FACTS, 100.0)
        removed = FACTS._replace(removed=True)
        assert pace.is_due(removed, 100.1)
        pace.failed(100.1)
        assert not pace.is_due(removed, 100.2)
        assert pace.is_due(removed, 102.1)

    def test_after_a_failure_it_is_tried_ever_later(self) -> None:
        """From two seconds to two minutes; as late as the server asks; back to normal with a success."""
        pace = Pace("n1")
        moment, waits = 100.0, []
        pace.is_due(FACTS, moment)
        moment += LATEST_S
        for _ in range(9):
            assert pace.is_due(FACTS, moment)
            pace.failed(moment)
            wait = next(s for s in range(1, 1000) if pace.is_due(FACTS, moment + s))
            waits.append(wait)
            moment += wait
        assert waits == [2, 4, 8, 16, 32, 64, 120, 120, 120]
        pace.failed(moment, 500.0)
        assert not pace.is_due(FACTS, moment + 499)
        pace.written(FACTS, moment)
        pace.is_due(FACTS._replace(pods=9), moment)
        pace.failed(moment + 20)
        assert pace.is_due(FACTS._replace(pods=9), moment + 22)

    def test_what_is_stored_is_looked_at_now_and_then(self) -> None:
        """Every quarter of an hour or so; if it is gone it is written again."""
        pace = Pace("n1")
        assert not pace.is_check_due(1e9)
        pace.written(FACTS, 100.0)
        assert not pace.is_check_due(100.0 + CHECK_S - 1)
        late = 100.0 + CHECK_S + 60 * SPREAD_S
        assert pace.is_check_due(late)
        pace.lost(late)
        pace.is_due(FACTS, late)
        assert pace.is_due(FACTS, late + LATEST_S)
