"""The asker: one answer for every request, by the node that was asked and for that request alone."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enforcer.sharing.nodes import asking, peers
from enforcer.sharing.nodes.letters import MAX_ADDRESSES, Acked, Asked, letter_from
from enforcer.sharing.records.formats import NodeRecord
from policy.addresses import to_packed
from policy.authority import GrantAnswered
from policy.pods import Pod
from tests.enforcer.rig import API, GRACE_S, OTHER, TTL_S
from tests.sharing.neighbours import FACTS, Cluster, Node

A = Pod(namespace="mcp", name="a", uid="uid-a", addresses=("100.64.0.2", "2a00:1::2"), node="node-a")


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """node-b asks; node-a's letters are written by the test."""
    made = Cluster(tmp_path, "node-a", "node-b").settle(pods=(A,))
    made["node-a"].is_alive = False
    return made


def ask(cluster: Cluster, *addresses: str, name: str = "api.example.org") -> list[GrantAnswered]:
    """node-b asks, and the request is on its way."""
    asker = cluster["node-b"]
    got = asker.ask(asker.rig.request(name, *(addresses or (API,)), pod=A), A)
    cluster.redis.run()
    return got


def requests(cluster: Cluster) -> list[Asked]:
    """What was written for node-a."""
    found = [
        letter_from(fields) for _, fields in cluster.redis.streams.get(cluster["node-a"].keys.requests, [])
    ]
    return [each for each in found if isinstance(each, Asked)]


def acknowledge(cluster: Cluster, **changed: object) -> None:
    """Write an acknowledgement of the last request, some of it changed; read it."""
    asked = requests(cluster)[-1]
    ack = Acked(
        asked.id, "node-a", "node-b", asked.session, ("realized",) * len(asked.addresses),
        TTL_S + GRACE_S, 7, "",
    )._replace(**changed)  # type: ignore[arg-type]  # fmt: skip
    write(cluster, ack.fields())


def write(cluster: Cluster, fields: dict[bytes, bytes]) -> None:
    """Write sealed fields into node-b's acknowledgements; read them."""
    stream = cluster["node-b"].keys.acks
    cluster.redis.add(stream, cluster["node-a"].sealed(stream, fields))
    cluster.redis.run()


def counts(node: Node) -> dict[str, int]:
    """What it counted beside its requests."""
    return {word: count for word, count in node.remote.counts.items() if count and word != "asked"}


def test_a_request_says_what_the_lookup_gave(cluster: Cluster) -> None:
    """Pod, name, addresses, TTL; the owner's challenge; a number that grows."""
    ask(cluster, API, OTHER)
    ask(cluster, "2606:2800::1")
    first, second = requests(cluster)
    assert (first.node, first.to, first.uid, first.name) == ("node-b", "node-a", "uid-a", "api.example.org")
    assert first.source == to_packed("100.64.0.2")
    assert first.addresses == (to_packed(API), to_packed(OTHER))
    assert first.challenge == cluster["node-a"].challenges[-1]
    assert first.ttl_s == TTL_S
    assert second.seq > first.seq
    assert second.id != first.id


def test_remaining_is_counted_from_when_it_was_sent(cluster: Cluster) -> None:
    """Never later than the owner's kernel would say."""
    got = ask(cluster)
    cluster.redis.run(0.5)
    acknowledge(cluster)
    assert got == [GrantAnswered(1, 1, ("realized",), TTL_S + GRACE_S - 0.5, "", lasting=False)]


def test_what_is_about_to_end_is_not_realized(cluster: Cluster) -> None:
    """No TTL is as short."""
    got = ask(cluster)
    acknowledge(cluster, remaining_s=0.9)
    assert got[0].outcomes == ("failed",)


@pytest.mark.parametrize(
    ("changed", "counted"),
    [
        ({"id": 99}, "late"),
        ({"node": "node-c"}, "misdirected"),
        ({"to": "node-c"}, "misdirected"),
        ({"session": "0ldsess"}, "misdirected"),
        ({"outcomes": ("realized", "realized")}, "malformed"),
    ],
)
def test_an_acknowledgement_of_something_else_is_none(
    cluster: Cluster, changed: dict[str, object], counted: str
) -> None:
    """Another request's, another node's, for another node, of an earlier run, of other addresses."""
    got = ask(cluster)
    acknowledge(cluster, **changed)
    assert got == []
    assert counts(cluster["node-b"]) == {counted: 1}
    acknowledge(cluster)
    assert got[0].outcomes == ("realized",)


def test_a_second_acknowledgement_is_late(cluster: Cluster) -> None:
    """A duplicate after a reconnect, or a stolen record."""
    got = ask(cluster)
    acknowledge(cluster)
    acknowledge(cluster, outcomes=("denied",))
    assert len(got) == 1
    assert cluster["node-b"].remote.counts["late"] == 1


