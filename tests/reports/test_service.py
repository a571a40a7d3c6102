"""The thread that writes reports: what it asks of the API server, and what it makes of its answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from enforcer.blocked import BlockedRecords, Refused
from enforcer.kube.answers import ApiLost, ApiRefused
from enforcer.reports import events, node_status
from enforcer.reports.service import Reports
from enforcer.reports.told import NodeTold
from policy.pods import Pod
from policy.snapshot import compile_snapshot
from policy.world import World
from tests.enforcer.rig import KeptRecords
from tests.reports.reactor import FakeReactor

Json = dict[str, Any]
POD = Pod(namespace="mcp", name="a", uid="uid-a", addresses=(), node="n1")


class FakeDoor:
    """An API server in memory; ``failing`` is raised instead of an answer."""

    def __init__(self) -> None:
        self.uid = "uid-1"
        self.objects: dict[str, Json] = {}
        self.asked: list[tuple[str, str]] = []
        self.failing: ApiRefused | ApiLost | None = None
        self.thread: threading.Thread | None = None

    def _ask(self, verb: str, path: str) -> None:
        self.asked.append((verb, path))
        self.thread = threading.current_thread()
        if self.failing is not None:
            raise self.failing

    def get(self, path: str, **_: str) -> Json:
        self._ask("get", path)
        if path.startswith("/api/v1/nodes/"):
            return {"metadata": {"uid": self.uid}}
        if path not in self.objects:
            raise ApiRefused(404, "NotFound")
        return self.objects[path]

    def create(self, path: str, body: Json, **_: str) -> Json:
        self._ask("create", path)
        name = f"{path}/{body['metadata']['name']}"
        if name in self.objects:
            raise ApiRefused(409, "AlreadyExists")
        self.objects[name] = body
        return body

    def patch(self, path: str, body: Json, kind: str, **query: str) -> Json:
        self._ask("patch", path)
        assert (kind, query) == ("apply", {"fieldManager": "nameward-agent", "force": "true"})
        self.objects[path] = body
        return body


class Rig:
    """Reports of a node with one pod."""

    def __init__(self) -> None:
        self.door, self.reactor, self.records = FakeDoor(), FakeReactor(), KeptRecords()
        self.blocked = BlockedRecords(100)
        self.row: Json = {"version": "1", "enforcing": True, "problems": [], "pods": 1, "generation": 1}
        self.removed = False
        self.at = 1000.0
        self.failures: list[object] = []
        snapshot = compile_snapshot(World(generation=1, pods=(POD,)))
        self.told = NodeTold("n1", lambda: self.row, lambda: snapshot, lambda: self.removed)
        self.reports = Reports(
            reactor=self.reactor,  # type: ignore[arg-type]
            door=self.door,
            node="n1",
            told=self.told,
            blocked=self.blocked,
            records=self.records,
            events_per_hour=60,
            failed=self.failures.append,
            seconds=lambda: self.at,
        )
        self.reports.start()

    def until(self, holds: Callable[[], object]) -> None:
        """Look and run until it holds."""
        deadline = time.monotonic() + 30
        while not holds():
            assert time.monotonic() < deadline
            self.turn()
            time.sleep(0.002)

    def turn(self) -> None:
        """Look, let happen what has come from the thread; a second passes."""
        self.reports.look()
        self.reactor.run()
        self.at += 1.0

    @property
    def stored(self) -> Json | None:
        """The stored NodeStatus."""
        return self.door.objects.get("/apis/nameward.dev/v1alpha1/nodestatuses/n1")


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Running reports."""
    made = Rig()
    yield made
    made.reports.stop()


