"""Whose an address is: the newer owner wins, two that both have it both refuse, and Redis takes nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from enforcer.sharing.nodes import ownership
from enforcer.sharing.nodes.letters import Claimed, Owner
from enforcer.sharing.records.seal import Keyring, check
from policy.addresses import to_packed
from policy.authority import GrantAnswered
from policy.pods import Pod
from tests.enforcer.rig import API, OTHER
from tests.sharing.neighbours import POLICY, Cluster, Node

HERE = "100.64.0.2"
SOURCE = to_packed(HERE)
A = Pod(namespace="mcp", name="a", uid="uid-a", addresses=(HERE,), node="node-a")
MOVED = msgspec.structs.replace(A, uid="uid-2", node="node-b")


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """node-a has the pod; node-b and node-c have none."""
    made = Cluster(tmp_path, "node-a", "node-b", "node-c").settle(pods=(A,))
    made.run(0.5)
    return made


def owner_said(cluster: Cluster) -> dict[bytes, bytes]:
    """What the owner's key holds, without its seal."""
    held = cluster.redis.hash(cluster["node-a"].keys.owner(SOURCE))
    return {name: value for name, value in held.items() if name not in {b"mac", b"v"}}


def asked(cluster: Cluster, pod: Pod, by: str = "node-c") -> GrantAnswered:
    """A node asks for the pod's address."""
    asker = cluster[by]
    got = asker.ask(asker.rig.request("api.example.org", OTHER, pod=pod), pod)
    cluster.run()
    return got[0]


def opened(cluster: Cluster) -> None:
    """node-a's own resolver opens something for its pod."""
    cluster["node-a"].rig.ask("api.example.org", API, pod=A)


def test_an_admitted_address_is_claimed(cluster: Cluster) -> None:
    """Node, uid, and a number that grows."""
    assert owner_said(cluster) == {
        b"node": b"node-a", b"uid": b"uid-a", b"generation": b"1", b"disputed": b"false",
    }  # fmt: skip
    key = cluster["node-a"].keys.owner(SOURCE)
    assert (b"PEXPIRE", key, b"600000") in cluster.redis.commands


def test_a_changed_key_seals_the_claim_anew(cluster: Cluster) -> None:
    """Before the old key is believed no more: else a record of our own would count as forged."""
    node, key = cluster["node-a"], cluster["node-a"].keys.owner(SOURCE)
    node.keyring = Keyring(b"the next key of the cluster", b"the key of the cluster")
    node.remote.reseal()
    cluster.run(0.1)
    check(Keyring(b"the next key of the cluster"), key, cluster.redis.hash(key))
    assert owner_said(cluster)[b"generation"] == b"1"


def test_the_newer_owner_wins(cluster: Cluster) -> None:
    """The old node's source says so as well: its grants for the address go at once, no dispute."""
    opened(cluster)
    for name in ("node-a", "node-b", "node-c"):
        cluster[name].settle(pods=(MOVED,))
    cluster.run(1.5)
    assert cluster["node-a"].rig.open_now() == set()
    assert owner_said(cluster)[b"node"] == b"node-b"
    assert owner_said(cluster)[b"generation"] == b"2"
    assert [node.remote.problems for node in cluster.nodes.values()] == [(), (), ()]
    assert asked(cluster, MOVED).outcomes == ("realized",)


def test_a_claim_makes_the_old_node_look_and_yield(cluster: Cluster) -> None:
    """Its source or its interfaces know it in that instant, not a moment later."""
    opened(cluster)
    old = cluster["node-a"]
    old.look_again = lambda: old.rig.apply(POLICY, pods=(MOVED,)) and None
    cluster["node-b"].settle(pods=(MOVED,))
    cluster.run(0.3)
    assert old.looked == 1
    assert old.rig.open_now() == set()
    assert old.remote.counts["yielded"] == 1
    assert old.remote.problems == cluster["node-b"].remote.problems == ()


def test_two_that_both_have_it_both_refuse_others_and_say_so(cluster: Cluster) -> None:
    """Neither loses a grant; their own pods' lookups go on; the third node hears a denial from both."""
    opened(cluster)
    held = cluster["node-a"].rig.open_now()
    cluster["node-b"].settle(pods=(MOVED,))
    cluster.run(1.5)
    for name, other in (("node-a", "node-b"), ("node-b", "node-a")):
        (problem,) = cluster[name].remote.problems
        assert HERE in problem
        assert other in problem
    assert owner_said(cluster)[b"disputed"] == b"true"
    assert asked(cluster, A).outcomes == ("denied",)
    cluster["node-c"].settle(pods=(MOVED,))
    assert asked(cluster, MOVED).outcomes == ("denied",)
    assert cluster["node-a"].rig.open_now() == held
    assert cluster["node-a"].rig.ask("www.example.org", OTHER, pod=A).outcomes == ("realized",)
    assert cluster["node-b"].rig.ask("www.example.org", OTHER, pod=MOVED).outcomes == ("realized",)


