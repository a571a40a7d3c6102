"""Nameward leaves a node: asked by its namespace's annotation, or by hand; the node is as it was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enforcer.demo import places
from enforcer.demo.lab import Lab
from enforcer.demo.processes import LONG_S, output_of, wait_until
from enforcer.demo.scenes import Stage
from enforcer.removal import MARK, POD_UID
from tests.lab.agents import AgentPod, configured
from tests.lab.conftest import FOREIGN_RULES
from tests.lab.staged import staged

pytestmark = pytest.mark.kernel

OURS = "nameward-system"
Found = dict[str, list[str]]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """The lab, with others' rules and without a Nameward."""
    with staged() as made:
        assert isinstance(made.lab, Lab)
        made.lab.add_foreign_rules(FOREIGN_RULES)
        yield made


@pytest.fixture
def lab(stage: Stage) -> Lab:
    """Its node."""
    assert isinstance(stage.lab, Lab)
    return stage.lab


@pytest.fixture
def add(lab: Lab, tmp_path: Path) -> Iterator[Callable[..., AgentPod]]:
    """Adds pods of the DaemonSet, with their uids."""
    config = configured(lab.ward, policy={"kubernetes": {"podNamespace": OURS}})
    made: list[AgentPod] = []

    def one(uid: str) -> AgentPod:
        made.append(AgentPod(lab.node, tmp_path / uid, config, {POD_UID: uid}))
        return made[-1]

    yield one
    for pod in made:
        pod.stop()


def marked(lab: Lab, text: str | None) -> None:
    """Write Nameward's own namespace, with that mark."""
    metadata = {"name": OURS, "annotations": {MARK: text} if text is not None else {}}
    lab.put("ours", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})


def found(lab: Lab) -> Found:
    """What a node has that Nameward could leave behind: tables, rules, routes; without counters."""
    asked = {
        "ruleset": ["nft", "-s", "list", "ruleset"],
        "rules": ["ip", "rule"],
        "rules 6": ["ip", "-6", "rule"],
        "routes": ["ip", "route", "show", "table", "all"],
        "routes 6": ["ip", "-6", "route", "show", "table", "all"],
    }
    return {name: output_of(lab.node, argv).splitlines() for name, argv in asked.items()}


def says_removed(pod: AgentPod) -> bool:
    """The pod lives, is not ready, and says why."""
    told = pod.says("enforcer")
    return told is not None and told.live and not told.ready and "was removed from this node" in told.said


def test_the_mark_takes_everything_away_and_comes_back_with_its_end(
    stage: Stage, lab: Lab, add: Callable[..., AgentPod]
) -> None:
    """Asked to go: the node is as it was found. The mark taken back: it enforces again."""
    marked(lab, None)
    before = found(lab)
    pod = add("uid-1")
    pod.await_ready()
    assert not stage.crm.connect(places.ATTACKER4).ok
    marked(lab, "2999-01-01T00:00:00Z")
    assert wait_until(lambda: says_removed(pod), LONG_S, 0.1), pod.log.read_text()[-3000:]
    assert found(lab) == before
    assert stage.crm.connect(places.ATTACKER4).ok
    marked(lab, None)
    pod.await_ready()
    assert not stage.crm.connect(places.ATTACKER4).ok


def test_a_pod_that_was_installed_since_does_not_go(
    stage: Stage, lab: Lab, add: Callable[..., AgentPod]
) -> None:
    """The mark of an earlier uninstallation stays on the namespace: a new install works all the same."""
    marked(lab, "2026-01-01T00:00:00Z")
    pod = add("uid-2")
    pod.await_ready()
    assert not stage.crm.connect(places.ATTACKER4).ok


def test_what_is_no_time_takes_nothing_away(stage: Stage, lab: Lab, add: Callable[..., AgentPod]) -> None:
    """It is told, with what to write."""
    marked(lab, "now")
    pod = add("uid-3")
    pod.await_ready()
    assert wait_until(lambda: "enforcer.not_removed" in pod.log.read_text(), LONG_S, 0.1)
    assert not stage.crm.connect(places.ATTACKER4).ok


def test_by_hand_once_nothing_runs(stage: Stage, lab: Lab, add: Callable[..., AgentPod]) -> None:
    """``nameward uninstall --local``: refused while a Nameward is there; then rules and files are gone."""
    marked(lab, None)
    pod = add("uid-4")
    pod.await_ready()
    by_hand = lab.ward.command("uninstall", "--local")
    assert by_hand.returncode == 1
    assert "another Nameward (process" in by_hand.stderr
    assert not stage.crm.connect(places.ATTACKER4).ok
    pod.stop()
    assert not stage.crm.connect(places.ATTACKER4).ok
    by_hand = lab.ward.command("uninstall", "--local")
    assert by_hand.returncode == 0, by_hand.stderr
    assert by_hand.stdout.splitlines() == ["removed: inet nameward, bridge nameward"]
    assert "nameward" not in "".join(found(lab)["ruleset"])
    assert not (lab.folder / "run").exists()
    assert lab.ward.command("uninstall", "--local").stdout == "there were no rules of Nameward here\n"
    assert stage.crm.connect(places.ATTACKER4).ok
