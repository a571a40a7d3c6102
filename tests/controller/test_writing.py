"""The requests themselves: paths, verbs, and what refusals mean."""

from __future__ import annotations

from typing import Any

import pytest

from enforcer.controller.board import Write
from enforcer.controller.vital import STUCK_S, Vital
from enforcer.controller.writer import definition_path, send
from enforcer.health import ask
from enforcer.kube.answers import ApiRefused
from policy.runtime.clock import now
from tests.controller.world import Cluster, policy

Json = dict[str, Any]


class Recorder:
    """A door that writes down what it is asked, and refuses if it is told to."""

    def __init__(self, refusing: int = 0) -> None:
        self.asked: list[tuple[str, str, Json, dict[str, str]]] = []
        self._refusing = refusing

    def get(self, path: str, **query: str) -> Json:
        """Return nothing."""
        return self._answer("get", path, {}, query)

    def create(self, path: str, body: Json, **query: str) -> Json:
        """Take it."""
        return self._answer("create", path, body, query)

    def replace(self, path: str, body: Json, **query: str) -> Json:
        """Take it."""
        return self._answer("replace", path, body, query)

    def patch(self, path: str, body: Json, kind: str, **query: str) -> Json:
        """Take it."""
        return self._answer(kind, path, body, query)

    def delete(self, path: str, options: Json | None = None, **query: str) -> None:
        """Take it."""
        self._answer("delete", path, options or {}, query)

    def _answer(self, verb: str, path: str, body: Json, query: dict[str, str]) -> Json:
        self.asked.append((verb, path, body, query))
        if self._refusing:
            raise ApiRefused(self._refusing)
        return {}


def test_every_write_goes_to_its_place() -> None:
    """PolicyStatus by create, replace and delete; the policy's own status by apply, with its uid."""
    cluster = Cluster()
    cluster.lists(policy())
    create, mirror = cluster.runs(5)
    cluster.changes(policy(generation=2))
    replace, _ = cluster.runs(5)
    cluster.changes(policy(generation=2), is_gone=True)
    (delete,) = cluster.runs(60)
    door = Recorder()
    for write in (create, mirror, replace, delete):
        send(door, write)
    own = "/apis/nameward.dev/v1alpha1/namespaces/space/policystatuses"
    theirs = "/apis/networking.aviatrix.com/v1alpha1/namespaces/space/firewallpolicies/good/status"
    assert [(verb, path) for verb, path, _, _ in door.asked] == [
        ("create", own),
        ("apply", theirs),
        ("replace", f"{own}/firewallpolicy-good"),
        ("delete", f"{own}/firewallpolicy-good"),
    ]
    assert door.asked[1][2]["metadata"]["uid"] == "uid-good"
    assert door.asked[1][3] == {"fieldManager": "nameward-controller", "force": "true"}
    assert door.asked[2][2]["metadata"]["resourceVersion"] == "1"
    assert door.asked[3][2] == {"preconditions": {"uid": "s2"}}


@pytest.mark.parametrize("status", [404, 409])
def test_what_has_gone_or_is_another_object_need_not_be_deleted(status: int) -> None:
    """Somebody was faster."""
    send(Recorder(refusing=status), Write("delete", None, "space", "x", {}, "uid"))


def test_any_other_refusal_is_told() -> None:
    """The caller decides when to try again."""
    with pytest.raises(ApiRefused):
        send(Recorder(refusing=403), Write("delete", None, "space", "x", {}, "uid"))


def test_names_are_no_paths() -> None:
    """A name cannot reach another object of the API."""
    door = Recorder()
    send(door, Write("delete", None, "space/x", "../y", {}, ""))
    assert door.asked[0][1] == "/apis/nameward.dev/v1alpha1/namespaces/space%2Fx/policystatuses/..%2Fy"
    assert definition_path("WebgroupPolicy").endswith("/webgrouppolicies.networking.aviatrix.com")


def test_a_loop_that_hangs_is_not_alive(tmp_path: Any) -> None:
    """It answers from what the loop last said; after a minute of silence that is not believed."""
    path = str(tmp_path / "health")
    vital = Vital(path)
    vital.start()
    assert ask(path, 10.0).live
    assert not ask(path, 10.0).ready
    vital.turned("leading", is_ready=True)
    told = ask(path, 10.0)
    assert (told.live, told.ready, told.said) == (True, True, "leading")
    late = vital.look(now() + STUCK_S)
    assert not late.live
    assert "hung for 60 s" in late.said