def test_without_the_key_no_acknowledgement_counts(cluster: Cluster) -> None:
    """Forged, altered in each field, taken from another stream."""
    got = ask(cluster)
    acks = cluster["node-b"].keys.acks
    fields = Acked(
        1, "node-a", "node-b", cluster["node-b"].session, ("realized",), 120.0, 7, ""
    ).fields()  # fmt: skip
    sealed = cluster["node-a"].sealed(acks, fields)
    elsewhere = cluster["node-a"].sealed(cluster["node-a"].keys.acks, fields)
    for record in (fields, {**sealed, b"mac": b"0" * 32}, elsewhere, {**sealed, b"more": b"1"}):
        cluster.redis.add(acks, record)
    for name in fields:
        cluster.redis.add(acks, {**sealed, name: sealed[name] + b"0"})
    cluster.redis.run()
    assert got == []
    assert set(counts(cluster["node-b"])) == {"forged", "malformed"}
    cluster.redis.add(acks, sealed)
    cluster.redis.run()
    assert got[0].outcomes == ("realized",)


def test_another_version_is_ignored_and_counted(cluster: Cluster) -> None:
    """Two versions side by side on one Redis."""
    got = ask(cluster)
    acks = cluster["node-b"].keys.acks
    cluster.redis.add(
        acks, {**Acked(1, "node-a", "node-b", "x", (), 0.0, 0, "").fields(), b"v": b"2", b"mac": b"0" * 32}
    )
    cluster.redis.run()
    assert got == []
    assert counts(cluster["node-b"]) == {"version": 1}


def test_an_unknown_challenge_is_read_again_once(cluster: Cluster) -> None:
    """The second time it is a failure: no loop between a lying node and us."""
    got = ask(cluster)
    cluster["node-a"].beat()
    acknowledge(cluster, outcomes=())
    assert [each.challenge for each in requests(cluster)] == cluster["node-a"].challenges[-2:]
    assert got == []
    acknowledge(cluster, outcomes=())
    assert got[0].outcomes == ("failed",)
    assert len(requests(cluster)) == 2


def test_a_silent_node_is_given_up_before_the_resolver_does(cluster: Cluster) -> None:
    """Nine tenths of ``dns.holdTimeout``, whatever that is."""
    for hold_s in (1.0, 0.2):
        cluster["node-b"].hold_s = hold_s
        got = ask(cluster)
        cluster.redis.run(hold_s * 0.9 - 0.01)
        cluster["node-b"].remote.tick()
        assert got == []
        cluster.redis.run(0.01)
        cluster["node-b"].remote.tick()
        assert got[0].outcomes == ("failed",)
        assert "did not answer" in got[0].reason


def test_a_node_without_a_heartbeat_is_not_waited_for(cluster: Cluster) -> None:
    """A failure at once, also for the next ones, without reading again and again."""
    cluster.redis.hashes.clear()
    reads: list[int] = []
    door = cluster["node-b"].door
    original = door.hashes
    door.hashes = lambda keys: reads.append(1) or original(keys)  # type: ignore[method-assign,func-returns-value]
    for _ in range(50):
        got = ask(cluster)
        assert got[0].outcomes == ("failed",)
        assert "no heartbeat" in got[0].reason
    assert len(reads) == 1
    cluster.redis.run(peers.SILENT_S)
    cluster["node-a"].beat()
    ask(cluster)
    acknowledge(cluster)
    assert len(reads) == 2


def test_a_forged_heartbeat_is_none(cluster: Cluster) -> None:
    """Redis's word for a challenge counts with its seal only."""
    key = cluster["node-a"].keys.heartbeat
    held, until = cluster.redis.hashes[key]
    cluster.redis.hashes[key] = ({**held, b"challenge": b"0" * 16}, until)
    got = ask(cluster)
    assert got[0].outcomes == ("failed",)
    assert counts(cluster["node-b"]) == {"forged": 1, "unknown": 1}


def test_an_old_heartbeat_put_back_costs_one_more_try(cluster: Cluster) -> None:
    """A stolen record of an earlier run: its challenge is not known to the node, and that is all."""
    key = cluster["node-a"].keys.heartbeat
    stolen = cluster.redis.hashes[key]
    owner = cluster["node-a"]
    owner.start()
    owner.is_alive = True
    owner.settle(pods=(A,))
    owner.beat()
    cluster.redis.hashes[key] = stolen
    got = ask(cluster)
    assert got[0].outcomes == ("failed",)
    assert owner.rig.open_now() == set()
    assert len(requests(cluster)) == 2


@pytest.mark.parametrize("challenge", ["x" * 60_000, "", "A B", "\n"])
def test_a_challenge_that_no_letter_could_carry_is_none(cluster: Cluster, challenge: str) -> None:
    """A node with the key does not choose how long our letters to it are."""
    owner = cluster["node-a"]
    owner.challenges.append(challenge)
    record = NodeRecord("node-a", owner.session, 9, challenge, "", FACTS)
    held = owner.sealed(owner.keys.heartbeat, record.fields())
    cluster.redis.hashes[owner.keys.heartbeat] = (held, cluster.clock() + 10)
    cluster["node-b"].remote._peers.lost()
    (answer,) = ask(cluster)
    assert answer.outcomes == ("failed",)
    assert requests(cluster) == []


