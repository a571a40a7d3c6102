"""Events at pods: which refusals become one, and that no pod can make many."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from enforcer.blocked import Refused
from enforcer.reasons import CLASSES
from enforcer.reports.events import (
    GATHER_S,
    HOUR_S,
    MAX_NOTE_CHARS,
    MAX_SUBJECTS,
    PER_POD,
    REASONS,
    Due,
    PodEvents,
)
from policy.pods import Pod

WALL = 1_795_000_000.0 // HOUR_S * HOUR_S
EVIL = "\x1b]0;x\x07\u202e"


def refused(name: str = "drop.example.net", pod: str = "a", **more: Any) -> Refused:
    """One refused lookup of a pod."""
    fields: dict[str, Any] = {
        "kind": "lookup", "namespace": "mcp", "pod": pod, "pod_ip": "100.64.0.2", "name": name, "qtype": "A",
        "address": "", "protocol": "", "port": None, "policy": "", "rule": "",
        "reason": f"no rule permits {name} for mcp/{pod}", "reason_class": "blocked", "times": 1,
        "at": 1000.0,
    }  # fmt: skip
    return Refused(**{**fields, **more})


def pod_of(key: str) -> Pod:
    """Every pod is there."""
    namespace, _, name = key.partition("/")
    return Pod(namespace=namespace, name=name, uid=f"uid-{name}", addresses=())


class Hours:
    """Events by clocks that a test moves."""

    def __init__(self, per_hour: int = 60) -> None:
        self.events = PodEvents("n1", per_hour)
        self.now, self.wall = 1000.0, WALL

    def take(self, *refusals: Refused) -> None:
        """Gather refusals of now."""
        for each in refusals:
            self.events.take(each._replace(at=self.now))

    def wait(self, seconds: float) -> list[Due]:
        """Let time pass and return what is due then."""
        self.now += seconds
        self.wall += seconds
        return self.events.due(pod_of, self.now, self.wall)


def test_an_event_explains_a_pod() -> None:
    """Reason, names by how often, and the sentence that ``nameward blocked`` shows."""
    hours = Hours()
    hours.take(refused("a.example"), *[refused("drop.example.net")] * 3)
    assert hours.wait(GATHER_S - 1) == []
    [due] = hours.wait(1)
    event = due.event
    assert (due.namespace, event["reason"], event["type"], event["action"]) == (
        "mcp", "LookupRefused", "Warning", "Refused",
    )  # fmt: skip
    assert event["regarding"] == {
        "apiVersion": "v1", "kind": "Pod", "namespace": "mcp", "name": "a", "uid": "uid-a",
    }  # fmt: skip
    assert event["note"] == (
        "Nameward refused lookups of drop.example.net (3) and a.example (1). "
        "Why: no rule permits drop.example.net for mcp/a"
    )
    assert event["eventTime"].endswith("Z")
    assert (event["reportingController"], event["reportingInstance"]) == ("nameward.dev/agent", "n1")


def test_the_top_five_names_are_shown() -> None:
    """Of many the most frequent; the count of the others is bounded too."""
    hours = Hours()
    for number in range(1000):
        hours.take(*[refused(f"n{number:04}.example")] * (9 if number < 5 else 1))
    [due] = hours.wait(GATHER_S)
    assert due.event["note"].startswith(
        "Nameward refused lookups of n0000.example (9), n0001.example (9), n0002.example (9), "
        "n0003.example (9), n0004.example (9) and others."
    )


def test_packets_are_named_by_their_destination() -> None:
    """With a name where the address had one, else address, protocol and port."""
    hours = Hours()
    packet = refused("", kind="packet", address="93.184.216.34", protocol="tcp", port=22)
    hours.take(packet._replace(reason_class="never-resolved", reason="never looked up"))
    [due] = hours.wait(GATHER_S)
    assert due.event["reason"] == "AddressNotLookedUp"
    assert "93.184.216.34 tcp/22 (1). Why: never looked up" in due.event["note"]


def test_it_is_said_ever_more_seldom() -> None:
    """A pod that asks every minute for ever: after one, three, nine hours, then daily."""
    hours = Hours()
    times = []
    for minute in range(4 * 24 * 60):
        hours.take(refused())
        if hours.wait(60):
            times.append(minute // 60)
    assert times[:5] == [0, 1, 4, 13, 37]
    assert len(times) <= 7


def test_a_pod_is_bounded() -> None:
    """Whatever it tries: four of an hour."""
    hours = Hours()
    for reason_class in REASONS:
        hours.take(refused(reason_class=reason_class))
    assert len(hours.wait(GATHER_S)) == PER_POD
    assert hours.events.suppressed == len(REASONS) - PER_POD
    for _ in range(100):
        hours.take(*(refused(reason_class=each) for each in REASONS))
        assert len(hours.wait(30)) == 0
    assert hours.events.suppressed == len(REASONS) - PER_POD


def test_a_node_is_bounded() -> None:
    """Ten thousand pods (their names are never theirs to choose) get sixty of an hour."""
    hours = Hours(per_hour=60)
    hours.take(*(refused(pod=f"p{number:05}") for number in range(10_000)))
    assert len(hours.wait(GATHER_S)) == 60
    assert hours.events.suppressed == MAX_SUBJECTS - 60
    hours.take(*(refused(pod=f"p{number:05}") for number in range(10_000)))
    assert len(hours.wait(GATHER_S)) == 0
    hours.take(*(refused(pod=f"p{number:05}") for number in range(10_000)))
    assert len(hours.wait(HOUR_S)) == 60


def test_a_restart_repeats_none() -> None:
    """Within an hour the same pod and reason have the same name: creating it again is refused."""
    names = []
    for _ in range(2):
        hours = Hours()
        hours.take(refused())
        [due] = hours.wait(GATHER_S)
        names.append(due.event["metadata"]["name"])
        hours.take(refused(reason_class="deny-rule"))
        [other] = hours.wait(GATHER_S)
        assert other.event["metadata"]["name"] != names[0]
    assert names[0] == names[1]
    assert names[0].startswith("a.")
    hours = Hours()
    hours.wait(HOUR_S)
    hours.take(refused())
    [later] = hours.wait(GATHER_S)
    assert later.event["metadata"]["name"] != names[0]


def test_events_can_be_turned_off() -> None:
    """Nothing is gathered then."""
    hours = Hours(per_hour=0)
    hours.take(refused())
    assert hours.wait(GATHER_S) == []


@pytest.mark.parametrize(
    "more", [{"pod": "", "namespace": ""}, {"reason_class": "not-a-flow"}, {"reason_class": "fence"}]
)
def test_what_is_no_pods_or_explains_nothing_has_none(more: Mapping[str, Any]) -> None:
    """Unknown sources, late packets of connections that have ended."""
    hours = Hours()
    hours.take(refused(**more))
    assert hours.wait(GATHER_S) == []


def test_a_pod_that_is_gone_has_none() -> None:
    """Nor does the next pod of its name inherit what it did."""
    events = PodEvents("n1", 60)
    events.take(refused())
    assert events.due(lambda _: None, 1000.0 + GATHER_S, WALL) == []
    events.take(refused())
    assert events.due(pod_of, 1000.0, WALL) == []
    other = Pod(namespace="mcp", name="a", uid="another", addresses=())
    assert events.due(lambda _: other, 1000.0 + GATHER_S, WALL) == []
    assert events.due(pod_of, 1000.0 + GATHER_S, WALL) == []


def test_what_strangers_write_is_printable_and_bounded() -> None:
    """Names that a terminal would obey, longer than any note."""
    hours = Hours()
    hours.take(*(refused(f"{number}{EVIL}" + "x" * 5000) for number in range(9)))
    hours.take(refused(EVIL, reason=EVIL * 1000))
    [due] = hours.wait(GATHER_S)
    note = due.event["note"]
    assert note.isascii()
    assert note.isprintable()
    assert len(note) <= MAX_NOTE_CHARS
    assert len(json.dumps(due.event)) < 2500


def test_long_names_of_pods_make_names_of_events() -> None:
    """Within what the API server takes as a name."""
    hours = Hours()
    hours.take(refused(pod="a" * 199 + ".-" + "b" * 52))
    [due] = hours.wait(GATHER_S)
    assert len(due.event["metadata"]["name"]) <= 253
    assert ".-" not in due.event["metadata"]["name"]


def test_every_class_is_decided_upon() -> None:
    """A new class of denied packets must be put here, or left out on purpose."""
    silent = {"unknown-pod", "not-a-flow", "resolver-fenced", "unmarked"}
    assert set(CLASSES) - set(REASONS) == silent