@pytest.mark.parametrize("how", ["its pod goes", "it dies"])
def test_a_dispute_ends_with_one_of_the_claims(cluster: Cluster, how: str) -> None:
    """Within seconds, and what others ask is answered again."""
    other = cluster["node-b"].settle(pods=(MOVED,))
    cluster.run(1.5)
    assert cluster["node-a"].remote.problems
    if how == "it dies":
        other.is_alive = False
    else:
        other.settle(pods=(A,))
        cluster.redis.hashes.pop(other.keys.pod(SOURCE))
    cluster.run(20.0)
    assert cluster["node-a"].remote.problems == ()
    assert owner_said(cluster)[b"node"] == b"node-a"
    assert owner_said(cluster)[b"disputed"] == b"false"
    assert asked(cluster, A).outcomes == ("realized",)


def test_a_dispute_lasts_as_long_as_both_claims(cluster: Cluster) -> None:
    """Looked at again and again, it goes on, and the letters about it do not."""
    cluster["node-b"].settle(pods=(MOVED,))
    cluster.run(2.0)
    claimed = [cluster[name].remote.counts["claimed"] for name in ("node-a", "node-b")]
    cluster.run(30.0)
    assert cluster["node-a"].remote.problems
    assert cluster["node-b"].remote.problems
    later = [cluster[name].remote.counts["claimed"] for name in ("node-a", "node-b")]
    assert sum(later) - sum(claimed) <= 2


def test_two_claims_at_one_instant_are_found(tmp_path: Path) -> None:
    """Both read nothing, both write: reading again after a while shows it."""
    cluster = Cluster(tmp_path, "node-a", "node-b")
    cluster.redis.delay_s = 0.05
    cluster["node-a"].settle(pods=(A,))
    cluster["node-b"].settle(pods=(MOVED,))
    cluster.beat()
    cluster.run(ownership.LOOK_AFTER_S + 3.0)
    assert cluster["node-a"].remote.problems
    assert cluster["node-b"].remote.problems


def test_a_dead_nodes_claim_is_no_claim(cluster: Cluster) -> None:
    """It is overwritten, and nobody is told."""
    cluster["node-a"].is_alive = False
    cluster.run(11.0)
    for name in ("node-b", "node-c"):
        cluster[name].settle(pods=(MOVED,))
    cluster.run(1.5)
    assert owner_said(cluster)[b"node"] == b"node-b"
    assert cluster["node-b"].remote.counts["claimed"] == 0
    assert asked(cluster, MOVED).outcomes == ("realized",)


def test_what_is_in_redis_takes_nothing(cluster: Cluster) -> None:
    """Deleted, forged, garbage, a real one of another's: the grant stays, the claim is made anew."""
    opened(cluster)
    node, key = cluster["node-a"], cluster["node-a"].keys.owner(SOURCE)
    held = node.rig.open_now()
    theirs = Owner("node-b", "uid-x", 7, disputed=False).fields()
    for written in (
        {},
        {b"node": b"node-b"},
        {b"junk": b"\xff" * 1000},
        {**theirs, b"v": b"1", b"mac": b"0" * 32},
        node.sealed(key, {**theirs, b"generation": b"9" * 17}),
        node.sealed(key, {**theirs, b"unknown": b"field"}),
    ):
        cluster.redis.hashes[key] = (written, float("inf"))
        node.remote.redis_up()
        cluster.run(0.3)
        assert owner_said(cluster)[b"node"] == b"node-a"
        assert set(owner_said(cluster)) == {b"node", b"uid", b"generation", b"disputed"}
        assert node.rig.open_now() == held
    assert asked(cluster, A).outcomes == ("realized",)


def claim(cluster: Cluster, source: bytes = SOURCE, *, seq: int = 1, generation: int = 10**6) -> None:
    """A compromised node-b claims an address, with the key and a fresh challenge."""
    liar, victim = cluster["node-b"], cluster["node-a"]
    letter = Claimed(
        "node-b", "11a7", seq, "node-a", victim.challenges[-1], source, "uid-evil", generation
    )  # fmt: skip
    stream = victim.keys.requests
    cluster.redis.add(stream, liar.sealed(stream, letter.fields()))
    cluster.run()


