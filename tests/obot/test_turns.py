"""The bridge turn by turn, with a clock of the test's: when it writes, waits, gives way and tells."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, cast

import pytest
from prometheus_client import generate_latest

from enforcer.kube.answers import ApiLost, ApiRefused
from enforcer.kube.client import Api
from enforcer.obot.bridge import GATHER_S, LONGEST_PAUSE_S, Bridge
from enforcer.obot.numbers import BridgeMetrics
from enforcer.obot.sides import Bell, ClusterSide, ObotSide
from enforcer.obot.translation import Shape
from tests.obot.rig import Told

Json = dict[str, Any]
NAME = "obot-mnp1a-fw"


class FakeApi:
    """Takes writes; ``fails`` is raised instead, ``prunes`` goes from every rule."""

    def __init__(self) -> None:
        self.fails: Exception | None = None
        self.prunes = ""
        self.written: list[tuple[str, str]] = []

    def create(self, path: str, body: Json, **_: str) -> Json:
        return self._write("create", path, body)

    def replace(self, path: str, body: Json, **_: str) -> Json:
        return self._write("replace", path, body)

    def delete(self, path: str, options: Json, **_: str) -> None:
        assert set(options["preconditions"]) == {"uid", "resourceVersion"}
        self._write("delete", path, {})

    def _write(self, verb: str, path: str, body: Json) -> Json:
        self.written.append((verb, path.rpartition("/")[2]))
        if self.fails is not None:
            raise self.fails
        made = deepcopy(body)
        made.setdefault("metadata", {}).update(uid="u", resourceVersion=str(len(self.written)))
        for rule in made.get("spec", {}).get("rules", ()):
            rule.pop(self.prunes, None)
        return made


class Turns:
    """A bridge without threads."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.api = FakeApi()
        self.told = Told()
        self.listings = 0
        bell = Bell()
        self.obot = ObotSide(bell, lambda: self.now, "/secret/apiKey")
        self.cluster = ClusterSide(bell)
        self.bridge = Bridge(
            api=cast("Api", self.api),
            obot=self.obot,
            cluster=self.cluster,
            lister=self,
            bell=bell,
            shape=Shape("obot-mcp", "nameward"),
            succeeded=(),
            records=self.told,
            now=lambda: self.now,
        )

    def again(self) -> None:
        """Count what is asked of the storage's reflector."""
        self.listings += 1

    def turn(self, later_s: float = 0.0) -> float:
        """A turn, so much later."""
        self.now += later_s
        return self.bridge.turn()


def source(name: str = "a", **spec: Any) -> Json:
    """An MCPNetworkPolicy."""
    whole = {"mcpServerName": f"ms1{name}", "podSelector": {"app": f"ms1{name}"}, **spec}
    return {"metadata": {"name": f"mnp1{name}", "uid": f"uid-{name}"}, "spec": whole}


@pytest.fixture
def turns() -> Turns:
    """Both sides are known: one source, nothing in the cluster."""
    made = Turns()
    made.cluster.replaced([])
    made.obot.replaced([source()])
    return made


def test_nothing_is_written_before_both_sides_are_known() -> None:
    """Neither what Obot has not said, nor over what stands unseen."""
    made = Turns()
    made.turn()
    made.obot.replaced([source()])
    made.turn()
    assert made.api.written == []
    made.cluster.replaced([])
    made.turn()
    assert made.api.written == [("create", "firewallpolicies")]


def test_what_was_written_is_not_written_again(turns: Turns) -> None:
    """Not even before its watch tells of it."""
    turns.turn()
    assert turns.turn(10.0) > 1.0
    assert len(turns.api.written) == 1
    assert turns.bridge.numbers().policies == 1


def test_a_schema_that_prunes_a_field_is_written_to_once(turns: Turns) -> None:
    """What the API server made of it counts; a change of the source is written all the same."""
    turns.api.prunes = "logging"
    turns.turn()
    turns.turn(100.0)
    assert len(turns.api.written) == 1
    turns.obot.replaced([source(denyAllEgress=True)])
    turns.turn()
    turns.turn(100.0)
    assert turns.api.written == [("create", "firewallpolicies"), ("replace", NAME)]


def test_a_lost_cluster_is_tried_ever_more_rarely(turns: Turns) -> None:
    """With a sentence while it lasts."""
    turns.api.fails = ApiLost("no answer in time")
    tries = []
    for _ in range(400):
        before = len(turns.api.written)
        turns.turn(1.0)
        if len(turns.api.written) > before:
            tries.append(turns.now)
    assert len(tries) < 25
    assert tries[-1] - tries[-2] >= LONGEST_PAUSE_S - 1
    assert any("no answer in time" in said for said in turns.bridge.problems)
    turns.api.fails = None
    turns.turn(100.0)
    assert turns.bridge.problems == []
    assert [event for event, _ in turns.told.all][-2:] == ["bridge.wrote", "bridge.problem_over"]


def test_somebody_elses_newer_version_is_waited_for(turns: Turns) -> None:
    """A conflict is no problem: the watch brings what to compare next."""
    turns.api.fails = ApiRefused(409, "Conflict", "the object has been modified")
    turns.turn()
    assert turns.bridge.problems == []
    assert turns.bridge.numbers().writes["create", "refused"] == 1


def test_a_refusal_is_told_until_it_is_over(turns: Turns) -> None:
    """In the API server's words."""
    turns.api.fails = ApiRefused(422, "Invalid", "spec.rules: Too many")
    turns.turn()
    assert turns.bridge.problems == [f"FirewallPolicy {NAME} was refused: 422 Invalid: spec.rules: Too many"]
    turns.obot.replaced([])
    turns.turn()
    assert turns.bridge.problems == []


def test_many_changes_ask_for_few_lists(turns: Turns) -> None:
    """The watch rings at each; LISTs are gathered. None is asked for while the storage is in trouble."""
    turns.turn()
    for _ in range(100):
        turns.obot.changed("MODIFIED", source())
        turns.turn(GATHER_S / 10)
    assert 5 <= turns.listings <= 15
    turns.obot.trouble("no connection")
    before = turns.listings
    turns.obot.changed("MODIFIED", source())
    assert turns.turn(10.0) > 1.0
    assert turns.listings == before


def test_a_refused_token_is_named(turns: Turns) -> None:
    """What Obot calls anonymous is a token that it does not know."""
    turns.obot.trouble("/apis/x: the API server refused: 403 Forbidden: who are you")
    assert "/secret/apiKey" in turns.bridge.problems[0]
    turns.obot.trouble("localhost: no connection")
    assert "/secret/apiKey" not in turns.bridge.problems[0]


def test_the_metrics_hold_no_name(turns: Turns) -> None:
    """Numbers, and words that are ours."""
    turns.obot.replaced([source(), source("b", podSelector={}), source("c", egressDomains=["1.2.3.4"])])
    turns.turn()
    text = generate_latest(BridgeMetrics(turns.bridge.numbers).registry).decode()
    for line in (
        "nameward_bridge_sources 3.0",
        "nameward_bridge_policies 2.0",
        "nameward_bridge_refused_sources 1.0",
        "nameward_bridge_left_out_sources 1.0",
        "nameward_bridge_problems 1.0",
        "nameward_bridge_storage_up 1.0",
        'nameward_bridge_writes_total{action="create",outcome="done"} 2.0',
    ):
        assert line in text
    assert "mnp1" not in text
    assert "ms1" not in text
