"""Which replica writes: the rules of the Lease, with a clock of the test's own."""

from __future__ import annotations

from typing import Any

import pytest

from enforcer.controller.election import Election
from enforcer.controller.lease import KEEP_S, LEASE_S, RENEW_S, Watcher
from enforcer.kube.answers import ApiLost, ApiRefused

Json = dict[str, Any]
AT = "2026-11-23T00:00:00.000000Z"


class Store:
    """One Lease, with versions as the API server keeps them; and an API that may be lost."""

    def __init__(self) -> None:
        self.lease: Json | None = None
        self.is_lost = False
        self._version = 0

    def get(self, path: str, **query: str) -> Json:
        """Return it."""
        self._answer()
        if self.lease is None:
            raise ApiRefused(404, "NotFound")
        return self.lease | {}

    def create(self, path: str, body: Json, **query: str) -> Json:
        """Create it."""
        self._answer()
        if self.lease is not None:
            raise ApiRefused(409, "AlreadyExists")
        return self._stored(body)

    def replace(self, path: str, body: Json, **query: str) -> Json:
        """Replace it, as it was read."""
        self._answer()
        assert self.lease is not None
        if body["metadata"].get("resourceVersion") != self.lease["metadata"]["resourceVersion"]:
            raise ApiRefused(409, "Conflict")
        return self._stored(body)

    def _answer(self) -> None:
        if self.is_lost:
            raise ApiLost("no connection")

    def _stored(self, body: Json) -> Json:
        self._version += 1
        metadata = body["metadata"] | {"resourceVersion": str(self._version)}
        self.lease = body | {"metadata": metadata}
        return self.lease


def _lease(watcher: Watcher, now: float, at: str = AT) -> Json:
    """A Lease that this replica has just written."""
    spec = watcher.wanted(None, now, at)
    assert spec is not None
    watcher.wrote(now)
    return {"spec": spec}


def test_a_lease_that_nobody_holds_is_taken() -> None:
    """And kept by renewing it in time."""
    watcher = Watcher("a")
    lease = _lease(watcher, 0.0)
    assert lease["spec"]["holderIdentity"] == "a"
    assert watcher.may_write(0.0)
    assert watcher.look_at(0.0) == RENEW_S
    again = watcher.wanted(lease, RENEW_S, "later")
    assert again is not None
    assert (again["renewTime"], again["acquireTime"], again["leaseTransitions"]) == ("later", AT, 0)


def test_another_replica_waits_until_the_holder_has_been_silent() -> None:
    """Silence is measured here: the times in the Lease are another machine's."""
    first, second = Watcher("a"), Watcher("b")
    lease = _lease(first, 0.0, "1970-01-01T00:00:00.000000Z")
    assert second.wanted(lease, 1000.0, AT) is None
    assert second.wanted(lease, 1000.0 + LEASE_S - 0.1, AT) is None
    taken = second.wanted(lease, 1000.0 + LEASE_S, AT)
    assert taken is not None
    assert (taken["holderIdentity"], taken["leaseTransitions"]) == ("b", 1)


def test_a_holder_that_renews_is_left_alone() -> None:
    """Each sign of life begins the time anew."""
    first, second = Watcher("a"), Watcher("b")
    lease = _lease(first, 0.0)
    for turn in range(20):
        now = turn * RENEW_S
        spec = first.wanted(lease, now, f"{turn}")
        assert spec is not None
        lease = {"spec": spec}
        assert second.wanted(lease, now, AT) is None


def test_who_could_not_renew_stops_writing_before_anybody_else_may_begin() -> None:
    """The law of the Lease, in the worst case: both saw the last renewal at the same moment."""
    first, second = Watcher("a"), Watcher("b")
    lease = _lease(first, 0.0)
    second.wanted(lease, 0.0, AT)
    for tenth in range(10 * LEASE_S):
        now = tenth / 10
        first.lost(now)
        assert not (first.may_write(now) and second.wanted(lease, now, AT) is not None)
    assert not first.may_write(KEEP_S)
    assert not first.is_leading
    assert second.wanted(lease, float(LEASE_S), AT) is not None


def test_who_sees_another_holder_stops_at_once() -> None:
    """Somebody took it, rightly or not."""
    watcher = Watcher("a")
    _lease(watcher, 0.0)
    other = {"spec": {"holderIdentity": "b", "leaseDurationSeconds": 30, "renewTime": AT}}
    assert watcher.wanted(other, 1.0, AT) is None
    assert not watcher.may_write(1.0)


@pytest.mark.parametrize(
    "spec",
    [
        None,
        [],
        {},
        {"holderIdentity": None},
        {"holderIdentity": ""},
        {"holderIdentity": 7, "leaseDurationSeconds": 1},
        {"holderIdentity": "b", "leaseDurationSeconds": -5, "leaseTransitions": "many"},
        {"holderIdentity": "b", "leaseDurationSeconds": 10**12, "renewTime": {}},
        {"holderIdentity": "b", "leaseDurationSeconds": "soon", "leaseTransitions": -1},
    ],
)
def test_a_lease_of_any_shape_is_taken_in_the_end(spec: object) -> None:
    """Whoever wrote nonsense into it keeps nobody from leading for longer than five minutes."""
    watcher = Watcher("a")
    watcher.wanted({"spec": spec}, 0.0, AT)
    found = watcher.wanted({"spec": spec}, 300.0, AT)
    assert found is not None
    assert found["leaseTransitions"] in {0, 1}


def test_of_two_that_take_it_at_once_one_leads() -> None:
    """The other one is refused, and waits without a word of trouble."""
    store = Store()
    first = Election(store, "ns", "lease", "a")
    second = Election(store, "ns", "lease", "b")
    first.step()
    second.step()
    assert first.watcher.is_leading
    assert not second.watcher.is_leading
    assert second.trouble == ""


def test_a_lease_that_is_given_up_is_free() -> None:
    """The next one does not wait."""
    store = Store()
    first = Election(store, "ns", "lease", "a")
    second = Election(store, "ns", "lease", "b")
    first.step()
    second.step()
    first.release()
    assert not first.watcher.is_leading
    second.step()
    assert second.watcher.is_leading
    first.release()
    assert store.lease is not None
    assert store.lease["spec"]["holderIdentity"] == "b"


def test_an_api_server_that_is_lost_is_said() -> None:
    """In a sentence; it leads on for a while, because nobody else can take the Lease either."""
    store = Store()
    election = Election(store, "ns", "lease", "a")
    election.step()
    store.is_lost = True
    election.step()
    assert election.trouble == "no connection"
    assert election.watcher.is_leading
    election.release()
    store.is_lost = False
    election.step()
    assert election.trouble == ""


def test_times_are_micro_times() -> None:
    """The API server takes six digits after the point in a Lease, no fewer."""
    store = Store()
    Election(store, "ns", "lease", "a").step()
    assert store.lease is not None
    assert len(store.lease["spec"]["renewTime"].rpartition(".")[2]) == len("123456Z")
