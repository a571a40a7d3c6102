"""The owner: nothing of a letter is believed but the lookup it tells of, and that once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enforcer.authority import MAX_OPENINGS_ELSEWHERE
from enforcer.sharing.nodes import answering
from enforcer.sharing.nodes.letters import MAX_ADDRESSES, Asked, Claimed, letter_from
from enforcer.sharing.records.seal import Keyring, seal
from policy.addresses import to_packed
from policy.pods import Pod
from tests.enforcer.rig import API, OTHER, permit, policy
from tests.sharing.neighbours import Cluster, Entry, Node

A = Pod(namespace="mcp", name="a", uid="uid-a", addresses=("100.64.0.2", "2a00:1::2"), node="node-a")
C = Pod(namespace="mcp", name="c", uid="uid-c", addresses=("100.64.0.4",), node="node-a", labels={"x": "y"})


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """node-a has the pods; the test writes what the others write."""
    return Cluster(tmp_path, "node-a").settle(pods=(A, C))


@pytest.fixture
def owner(cluster: Cluster) -> Node:
    """The pods' node."""
    return cluster["node-a"]


def letter(owner: Node, seq: int = 1, **changed: object) -> Asked:
    """A letter as an honest node-b writes it, some of it changed."""
    made = Asked(
        seq, "node-b", "5e55", seq, "node-a", owner.challenges[-1], to_packed("100.64.0.2"), "uid-a",
        "api.example.org", (to_packed(API),), 60,
    )  # fmt: skip
    return made._replace(**changed)  # type: ignore[arg-type]


def write(owner: Node, asked: Asked | Claimed | dict[bytes, bytes], age_s: float = 0.0) -> None:
    """Seal and write it, as who has the key; what follows happens."""
    fields = asked if isinstance(asked, dict) else asked.fields()
    put(owner, owner.sealed(owner.keys.requests, fields), age_s)


def put(owner: Node, record: dict[bytes, bytes], age_s: float = 0.0) -> None:
    """Write a record as it is; what follows happens."""
    owner.cluster.redis.add(owner.keys.requests, record, age_s)
    owner.cluster.run()


def acks(owner: Node, node: str = "node-b") -> list[tuple[str, ...]]:
    """The outcomes that were written for a node."""
    stream = owner.keys.of(node).acks
    found = [letter_from(fields) for _, fields in owner.cluster.redis.streams.get(stream, [])]
    return [each.outcomes for each in found]  # type: ignore[union-attr]


def counts(owner: Node) -> dict[str, int]:
    """What it counted."""
    return {word: count for word, count in owner.remote.counts.items() if count}


def test_an_honest_letter_is_answered(owner: Node) -> None:
    """The base of all that follows."""
    write(owner, letter(owner))
    assert acks(owner) == [("realized",)]
    assert len(owner.rig.open_now()) == 1


# --- without the key -----------------------------------------------------------------------------


def test_without_the_key_nothing_is_asked(owner: Node) -> None:
    """Forged, sealed by another key, altered in any field, taken from another stream."""
    fields = letter(owner).fields()
    mine = owner.sealed(owner.keys.requests, fields)
    other = {**mine, b"mac": seal(Keyring(b"another key, as long"), owner.keys.requests, mine)}
    moved = owner.sealed(owner.keys.of("node-b").requests, fields)
    for record in (fields, {}, {**mine, b"mac": b"0" * 32}, other, moved, {**mine, b"more": b"1"}):
        put(owner, record)
    for name in mine:
        put(owner, {**mine, name: mine[name] + b"1"})
        put(owner, {each: value for each, value in mine.items() if each != name})
    assert owner.rig.open_now() == set()
    assert acks(owner) == []
    assert set(counts(owner)) == {"forged", "malformed", "version"}


def test_a_stolen_record_counts_once(owner: Node) -> None:
    """Within the session: the same letter again, and an older one after it."""
    first, second = (owner.sealed(owner.keys.requests, letter(owner, seq).fields()) for seq in (1, 2))
    put(owner, second)
    put(owner, second)
    put(owner, first)
    assert len(acks(owner)) == 1
    assert counts(owner)["replayed"] == 2


