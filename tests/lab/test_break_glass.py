"""Break-glass against the real kernel: what it opens, what stays closed, and that it closes by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from enforcer.demo import manifests, places
from enforcer.demo.processes import LONG_S, wait_until
from enforcer.demo.scenes import Stage
from policy.break_glass import REASON_MARK, UNTIL_MARK, rfc3339
from policy.runtime.clock import wall_seconds

pytestmark = pytest.mark.kernel

Break = Callable[[float], None]
ATTACKER = places.ATTACKER4


@pytest.fixture
def break_glass(stage: Stage) -> Iterator[Break]:
    """Annotate the Namespace for so many seconds; it is as it was afterwards."""

    def annotate(seconds: float) -> None:
        document = manifests.namespace()
        until = rfc3339(wall_seconds() + seconds)
        document["metadata"]["annotations"] = {UNTIL_MARK: until, REASON_MARK: "INC-4711"}
        stage.lab.put("namespace", document)

    yield annotate
    stage.lab.put("namespace", manifests.namespace())
    assert wait_until(lambda: not _opened(stage), LONG_S)


def _opened(stage: Stage) -> list[str]:
    problems: list[str] = stage.lab.ward.status()["problems"]
    return [each for each in problems if "open by break-glass" in each]


def test_it_opens_everything_but_what_is_guarded(stage: Stage, break_glass: Break) -> None:
    """Names and addresses that no policy permits; not private ones, not DNS past the resolver."""
    pod = stage.ledger
    assert pod.stub.ask(places.DROP).rcode == "NXDOMAIN"
    assert not pod.connect(ATTACKER).ok
    break_glass(600)
    assert wait_until(lambda: bool(_opened(stage)), LONG_S)
    assert "INC-4711" in _opened(stage)[0]
    assert wait_until(lambda: bool(pod.stub.ask(places.DROP).addresses), LONG_S)
    assert pod.connect(ATTACKER).ok
    assert not pod.connect(places.NODE4, 443).ok
    assert not pod.connect(places.UPSTREAM4, 853).ok
    rows = {row["pod"]: row["state"] for row in stage.lab.ward.ask("inventory") if row["kind"] == "pod"}
    assert rows[pod.name] == "break-glass"
    assert stage.lab.ward.metric("nameward_break_glass_namespaces") == 1


def test_taking_it_back_cuts_what_it_opened(stage: Stage, break_glass: Break) -> None:
    """A connection that only break-glass permitted ends with it; what a policy permits goes on."""
    pod = stage.ledger
    break_glass(600)
    assert wait_until(lambda: pod.connect(ATTACKER).ok, LONG_S)
    stolen = pod.transfer(ATTACKER)
    kept = pod.transfer(pod.stub.ask(places.LEDGER).addresses[0])
    try:
        assert stolen.grows(), stolen.error
        assert kept.grows(), kept.error
        stage.lab.put("namespace", manifests.namespace())
        assert stolen.ends(LONG_S)
        assert kept.grows(), kept.error
        assert pod.stub.ask(places.DROP).rcode == "NXDOMAIN"
    finally:
        stolen.close()
        kept.close()


def test_it_ends_by_itself(stage: Stage, break_glass: Break) -> None:
    """At its time, with nobody there to change anything."""
    pod = stage.ledger
    break_glass(5)
    assert wait_until(lambda: bool(_opened(stage)), LONG_S)
    assert wait_until(lambda: not _opened(stage), LONG_S)
    assert wait_until(lambda: not pod.connect(ATTACKER).ok, LONG_S)
    log = stage.lab.ward.log.read_text()
    assert '"break_glass.ended"' in log
    assert "its time has come" in log


def test_too_far_ahead_opens_nothing(stage: Stage, break_glass: Break) -> None:
    """And the node says why."""
    break_glass(30 * 86400)

    def refused() -> bool:
        return any("asks for break-glass" in each for each in stage.lab.ward.status()["problems"])

    assert wait_until(refused, LONG_S)
    assert not stage.ledger.connect(ATTACKER).ok
    assert not _opened(stage)
