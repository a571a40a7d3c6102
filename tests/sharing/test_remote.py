"""A pod answered by another node, between real brains: the owner's policy and kernel decide, nobody else."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from policy.authority import GrantAnswered
from policy.pods import Pod
from tests.enforcer.rig import API, GRACE_S, OTHER, TTL_S, permit, policy
from tests.sharing.neighbours import POLICY, Cluster

A = Pod(namespace="mcp", name="a", uid="uid-a", addresses=("100.64.0.2", "2a00:1::2"), node="node-a")
B = Pod(namespace="mcp", name="b", uid="uid-b", addresses=("100.64.0.3",), node="node-b")
V6 = "2606:2800:220::1"


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """Two nodes with one pod each, one world."""
    return Cluster(tmp_path, "node-a", "node-b").settle(pods=(A, B))


def asked(cluster: Cluster, name: str, *addresses: str, **more: object) -> list[GrantAnswered]:
    """node-b asks for node-a's pod; everything that follows has happened."""
    request = cluster["node-b"].rig.request(name, *addresses, pod=A, **more)
    got = cluster["node-b"].ask(request, A)
    cluster.run()
    return got


def test_the_pods_node_opens_what_another_node_asks(cluster: Cluster) -> None:
    """Both families; the elements are in the owner's kernel, none in the asker's."""
    before = cluster["node-a"].rig.open_now()
    got = asked(cluster, "api.example.org", API, OTHER)
    assert [each.outcomes for each in got] == [("realized", "realized")]
    assert not got[0].lasting
    assert TTL_S + GRACE_S - 1 < got[0].remaining_s <= TTL_S + GRACE_S
    assert len(cluster["node-a"].rig.open_now() - before) == 2
    assert cluster["node-b"].rig.open_now() == set()
    assert asked(cluster, "api.example.org", V6)[0].outcomes == ("realized",)


def test_the_answer_carries_this_nodes_generation(cluster: Cluster) -> None:
    """Nodes number their worlds each for itself: the resolver here knows those of here."""
    for _ in range(3):
        cluster["node-a"].settle(POLICY, policy(permit("more.example"), name=f"q{_}"), pods=(A, B))
    assert cluster["node-a"].rig.generation > cluster["node-b"].rig.generation
    assert asked(cluster, "api.example.org", API)[0].generation == cluster["node-b"].rig.generation


def test_the_journal_knows_it_before_the_asker(cluster: Cluster) -> None:
    """A restarted owner adopts the grant by its name: it was written before the acknowledgement."""
    owner = cluster["node-a"]
    asked(cluster, "api.example.org", API)
    held = owner.rig.open_now()
    owner.rig.journal.flush()
    owner.start()
    owner.rig.begin()
    owner.settle(pods=(A, B))
    assert owner.rig.open_now() == held
    reasons = {
        reason.name
        for account in owner.rig.ledger.accounts.values()
        for holding in account.holdings()
        for reason in holding.reasons
    }
    assert reasons == {"api.example.org"}


def test_the_owners_policy_decides(cluster: Cluster) -> None:
    """The asker permits more than the owner: refused there, and what is granted is the owner's rule's."""
    wide = policy(permit("*.example.org", "*.example.net", first=1, last=65535))
    cluster["node-b"].settle(wide, pods=(A, B))
    got = asked(cluster, "api.example.net", API)
    assert got[0].outcomes == ("denied",)
    assert cluster["node-a"].rig.open_now() == set()
    asked(cluster, "api.example.org", API)
    ((name, key),) = cluster["node-a"].rig.open_now()
    assert name == "grants4"
    assert key[-4:-2] == (443).to_bytes(2, "big")


def test_what_the_asker_does_not_permit_is_not_sent(cluster: Cluster) -> None:
    """A hijacked resolver here cannot have other nodes asked for just any name."""
    got = asked(cluster, "evil.example.com", API)
    assert got[0].outcomes == ("denied",)
    assert cluster["node-b"].remote.counts["asked"] == 0
    assert cluster.redis.streams == {}