def test_a_lie_costs_the_sharing_of_that_address_for_seconds(cluster: Cluster) -> None:
    """Its own record of the pod is missing: at the next look the dispute is over. No grant goes."""
    opened(cluster)
    node = cluster["node-a"]
    held = node.rig.open_now()
    claim(cluster)
    assert len(node.remote.problems) == 1
    assert asked(cluster, A).outcomes == ("denied",)
    assert node.rig.ask("www.example.org", OTHER, pod=A).outcomes == ("realized",)
    cluster.run(ownership.RECHECK_S + 1.5)
    assert node.remote.problems == ()
    assert held <= node.rig.open_now()
    assert asked(cluster, A).outcomes == ("realized",)


def test_a_lie_that_is_kept_up_takes_no_grant(cluster: Cluster) -> None:
    """With records of its own for the address, for ever: what others ask is refused, all else goes on."""
    opened(cluster)
    held = cluster["node-a"].rig.open_now()
    liar: Node = cluster["node-b"].settle(pods=(MOVED,))
    claim(cluster)
    for second in range(20):
        liar.beat()
        claim(cluster, seq=second + 2)
        cluster.run(1.0)
    assert cluster["node-a"].rig.open_now() == held
    assert len(cluster["node-a"].remote.problems) == 1
    assert cluster["node-a"].looked <= 22


def test_a_claim_to_what_is_not_here_is_nothing(cluster: Cluster) -> None:
    """Any number of them fill no table."""
    for number in range(400):
        claim(cluster, to_packed(f"100.65.{number // 256}.{number % 256}"), seq=number + 1)
    assert cluster["node-a"].remote.problems == ()
    assert cluster["node-a"].remote._ownership._disputes == {}


def test_an_outdated_claim_is_nothing(cluster: Cluster) -> None:
    """Sent before ours was made."""
    claim(cluster, generation=0)
    assert cluster["node-a"].remote.problems == ()
    assert cluster["node-a"].remote.counts["outdated"] == 1


def test_a_stolen_claim_is_nothing(cluster: Cluster) -> None:
    """Claims are letters: a copy within the session, or of another time, does not count."""
    victim = cluster["node-a"]
    claim(cluster)
    stolen = dict(cluster.redis.streams[victim.keys.requests][-1][1])
    cluster.run(ownership.RECHECK_S + 1.5)
    assert victim.remote.problems == ()
    for _ in range(2):
        cluster.redis.add(victim.keys.requests, stolen)
        cluster.run()
        assert victim.remote.problems == ()
        cluster.run(10.0)
    assert victim.remote.counts["replayed"] == 1
    assert victim.remote.counts["challenge"] == 1


def test_problems_are_bounded(tmp_path: Path) -> None:
    """A node that claims everything fills no screen."""
    pods = tuple(
        Pod(namespace="mcp", name=f"p{n}", uid=f"u{n}", addresses=(f"100.64.1.{n}",), node="node-a")
        for n in range(1, 60)
    )
    cluster = Cluster(tmp_path, "node-a", "node-b").settle(pods=pods)
    cluster.run(1.0)
    for number, pod in enumerate(pods):
        claim(cluster, to_packed(pod.addresses[0]), seq=number + 1)
    problems = cluster["node-a"].remote.problems
    assert len(problems) == ownership.PROBLEMS + 1
    assert problems[-1].startswith(f"{len(pods) - ownership.PROBLEMS} more")
    assert cluster["node-a"].looked == 2


def test_claims_are_made_again_after_a_flush(cluster: Cluster) -> None:
    """Redis is back and empty."""
    cluster.redis.hashes.clear()
    cluster.beat()
    cluster["node-a"].remote.redis_up()
    cluster.run(0.5)
    assert owner_said(cluster)[b"node"] == b"node-a"


def test_a_claim_lives_as_long_as_its_pod(cluster: Cluster) -> None:
    """Renewed before it expires; not renewed when the pod has gone."""
    cluster.run(700.0, step_s=1.0)
    assert owner_said(cluster)[b"node"] == b"node-a"
    cluster["node-a"].settle(pods=())
    cluster.run(700.0, step_s=1.0)
    assert owner_said(cluster) == {}


def test_without_redis_nothing_is_read_or_said(cluster: Cluster) -> None:
    """Pods come and go; nothing waits."""
    node = cluster["node-a"]
    node.door.is_up = False
    node.remote.redis_lost()
    before = len(cluster.redis.commands)
    node.settle(pods=(msgspec.structs.replace(A, uid="uid-9"),))
    cluster.run(3.0)
    assert len(cluster.redis.commands) == before
    node.door.is_up = True
    node.remote.redis_up()
    cluster.run(0.5)
    assert owner_said(cluster)[b"uid"] == b"uid-9"