def test_a_stolen_record_of_an_earlier_run_of_the_owner(owner: Node) -> None:
    """After its restart nothing is remembered, and nothing needs to be: the challenge is another."""
    stolen = owner.sealed(owner.keys.requests, letter(owner).fields())
    owner.start()
    owner.settle(pods=(A, C))
    owner.beat()
    put(owner, stolen)
    assert owner.rig.open_now() == set()
    assert counts(owner)["challenge"] == 1


def test_a_stolen_record_of_an_earlier_run_of_the_asker(owner: Node) -> None:
    """Its session is remembered beside the new one; so many sessions are, and the challenge ends the rest."""
    old = [letter(owner, 5, session=f"5e55{each}") for each in range(4)]
    for each in old:
        write(owner, each)
    for each in old:
        write(owner, each)
    assert counts(owner)["replayed"] == 4
    for _ in range(8):
        owner.beat()
    write(owner, old[0]._replace(session="0ther", seq=9))
    assert counts(owner)["challenge"] == 1


def test_a_number_made_up_for_somebody_else_ends_with_its_challenge(owner: Node) -> None:
    """A compromised node writes the largest number in node-b's name: node-b is refused for seconds only."""
    write(owner, letter(owner, 10**17 - 1))
    write(owner, letter(owner, 2))
    assert counts(owner)["replayed"] == 1
    owner.beat()
    write(owner, letter(owner, 3))
    assert acks(owner)[-1] == ("realized",)


def test_what_was_seen_is_bounded(owner: Node) -> None:
    """Any number of sessions in one asker's name."""
    for number in range(answering.MAX_SEEN + 50):
        write(owner, letter(owner, 1, session=f"s{number}"))
    (asker,) = owner.remote._answering._askers.values()
    assert len(asker.seen) == answering.MAX_SEEN


def test_an_old_letter_is_not_answered(owner: Node) -> None:
    """By Redis's clock: a consumer that was away does not answer what nobody waits for."""
    write(owner, letter(owner), age_s=owner.hold_s + 0.1)
    assert owner.rig.open_now() == set()
    assert counts(owner) == {"stale": 1}


def test_a_letter_of_the_future_is_young(owner: Node) -> None:
    """Redis's clock was set back, or somebody chose the id: the challenge says that it is not old."""
    write(owner, letter(owner), age_s=-1000.0)
    assert acks(owner) == [("realized",)]


@pytest.mark.parametrize("changed", [{"to": "node-c"}, {"node": "node-a"}])
def test_a_letter_for_somebody_else(owner: Node, changed: dict[str, object]) -> None:
    """With the key, into this stream: neither another's nor our own."""
    write(owner, letter(owner, **changed))
    assert counts(owner) == {"misdirected": 1}


