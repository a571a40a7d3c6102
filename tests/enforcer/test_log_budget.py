"""The log's budget: a flood of refusals writes so much and no more, and others are still heard."""

from __future__ import annotations

from enforcer.log_budget import BURST_S, MAX_PODS, POD_SHARE, LogBudget


def test_a_pod_has_its_share() -> None:
    """At once what it did not use for ten seconds, then its rate; another pod is not affected."""
    budget = LogBudget(20)
    assert sum(budget.take("mcp/a", 100.0) for _ in range(1000)) == 20 * BURST_S / POD_SHARE
    assert sum(budget.take("mcp/a", 101.0) for _ in range(1000)) == 20 / POD_SHARE
    assert sum(budget.take("mcp/b", 101.0) for _ in range(1000)) == 20 * BURST_S / POD_SHARE


def test_a_node_is_bounded() -> None:
    """Whatever number of pods floods: the node's rate, in the long run."""
    budget = LogBudget(20)
    written = sum(budget.take(f"mcp/p{pod}", 100.0 + second) for second in range(600) for pod in range(100))
    assert 20 * 599 <= written <= 20 * (600 + BURST_S)
    assert budget.suppressed == 600 * 100 - written


def test_pods_that_come_and_go_fill_no_memory() -> None:
    """Nor do they get more than the node's budget."""
    budget = LogBudget(20)
    assert sum(budget.take(f"mcp/p{pod}", 100.0) for pod in range(MAX_PODS * 3)) == 20 * BURST_S


def test_what_is_missing_is_said_now_and_then() -> None:
    """Once a minute, with the count since; nothing where nothing is missing."""
    budget = LogBudget(1)
    assert budget.unsaid(100.0) == 0
    taken = sum(budget.take("mcp/a", 100.0) for _ in range(50))
    assert budget.unsaid(100.0) == 50 - taken
    budget.take("mcp/a", 100.0)
    assert budget.unsaid(101.0) == 0
    assert budget.unsaid(160.0) == 1
    assert budget.unsaid(500.0) == 0