def test_a_guarded_address_is_refused_by_the_owner(cluster: Cluster) -> None:
    """Rebinding through another node's resolver opens nothing."""
    got = asked(cluster, "api.example.org", "169.254.169.254", "127.0.0.1", API)
    assert got[0].outcomes == ("denied", "denied", "realized")
    assert len(cluster["node-a"].rig.open_now()) == 1


@pytest.mark.parametrize("change", ["moved", "gone", "another uid"])
def test_a_pod_that_is_not_there_any_more_is_a_failure_not_a_denial(cluster: Cluster, change: str) -> None:
    """The asker's world is older than the owner's: the client shall ask again."""
    pods = {
        "moved": (msgspec.structs.replace(A, node="node-c"), B),
        "gone": (B,),
        "another uid": (msgspec.structs.replace(A, uid="uid-2"), B),
    }[change]
    cluster["node-a"].settle(pods=pods)
    assert asked(cluster, "api.example.org", API)[0].outcomes == ("failed",)
    assert cluster["node-a"].rig.open_now() == set()


def test_a_pod_that_moves_between_request_and_answer(cluster: Cluster) -> None:
    """The request meets a world in which the pod is elsewhere already."""
    cluster.redis.delay_s = 0.01
    request = cluster["node-b"].rig.request("api.example.org", API, pod=A)
    got = cluster["node-b"].ask(request, A)
    cluster.redis.run(0.025)
    cluster["node-a"].settle(pods=(msgspec.structs.replace(A, node="node-c"), B))
    cluster.run(0.5)
    assert [each.outcomes for each in got] == [("failed",)]
    assert cluster["node-a"].rig.open_now() == set()


def test_a_pod_that_is_declared_and_not_admitted_is_waited_for(cluster: Cluster) -> None:
    """As for the owner's own resolver: its interface may come within the hold."""
    owner, late = cluster["node-a"], Pod(
        namespace="mcp", name="c", uid="uid-c", addresses=("100.64.0.9",), node="node-a"
    )  # fmt: skip
    owner.rig.apply(POLICY, pods=(A, B, late))
    cluster["node-b"].settle(pods=(A, B, late))
    request = cluster["node-b"].rig.request("api.example.org", API, pod=late)
    got = cluster["node-b"].ask(request, late)
    cluster.run(0.3)
    assert got == []
    owner.rig.run_threads()
    owner.hub.admitted()
    cluster.run(0.2)
    assert [each.outcomes for each in got] == [("realized",)]


def test_the_kernels_refusal_is_a_failure(cluster: Cluster) -> None:
    """Nothing is acknowledged that the kernel has not acknowledged."""
    cluster["node-a"].rig.kernel.refuse(12, times=2)
    assert asked(cluster, "api.example.org", API)[0].outcomes == ("failed",)
    assert asked(cluster, "api.example.org", API)[0].outcomes == ("realized",)


def test_a_restarted_owner_is_asked_again_by_its_new_challenge(cluster: Cluster) -> None:
    """In the middle: the old challenge is answered so, the new one is read, the request is sent once more."""
    asked(cluster, "api.example.org", API)
    owner = cluster["node-a"]
    owner.rig.journal.flush()
    owner.start()
    owner.rig.begin()
    owner.settle(pods=(A, B))
    owner.beat()
    got = asked(cluster, "www.example.org", OTHER)
    assert [each.outcomes for each in got] == [("realized",)]
    assert owner.remote.counts["challenge"] == 1
    assert cluster["node-b"].remote.counts["asked"] == 3