def test_another_version_is_ignored_and_counted(owner: Node) -> None:
    """And an unknown field of this one is no reason to."""
    put(owner, {**owner.sealed(owner.keys.requests, letter(owner).fields()), b"v": b"2"})
    assert counts(owner) == {"version": 1}
    write(owner, {**letter(owner).fields(), b"unknown": b"field"})
    assert acks(owner) == [("realized",)]


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "a" * 1025},
        {"uid": "u" * 257},
        {"addresses": tuple(bytes((93, 1, each // 256, each % 256)) for each in range(MAX_ADDRESSES + 1))},
        {"ttl_s": 0},
        {"ttl_s": 86401},
        {"node": "Node_B"},
        {"node": "b}:acks"},
        {"challenge": ""},
    ],
)
def test_what_is_larger_or_other_than_a_node_writes(owner: Node, changed: dict[str, object]) -> None:
    """Also from who has the key."""
    write(owner, letter(owner, **changed))
    assert owner.rig.open_now() == set()
    assert counts(owner) == {"malformed": 1}


def test_a_huge_record_is_not_looked_at(owner: Node) -> None:
    """Before any MAC is made."""
    put(owner, {**owner.sealed(owner.keys.requests, letter(owner).fields()), b"junk": b"x" * 70000})
    assert counts(owner) == {"malformed": 1}


# --- a node that has the key ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "outcome"),
    [
        ({"name": "evil.example.com"}, "denied"),
        ({"name": ""}, "denied"),
        ({"name": "\x1b[31m.example.org\n"}, "denied"),
        ({"addresses": (to_packed("169.254.169.254"),)}, "denied"),
        ({"addresses": (to_packed("10.0.0.1"),)}, "denied"),
        ({"addresses": (to_packed("::ffff:10.0.0.1"),)}, "denied"),
        ({"uid": "uid-b"}, "failed"),
        ({"source": to_packed("100.64.0.99")}, "failed"),
        ({"source": to_packed("127.0.0.1")}, "failed"),
    ],
)
def test_a_compromised_node_opens_nothing_beyond_policy(
    owner: Node, changed: dict[str, object], outcome: str
) -> None:
    """Names, addresses and pods that the owner's policy does not permit."""
    write(owner, letter(owner, **changed))
    assert owner.rig.open_now() == set()
    assert [set(each) for each in acks(owner)] in ([{outcome}], [])


def test_it_opens_for_one_pod_what_that_pods_rule_permits(owner: Node) -> None:
    """Asked for C, whose policies permit no name: nothing; for A: that rule's port, no other."""
    strict = policy(permit("*.example.org"))
    only_a = Pod(namespace="other", name="c", uid="uid-c", addresses=C.addresses, node="node-a")
    owner.settle(strict, pods=(A, only_a))
    owner.beat()
    write(owner, letter(owner, 1, source=to_packed(C.addresses[0]), uid="uid-c"))
    assert acks(owner) == [("denied",)]
    write(owner, letter(owner, 2))
    ((name, key),) = owner.rig.open_now()
    assert (name, key[:4], key[-4:-2]) == ("grants4", to_packed("100.64.0.2"), (443).to_bytes(2, "big"))


def test_it_takes_no_grant_away(owner: Node) -> None:
    """Whatever it asks, what is open stays: requests add, or do nothing."""
    write(owner, letter(owner, 1))
    held = owner.rig.open_now()
    for seq, changed in enumerate(
        ({"ttl_s": 1}, {"name": "evil.example.com"}, {"addresses": (to_packed(OTHER),)}, {"uid": "x"}), 2
    ):
        write(owner, letter(owner, seq, **changed))
    assert held <= owner.rig.open_now()


def test_the_pods_limit_of_grants_holds(tmp_path: Path) -> None:
    """100 a pod in this rig: the rest is beyond the limit, for it as for our own resolver."""
    owner = Cluster(tmp_path, "node-a").settle(pods=(A, C))["node-a"]
    for seq in range(1, 5):
        addresses = tuple(bytes((93, 184, seq, each)) for each in range(1, 60))
        write(owner, letter(owner, seq, addresses=addresses))
    assert len(owner.rig.open_now()) == 100
    assert acks(owner)[-1] == ("limit",) * 59


def test_its_flood_is_its_own(owner: Node) -> None:
    """Beyond its budget it is not answered; another node still is."""
    for seq in range(1, 1200):
        owner.cluster.redis.add(
            owner.keys.requests, owner.sealed(owner.keys.requests, letter(owner, seq).fields())
        )
    owner.cluster.run()
    assert len(acks(owner)) <= answering.ASKER_BURST
    assert counts(owner)["budget"] >= 1199 - answering.ASKER_BURST
    write(owner, letter(owner, 1, node="node-c"))
    assert acks(owner, "node-c") == [("realized",)]


def test_wide_permits_cost_who_asks_for_them(tmp_path: Path) -> None:
    """An address of a rule with all ports is hundreds of elements: other nodes' letters pay for each.

    Under one name or under many: what is opened for all of them in a second is bounded.
    """
    wide = policy(permit("*.example.org", first=1, last=65534))
    owner = Cluster(tmp_path, "node-a").settle(wide, pods=(A, C))["node-a"]
    owner.rig.authority.limits = owner.rig.authority.limits._replace(per_pod=10_000, total=10_000)
    again = (to_packed(API),)
    for seq in range(1, 101):
        write(owner, letter(owner, seq, addresses=again))
    assert counts(owner)["budget"] > 0
    began = owner.rig.authority.outcomes["realized"]
    for number in range(500):
        write(owner, letter(owner, 1, node=f"node-{number}", addresses=again))
    owner.turn()
    width = len(owner.rig.open_now())
    opened = (owner.rig.authority.outcomes["realized"] - began) * width
    assert opened <= answering.OPENED_BURST + MAX_OPENINGS_ELSEWHERE
    assert owner.remote.waiting == 0, "the loop is not turned for nothing"
    owner.cluster.run(0.5)
    assert (owner.rig.authority.outcomes["realized"] - began) * width > opened
    owner.cluster.run(2.0)
    write(owner, letter(owner, 1, node="node-c", addresses=again))
    assert acks(owner, "node-c") == [("realized",)]


def test_large_letters_cost_more(owner: Node) -> None:
    """512 addresses count as seventeen letters."""
    addresses = tuple(bytes((93, 184, each // 256, each % 256)) for each in range(MAX_ADDRESSES))
    for seq in range(1, 101):
        write(owner, letter(owner, seq, addresses=addresses))
    assert len(acks(owner)) <= answering.ASKER_BURST / 17 + 1


def test_garbage_costs_a_bounded_time_a_second(owner: Node) -> None:
    """Who has no key floods the stream: beyond a bound nothing is even looked at."""
    for _ in range(5000):
        owner.cluster.redis.add(owner.keys.requests, {b"v": b"1", b"mac": b"0" * 32, b"kind": b"grant"})
    owner.cluster.run()
    assert counts(owner) == {"forged": answering.LETTERS_BURST, "flood": 5000 - answering.LETTERS_BURST}
    owner.cluster.clock.at += 1.0
    owner.beat()
    write(owner, letter(owner))
    assert acks(owner) == [("realized",)]


def test_long_letters_are_looked_at_less_often(owner: Node) -> None:
    """Without the key or with it, under however many names: what takes long to read costs as much."""
    stream = owner.keys.requests
    junk = Entry(b"1-1", 0, {b"v": b"1", b"mac": b"0" * 32, b"kind": b"grant", b"name": b"x" * 60_000})
    owner.remote._answering.came(stream, [junk] * 64)
    assert counts(owner) == {"forged": 2, "flood": 62}
    owner.cluster.clock.at += 1.0
    owner.beat()
    many = tuple(
        to_packed(f"2001:db8:1234:5678:9abc:def0:1234:{each + 0x1000:x}") for each in range(MAX_ADDRESSES)
    )
    entries = [
        Entry(b"1-1", 0, owner.sealed(stream, letter(owner, node=f"n{each}", addresses=many).fields()))
        for each in range(64)
    ]
    owner.remote._answering.came(stream, entries)
    assert owner.remote.waiting < 8


def test_a_turn_has_few_addresses_of_other_nodes(owner: Node) -> None:
    """A lookup of this node waits no longer than for these, whatever a node with the key asks."""
    stream = owner.keys.requests
    addresses = tuple(bytes((93, 184, each // 256, each % 256)) for each in range(MAX_ADDRESSES))
    for node in "bcdefghi":
        entry = Entry(b"1-1", 0, owner.sealed(stream, letter(owner, node=node, addresses=addresses).fields()))
        owner.remote._answering.came(stream, [entry])
    assert owner.remote.waiting == 8
    owner.hub.came()
    assert owner.remote.waiting == 6
    while owner.remote.waiting:
        owner.turn()
    assert owner.remote.counts["answered"] == 8


def test_a_thousand_names_of_askers_fill_no_table(owner: Node) -> None:
    """One node with the key writes as many as it likes: the oldest idle one makes room."""
    asking = owner.remote._answering
    for number in range(answering.MAX_ASKERS + 200):
        if number % 1000 == 999:
            owner.cluster.clock.at += 1.0
            owner.beat()
        write(owner, letter(owner, 1, node=f"n{number}"))
    assert len(asking._askers) == answering.MAX_ASKERS


def test_requests_wait_in_turn(owner: Node) -> None:
    """Of two askers each gets every second place, however much one has sent; a turn takes a share."""
    asking = owner.remote._answering
    stream = owner.keys.requests
    for node, many in (("node-b", 300), ("node-c", 10)):
        entries = [
            Entry(b"1-1", 0, owner.sealed(stream, letter(owner, seq, node=node).fields()))
            for seq in range(1, many + 1)
        ]
        asking.came(stream, entries)
    assert owner.remote.waiting == answering.MAX_QUEUED_OF_ONE + 10
    taken = owner.remote.take(20, 10_000)
    askers = [asking._taken[each.id].node for each in taken]
    assert askers == ["node-b", "node-c"] * 10
    assert len(owner.remote.take(1000, 50)) == 50
    owner.hub.came()
    owner.cluster.run(0.2)
    assert owner.remote.waiting == 0


def test_what_waited_while_redis_was_lost_is_dropped(owner: Node) -> None:
    """Its askers have given up."""
    stream = owner.keys.requests
    entry = Entry(b"1-1", 0, owner.sealed(stream, letter(owner).fields()))
    owner.remote._answering.came(stream, [entry])
    owner.remote.redis_lost()
    assert owner.remote.waiting == 0
    owner.hub.came()
    assert owner.rig.open_now() == set()


def test_a_key_is_changed_without_a_gap(owner: Node) -> None:
    """Both keys are believed for a while; the old one alone no more."""
    old, new = (
        Keyring(b"the key of the cluster"),
        Keyring(b"a new key of the cluster", b"the key of the cluster"),
    )
    stream, fields = owner.keys.requests, letter(owner, 1).fields()
    record = {**fields, b"v": b"1"}
    record[b"mac"] = seal(old, stream, record)
    owner.keyring = new
    put(owner, record)
    assert acks(owner) == [("realized",)]
    owner.keyring = Keyring(b"a new key of the cluster")
    record = {**letter(owner, 2).fields(), b"v": b"1"}
    record[b"mac"] = seal(old, stream, record)
    put(owner, record)
    assert counts(owner)["forged"] == 1


def test_a_world_that_is_not_in_force_decides_nothing(owner: Node) -> None:
    """The kernel refuses the change: what is asked is decided by the world before."""
    write(owner, letter(owner, 1))
    owner.rig.kernel.refuse(12)  # the change would take that grant away
    owner.rig.apply(policy(permit("*.example.net")), pods=(A, C))
    write(owner, letter(owner, 2, name="api.example.net"))
    write(owner, letter(owner, 3))
    assert acks(owner) == [("realized",), ("denied",), ("realized",)]
    owner.settle(policy(permit("*.example.net")), pods=(A, C))
    write(owner, letter(owner, 4, name="api.example.net"))
    assert acks(owner)[-1] == ("realized",)


VALUES = st.one_of(
    st.binary(max_size=80),
    st.integers().map(lambda each: b"%d" % each),
    st.sampled_from([b"", b"claim", b"grant", b"ack", b"node-b", b"1.2.3.4 " * 3, b"9" * 4000, b"\xff" * 9]),
)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.dictionaries(
        st.one_of(
            st.sampled_from(
                [b"kind", b"from", b"session", b"seq", b"to", b"challenge", b"id", b"podIP", b"uid", b"name",
                 b"addresses", b"ttl", b"generation"]
            ),
            st.binary(max_size=20),
        ),
        VALUES,
        max_size=14,
    )
)  # fmt: skip
def test_any_octets_in_any_field_open_nothing_new(owner: Node, changed: dict[bytes, bytes]) -> None:
    """Even from who has the key: no exception; what opens is for the pod, the name's rule, its port."""
    owner.cluster.clock.at += 1.0
    owner.beat()
    fields = letter(owner, int(owner.cluster.clock.at)).fields()
    write(owner, {**fields, **changed})
    for name, key in owner.rig.open_now():
        assert name in {"grants4", "grants6"}
        assert key[-4:-2] == (443).to_bytes(2, "big")


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.binary(max_size=12), st.binary(max_size=60), max_size=8))
def test_reading_any_fields_gives_a_letter_or_a_doubt(fields: dict[bytes, bytes]) -> None:
    """And what is read is written as it was."""
    from enforcer.sharing.records.seal import NotBelieved

    try:
        read = letter_from({b"kind": b"claim", **fields})
    except NotBelieved:
        return
    assert read.fields().items() <= {b"kind": b"claim", **fields}.items()