def test_the_status_is_written_once(rig: Rig) -> None:
    """By a thread of its own; owned by the Node; and no more while nothing changes."""
    rig.until(lambda: rig.stored is not None)
    assert rig.stored is not None
    assert rig.stored["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert rig.stored["status"]["enforcing"] is True
    assert rig.door.thread is not threading.current_thread()
    rig.row = {**rig.row, "generation": 2}
    for _ in range(20):
        rig.turn()
    assert [verb for verb, _ in rig.door.asked] == ["get", "patch"]
    assert rig.reports.problems == ()


@pytest.mark.parametrize(
    "refusal", [ApiLost("no answer in time"), ApiRefused(403, "Forbidden", "admission says no")]
)
def test_an_api_server_that_does_not_take_it_is_a_problem(rig: Rig, refusal: ApiLost | ApiRefused) -> None:
    """Told once, tried again, forgotten when it is over; and not itself a reason to write."""
    rig.door.failing = refusal
    rig.until(lambda: rig.reports.problems)
    assert str(refusal) in rig.reports.problems[0]
    rig.row = {**rig.row, "problems": list(rig.reports.problems)}
    rig.door.failing = None
    rig.until(lambda: rig.stored is not None and not rig.reports.problems)
    assert rig.stored is not None
    assert rig.stored["status"]["problems"] == []
    assert rig.records.events() == ["report.failed"]


def test_removal_is_written_at_once(rig: Rig) -> None:
    """Without the pause between two writes."""
    rig.until(lambda: rig.stored is not None)
    rig.removed = True
    rig.until(lambda: rig.stored is not None and rig.stored["status"]["removed"])


def refuse(rig: Rig, reason_class: str = "blocked") -> None:
    """A refusal that was long enough ago."""
    refused = Refused(
        "lookup", "mcp", "a", "", "drop.example.net", "A", "", "", None, "", "", "no rule", reason_class, 1,
        rig.at - events.GATHER_S,
    )  # fmt: skip
    rig.blocked.add(refused)


def test_events_are_created(rig: Rig) -> None:
    """In the pod's namespace; one that is there already is counted, and no failure."""
    refuse(rig)
    rig.until(lambda: rig.reports.outcomes["written"] == 1)
    [path] = [path for verb, path in rig.door.asked if verb == "create"]
    assert path == "/apis/events.k8s.io/v1/namespaces/mcp/events"


def test_an_event_that_is_there_is_known(rig: Rig) -> None:
    """What an earlier process of this hour has said."""
    refuse(rig)
    rig.door.failing = ApiRefused(409, "AlreadyExists")
    rig.until(lambda: rig.reports.outcomes["known"] == 1)
    assert rig.reports.outcomes["failed"] == 0


def test_an_event_that_nobody_wants_is_dropped(rig: Rig) -> None:
    """The namespace is going, or the permission is not ours; it does not stand in the way of the next."""
    refuse(rig)
    rig.door.failing = ApiRefused(403, "Forbidden", "the namespace is being terminated")
    rig.until(lambda: rig.reports.outcomes["failed"] == 1)
    rig.door.failing = None
    refuse(rig, "deny-rule")
    rig.until(lambda: rig.reports.outcomes["written"] == 1)


def test_an_event_waits_for_a_lost_api_server(rig: Rig) -> None:
    """And is created when it is back."""
    refuse(rig)
    rig.door.failing = ApiLost("no connection")
    rig.until(lambda: any(verb == "create" for verb, _ in rig.door.asked))
    rig.door.failing = None
    rig.until(lambda: rig.reports.outcomes["written"] == 1)


def test_a_mistake_of_ours_ends_the_process(rig: Rig) -> None:
    """It is not taken for a refusal."""
    rig.door.get = None  # type: ignore[method-assign,assignment]
    rig.until(lambda: rig.failures)


def test_after_the_end_nothing_is_done(rig: Rig) -> None:
    """What comes back then is not acted upon."""
    rig.reports.stop()
    refuse(rig)
    for _ in range(5):
        rig.turn()
    assert rig.door.asked == []


def test_bounds_are_those_of_the_definition() -> None:
    """The CRD takes what this writes."""
    chart = Path(__file__).parents[2] / "deploy" / "charts" / "nameward" / "crds"
    crd = yaml.safe_load((chart / "nameward.dev_nodestatuses.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    assert schema["problems"]["maxItems"] == node_status.MAX_PROBLEMS
    assert schema["problems"]["items"]["maxLength"] == node_status.MAX_PROBLEM_CHARS
    assert schema["policies"]["maxItems"] == node_status.MAX_POLICIES
    assert schema["breakGlass"]["maxItems"] == node_status.MAX_BREAK_GLASS
    assert set(schema["policies"]["items"]["properties"]) == set(node_status.InForce._fields)