def test_a_restarted_asker_is_another_session(cluster: Cluster) -> None:
    """Its numbers begin at one again; what was for its earlier run is not taken."""
    asked(cluster, "api.example.org", API)
    asker = cluster["node-b"]
    cluster.redis.delay_s = 0.01
    asker.ask(asker.rig.request("x.example.org", API, pod=A), A)
    cluster.redis.run(0.015)
    asker.start()
    asker.settle(pods=(A, B))
    asker.beat()
    cluster.run(0.1)
    assert asker.remote.counts["misdirected"] == 1
    cluster.redis.delay_s = 0.0
    assert asked(cluster, "www.example.org", OTHER)[0].outcomes == ("realized",)


def test_slow_redis_is_in_time_once_the_challenge_is_known(cluster: Cluster) -> None:
    """200 ms a call: the request and its acknowledgement take four of them."""
    asked(cluster, "api.example.org", API)
    cluster.redis.delay_s = 0.2
    got = cluster["node-b"].ask(cluster["node-b"].rig.request("www.example.org", OTHER, pod=A), A)
    cluster.run(0.85)
    assert [each.outcomes for each in got] == [("realized",)]
    assert got[0].remaining_s <= TTL_S + GRACE_S - 0.4


def test_redis_lost_fails_at_once_and_grants_stay(cluster: Cluster) -> None:
    """What is open stays open; the next request after its return works."""
    asked(cluster, "api.example.org", API)
    held = cluster["node-a"].rig.open_now()
    for node in cluster.nodes.values():
        node.door.is_up = False
        node.remote.redis_lost()
    request = cluster["node-b"].rig.request("www.example.org", OTHER, pod=A)
    assert cluster["node-b"].ask(request, A)[0].outcomes == ("failed",)
    assert cluster["node-a"].rig.open_now() == held
    for node in cluster.nodes.values():
        node.door.is_up = True
        node.remote.redis_up()
    cluster.beat()
    assert asked(cluster, "www.example.org", OTHER)[0].outcomes == ("realized",)


def test_lookups_of_this_nodes_pods_do_not_touch_redis(cluster: Cluster) -> None:
    """Own pods, and those of whom nobody says where they are, are decided here."""
    nowhere = msgspec.structs.replace(B, node="")
    assert not cluster["node-b"].remote.is_elsewhere(B)
    assert not cluster["node-b"].remote.is_elsewhere(nowhere)
    assert cluster["node-b"].remote.is_elsewhere(A)


def test_an_address_of_two_pods_is_nobodys_on_three_nodes(tmp_path: Path) -> None:
    """The source names two pods for it: neither node opens anything for it, whoever asks, and both say so."""
    twin = msgspec.structs.replace(B, addresses=A.addresses)
    cluster = Cluster(tmp_path, "node-a", "node-b", "node-c").settle(pods=(A, twin))
    for pod in (A, twin):
        request = cluster["node-c"].rig.request("api.example.org", API, pod=pod)
        got = cluster["node-c"].ask(request, pod)
        cluster.run()
        assert got[0].outcomes == ("failed",)
    for name in ("node-a", "node-b"):
        assert cluster[name].rig.open_now() == set()
        snapshot = cluster[name].rig.authority.snapshot
        assert snapshot is not None
        assert any("claimed by several pods" in each for each in snapshot.problems)


def test_remote_requests_leave_room_for_local_ones(cluster: Cluster) -> None:
    """A thousand at once are taken a share a turn, and all are answered in the end."""
    got = []
    for number in range(250):
        request = cluster["node-b"].rig.request(f"h{number}.example.org", API, pod=A)
        got.append(cluster["node-b"].ask(request, A))
    owner = cluster["node-a"]
    taken: list[int] = []
    take = owner.remote.take
    owner.remote.take = lambda most, addresses: taken_of(take(most, addresses), taken)  # type: ignore[method-assign]
    cluster.run(0.5)
    assert all(each and each[0].outcomes == ("realized",) for each in got)
    assert max(taken) <= 256


def taken_of(requests: list, taken: list[int]) -> list:
    """Remember how many there were."""
    taken.append(len(requests))
    return requests