def test_a_challenge_is_read_again_while_it_is_used(cluster: Cluster) -> None:
    """In the background; one that is too old is waited for."""
    ask(cluster)
    acknowledge(cluster)
    cluster.redis.run(peers.REFRESH_S + 0.1)
    cluster["node-a"].beat()
    ask(cluster)
    ask(cluster)
    cluster.redis.run(peers.FRESH_S + 0.1)
    cluster["node-a"].beat()
    ask(cluster)
    challenges = cluster["node-a"].challenges
    assert [challenges.index(each.challenge) for each in requests(cluster)] == [0, 0, 1, 2]


def test_redis_lost_ends_what_is_under_way(cluster: Cluster) -> None:
    """Requests that were sent, and those that wait for a challenge."""
    sent = ask(cluster)
    cluster.redis.run(peers.FRESH_S + 0.1)
    asker = cluster["node-b"]
    waiting = asker.ask(asker.rig.request("x.example.org", API, pod=A), A)
    asker.door.is_up = False
    asker.remote.redis_lost()
    assert [each[0].outcomes for each in (sent, waiting)] == [("failed",), ("failed",)]
    assert ask(cluster)[0].outcomes == ("failed",)
    cluster.redis.run()
    assert asker.remote.pending == 0


def test_what_redis_does_not_take_has_failed(cluster: Cluster) -> None:
    """Full, read-only: an error reply is no entry."""
    ask(cluster)
    asker = cluster["node-b"]
    original = cluster.redis.command
    cluster.redis.command = lambda words: "OOM" if words[0] == b"XADD" else original(words)  # type: ignore[method-assign]
    got = ask(cluster)
    assert got[0].outcomes == ("failed",)
    assert asker.remote.counts["lost"] == 1


def test_a_flood_of_the_resolver_stays_here(cluster: Cluster) -> None:
    """Hijacked, it asks as fast as it can: bounded in number and a second, the rest fails at once."""
    asker = cluster["node-b"]
    got = [asker.ask(asker.rig.request("api.example.org", API, pod=A), A) for _ in range(5000)]
    cluster.redis.run()
    assert len(requests(cluster)) == asking.BURST
    assert sum(1 for each in got if each and each[0].outcomes == ("failed",)) == 5000 - asking.BURST
    cluster.redis.run(0.5)
    assert len(ask(cluster)) == 0
    assert asker.remote.pending <= asking.MAX_OUTSTANDING


def test_more_addresses_than_a_letter_holds_are_beyond_the_limit(cluster: Cluster) -> None:
    """The first ones are asked for; the resolver leaves the others out and says why."""
    got = ask(cluster, *(f"93.184.{each // 256}.{each % 256}" for each in range(600)))
    assert len(requests(cluster)[0].addresses) == MAX_ADDRESSES
    acknowledge(cluster)
    assert got[0].outcomes == ("realized",) * MAX_ADDRESSES + ("limit",) * (600 - MAX_ADDRESSES)


@pytest.mark.parametrize(
    "change",
    [
        {"addresses": ()},
        {"addresses": (b"12345",)},
        {"name": "a" * 1025},
        {"ttl_s": 0},
        {"ttl_s": 10**9},
    ],
)
def test_what_no_resolver_asks_is_not_sent(cluster: Cluster, change: dict[str, object]) -> None:
    """A hijacked one does."""
    asker = cluster["node-b"]
    request = msgspec.structs.replace(asker.rig.request("api.example.org", API, pod=A), **change)
    got = asker.ask(request, A)
    cluster.redis.run()
    assert set(got[0].outcomes) <= {"failed", "denied"}
    assert requests(cluster) == []


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.dictionaries(
        st.one_of(
            st.sampled_from([*Acked(1, "a", "b", "c", (), 0.0, 0, "").fields()]), st.binary(max_size=20)
        ),
        st.one_of(st.binary(max_size=80), st.integers().map(lambda each: b"%d" % each), st.just(b"9" * 4000)),
        max_size=12,
    )
)
def test_any_octets_in_any_field_are_counted_and_nothing_else(
    cluster: Cluster, changed: dict[bytes, bytes]
) -> None:
    """Even from who has the key: no exception, no answer but to this request, at most once."""
    got = ask(cluster)
    asker = cluster["node-b"]
    before = sum(counts(asker).values())
    number = requests(cluster)[-1].id
    fields = Acked(number, "node-a", "node-b", asker.session, ("denied",), 0.0, 0, "").fields()
    write(cluster, {**fields, **changed})
    assert len(got) <= 1
    assert sum(counts(asker).values()) == before + 1 or got == []
    asker.remote.redis_lost()
    cluster.redis.run(1.0)
    cluster["node-a"].beat()
