"""What a node shares equals what it holds: whatever happened to either, and to the way between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.blocked import Refused
from enforcer.demo.stores import Store
from enforcer.ledger import Holding, Past
from enforcer.sharing.publishing import publisher as publishing
from enforcer.sharing.publishing.composing import FIELDS, OWN_FIELDS
from enforcer.sharing.publishing.grants import WALKED
from enforcer.sharing.publishing.pods import PodFacts
from enforcer.sharing.publishing.publisher import MOST_UNANSWERED, PIECE
from enforcer.sharing.publishing.refused import ROOM
from enforcer.sharing.records.formats import blocked_from, node_from, pod_from
from enforcer.sharing.records.roll import KEPT_MS, seen_ms, seen_octets
from enforcer.sharing.records.seal import Keyring, NotBelieved, check
from enforcer.terms import NEVER, term_of
from policy.addresses import to_packed
from policy.grants import Reason
from tests.sharing.publishing import A4, A6, B4, SLOWED, SharingNode, identity, opening

TO, OTHER, TO6 = (to_packed(text) for text in ("203.0.113.7", "203.0.113.8", "2001:db8::7"))
SOON_S = publishing.FLUSH_S + 0.01
"""Within it a change is written."""
TWICE_S = 2 * publishing.FLUSH_S + 0.01
"""Within it a change is written again that met something else."""
RETURN_S = 5.0
"""So long after Redis is back it equals the truth."""


@pytest.fixture
def node(lasting_store: Store) -> Iterator[SharingNode]:
    """A node whose Redis is empty and not there yet."""
    made = SharingNode(lasting_store)
    made.door.redis.flushall()
    yield made
    made.close()


@pytest.fixture
def up(node: SharingNode) -> SharingNode:
    """A node that has its Redis, and a pod."""
    node.ledger.open_account(identity(A4))
    node.up()
    node.run(0.5)
    node.door.commands.clear()
    return node


def said(node: SharingNode) -> list[bytes]:
    """The commands about grants since the last look, by their names."""
    names = [parts[0] for parts in node.door.commands if b":grant:" in parts[1]]
    node.door.commands.clear()
    return names


def open_(
    node: SharingNode, destination: bytes = TO, for_s: float = 60.0, reason: str = "a", **more: Any
) -> None:
    """Open a destination for pod a."""
    now = node.clock()
    account = node.ledger.accounts[A6 if len(destination) == 16 else A4]
    node.ledger.adopt(opening(account, destination, now + for_s, reason, **more), now)


class TestGrants:
    """One grant's way."""

    def test_written(self, up: SharingNode) -> None:
        """Soon after it was opened, as the contract has it."""
        open_(up, reason="api.example.com")
        up.run(SOON_S)
        (key,) = up.shared()
        assert key == b"nameward:default:{node-a}:grant:10.0.0.1:203.0.113.7:tcp:443"
        fields: Any = up.door.redis.hgetall(key)
        assert {name: value for name, value in fields.items() if name != b"mac"} == {
            b"generation": b"3",
            b"namespace": b"mcp",
            b"node": b"node-a",
            b"pod": b"a",
            b"realizedAt": b"at 1000.500",
            b"reasons": b"api.example.com mcp/web/allow 59.9",
            b"reasons2": b"",
            b"session": b"0123abcd",
            b"uid": b"uid-a",
            b"v": b"1",
        }
        assert up.door.redis.object("encoding", key) in {b"listpack", b"ziplist"}
        assert 59_800 < up.door.redis.pttl(key) / SLOWED <= 60_000
        assert said(up) == [b"HSET", b"PEXPIRE"]

    def test_the_short_way_writes_what_the_long_way_says(self, up: SharingNode) -> None:
        """Fields and their order, for one reason and for several, and texts of strangers."""
        up.ledger.open_account(identity(A6, "uid-\x1b[31m", "m\u202ecp/a b"))
        for reason in ("x y", "é; z", "p%"):
            open_(up, TO6, 50.0 + len(reason), reason, first=100, last=300)
        open_(up, reason="\x00/")
        up.run(SOON_S)
        written = {
            parts[1]: dict(zip(parts[2::2], parts[3::2], strict=True))
            for parts in up.door.commands
            if parts[0] == b"HSET" and b":grant:" in parts[1]
        }
        assert written
        for key, fields in written.items():
            record = up.record(key)
            said_long = {**record.fields(), b"v": b"1"}
            assert list(fields) == [*said_long, b"mac"]
            assert {name: value for name, value in fields.items() if name != b"mac"} == said_long
        assert up.differences() == {}

    def test_renewed(self, up: SharingNode) -> None:
        """One command, whatever the number of renewals since the last look."""
        open_(up)
        up.run(SOON_S)
        said(up)
        for for_s in (70.0, 80.0, 90.0):
            open_(up, for_s=for_s)
        up.run(SOON_S)
        assert said(up) == [b"PEXPIRE"]
        assert up.differences() == {}

    def test_renewed_when_its_record_is_gone(self, up: SharingNode) -> None:
        """Somebody has removed it (or Redis evicted it): it is written again."""
        open_(up)
        up.run(SOON_S)
        up.door.redis.delete(*up.wanted())
        open_(up, for_s=90.0)
        up.run(TWICE_S)
        assert up.differences() == {}

    @pytest.mark.parametrize("garbage", ["string", "list", "other"])
    def test_something_lies_there(self, up: SharingNode, garbage: str) -> None:
        """It is replaced: at the first writing, and when another reason is written."""
        key = b"nameward:default:{node-a}:grant:10.0.0.1:203.0.113.7:tcp:443"
        spoil(up, key, garbage)
        open_(up)
        up.run(TWICE_S)
        assert up.differences() == {}
        assert up.wanted()
        spoil(up, key, garbage)
        open_(up, reason="b")
        up.run(TWICE_S)
        assert up.differences() == {}
        assert up.publisher.rejected == 0
        said(up)
        open_(up, for_s=70.0, reason="b")
        up.run(TWICE_S)
        assert said(up) == [b"HSET", b"PEXPIRE"]

    def test_another_reason(self, up: SharingNode) -> None:
        """Joins, and its record says so; later it ends while the first goes on."""
        open_(up, for_s=60.0, reason="long")
        up.run(SOON_S)
        open_(up, for_s=20.0, reason="short")
        up.run(SOON_S)
        assert len(up.record(next(iter(up.shared()))).reasons) == 2
        up.run(25.0)
        assert up.differences() == {}
        open_(up, for_s=60.0, reason="long")
        up.run(SOON_S)
        assert [each.name for each in up.record(next(iter(up.shared()))).reasons] == ["long"]
        said(up)
        open_(up, for_s=70.0, reason="long")
        up.run(SOON_S)
        assert said(up) == [b"PEXPIRE"]

    def test_one_of_several_is_renewed(self, up: SharingNode) -> None:
        """The others' time runs on: a reader can tell when they are over."""
        open_(up, for_s=60.0, reason="long")
        open_(up, for_s=30.0, reason="short")
        up.run(10.0)
        open_(up, for_s=60.0, reason="long")
        up.run(15.0)
        assert up.differences() == {}
        up.run(10.0)
        assert up.differences() == {}

    def test_revoked(self, up: SharingNode) -> None:
        """Its record goes with it."""
        open_(up)
        up.run(SOON_S)
        said(up)
        up.ledger.replace(up.ledger.accounts[A4], [])
        up.run(SOON_S)
        assert said(up) == [b"UNLINK"]
        assert up.shared() == {}

    def test_its_time_is_over(self, up: SharingNode) -> None:
        """Nothing is to be written: it has expired there too."""
        open_(up, for_s=30.0)
        up.run(SOON_S)
        said(up)
        up.run(40.0)
        account = up.ledger.accounts[A4]
        holding = next(account.holdings())
        up.ledger.forget(account, holding, Past(next(iter(holding.reasons)), holding.until, revoked=False))
        up.run(1.0)
        assert said(up) == []
        assert up.shared() == {}

    def test_revoked_before_it_was_written(self, up: SharingNode) -> None:
        """Costs nothing."""
        open_(up)
        up.ledger.close_account(A4)
        up.run(TWICE_S)
        assert said(up) == []

    def test_a_revision_that_changes_nothing(self, up: SharingNode) -> None:
        """Costs nothing, whatever the generation."""
        open_(up)
        up.run(SOON_S)
        said(up)
        account = up.ledger.accounts[A4]
        up.generation += 1
        up.ledger.replace(account, [copy_of(each) for each in account.holdings()])
        up.run(TWICE_S)
        assert said(up) == []
        open_(up, for_s=90.0)
        up.run(TWICE_S)
        assert said(up) == [b"PEXPIRE"]

    def test_decided_by_another_rule(self, up: SharingNode) -> None:
        """A revision that keeps a grant for another reason writes it anew, with its generation."""
        open_(up)
        up.run(SOON_S)
        account = up.ledger.accounts[A4]
        up.generation += 1
        (holding,) = account.holdings()
        other = Reason("a", "mcp/other", "rule")
        up.ledger.replace(account, [copy_of(holding, reasons={other: holding.until})])
        up.run(SOON_S)
        ((key, shown),) = up.shared().items()
        assert list(shown.reasons) == [other]
        assert up.record(key).generation == 4

    def test_another_pod_at_the_address(self, up: SharingNode) -> None:
        """Its grants are its own, the old one's are gone."""
        open_(up)
        open_(up, OTHER)
        up.run(SOON_S)
        up.ledger.open_account(identity(A4, "uid-b", "mcp/b"))
        open_(up)
        up.run(SOON_S)
        (shown,) = up.shared().values()
        assert (shown.pod, shown.uid, shown.address) == ("mcp/b", "uid-b", "203.0.113.7")

    def test_many_at_once(self, up: SharingNode) -> None:
        """Go in pieces; what is opened meanwhile does not wait for all of them."""
        account = up.ledger.accounts[A4]
        many = [
            each
            for number in range(2000)
            for each in opening(account, number.to_bytes(4, "big"), up.clock() + 60)
        ]
        up.ledger.adopt(many, up.clock())
        up.run(2.0)
        assert up.door.largest <= 3 * PIECE
        assert up.differences() == {}
        assert len(up.wanted()) == 2000

    def test_two_thousand_a_second_travel_together(self, up: SharingNode) -> None:
        """What a transaction costs is shared by some two hundred: ten a second, of two commands a grant."""
        account, written = up.ledger.accounts[A4], up.door.transactions
        for turn in range(500):
            far = [bytes((203, turn >> 8, turn & 255, number)) for number in range(4)]
            up.ledger.adopt(
                [each for one in far for each in opening(account, one, up.clock() + 60)], up.clock()
            )
            up.run(0.002)
        up.run(SOON_S)
        about_grants = [parts[0] for parts in up.door.commands if b":grant:" in parts[1]]
        assert Counter(about_grants) == {b"HSET": 2000, b"PEXPIRE": 2000}
        assert up.door.transactions - written <= 11 + 2, "of grants, and heartbeats"
        up.door.commands.clear()
        later = up.clock() + 90
        up.ledger.adopt(
            [again for each in account.holdings() for again in opening(account, each.destination, later)],
            up.clock(),
        )
        up.run(SOON_S + 0.02)
        assert Counter(parts[0] for parts in up.door.commands if b":grant:" in parts[1]) == {b"PEXPIRE": 2000}

    def test_an_answer_costs_marks_alone(self, up: SharingNode) -> None:
        """Nothing is sent within the turn that opens."""
        open_(up)
        assert up.door.backlog == 0


def copy_of(holding: Holding, **changes: Any) -> Holding:
    """A holding as a revision copies it."""
    until, reasons = changes.get("until", holding.until), changes.get("reasons", holding.reasons)
    term = term_of(holding.way, reasons, until, holding.realized_at)
    return Holding(holding.account, holding.destination, term)


class TestReturn:
    """Redis comes back, in whatever state."""

    def test_what_changed_meanwhile(self, up: SharingNode) -> None:
        """Is there, or gone, after its return."""
        for destination in (TO, OTHER):
            open_(up, destination)
        up.run(TWICE_S)
        up.lose()
        account = up.ledger.accounts[A4]
        up.ledger.forget(account, next(account.holdings()), None)
        open_(up, B4)
        up.run(3.0)
        up.up()
        up.run(RETURN_S)
        assert up.differences() == {}
        assert len(up.wanted()) == 2

    @pytest.mark.parametrize("shortened", [False, True])
    def test_from_an_old_copy(self, up: SharingNode, *, shortened: bool) -> None:
        """What was revoked, and acknowledged, may be back: it is taken away again."""
        open_(up)
        up.run(TWICE_S)
        (key,) = up.shared()
        dump = up.door.redis.dump(key)
        account = up.ledger.accounts[A4]
        if shortened:
            (holding,) = account.holdings()
            up.ledger.replace(account, [copy_of(holding, until=up.clock() + 2.0)])
            up.run(TWICE_S)
        up.ledger.replace(account, [])
        up.run(5.0)
        up.lose()
        up.door.redis.restore(key, 0, dump)  # type: ignore[arg-type]
        up.door.ends[key] = up.clock() + 50
        up.up()
        up.run(RETURN_S)
        assert up.shared() == {}

    def test_flushed_while_it_is_there(self, up: SharingNode) -> None:
        """The next heartbeat shows it, and everything is written again; a second time too."""
        open_(up)
        up.run(2.0)
        for _ in range(2):
            up.door.redis.flushall()
            up.door.ends.clear()
            up.run(RETURN_S)
            assert up.differences() == {}
            assert up.wanted()
            assert up.door.redis.exists(up.keys.heartbeat, up.keys.pod(A4), up.keys.nodes) == 3

    def test_always_flushed(self, up: SharingNode) -> None:
        """Whoever empties it every second cannot make the node write everything every second."""
        open_(up)
        before = up.publisher.resyncs
        for _ in range(40):
            up.door.redis.flushall()
            up.run(1.0)
        assert up.publisher.resyncs - before < 14

    @pytest.mark.parametrize("garbage", ["string", "list", "other", "more"])
    def test_others_content_under_our_keys(self, up: SharingNode, garbage: str) -> None:
        """Of any type, sealed or not: it is replaced."""
        open_(up)
        up.run(TWICE_S)
        keys = [*up.shared(), up.keys.heartbeat, up.keys.pod(A4), up.keys.nodes]
        up.lose()
        for key in [*keys, up.keys.blocked, up.keys.requests, up.keys.acks]:
            spoil(up, key, garbage)
        up.blocked.add(refused("x"))
        up.up()
        up.run(12.0)
        assert up.differences() == {}
        assert up.wanted()
        believe(up)
        assert up.door.redis.xlen(up.keys.blocked) == 1
        for stream in (up.keys.requests, up.keys.acks):
            assert up.door.redis.type(stream) == b"none"

    def test_an_earlier_enforcers(self, node: SharingNode) -> None:
        """And a stranger's: keys under this node's name that nobody here stands for go; others stay."""
        redis = node.door.redis
        ours = node.keys.own
        for tail in (b"grant:10.0.0.1:1.2.3.4:tcp:1", b"grant:nonsense", b"pod:10.9.9.9", b"future", b""):
            redis.set(ours + tail, b"x")
        stays = (b"nameward:default:{node-b}:pod:10.9.9.9", b"nameward:other:{node-a}:node", b"foreign")
        for key in stays:
            redis.set(key, b"x")
        node.ledger.open_account(identity(A4))
        open_(node)
        open_(node, OTHER, for_s=-1.0)
        redis.set(ours + b"grant:10.0.0.1:203.0.113.8:tcp:443", b"x")
        node.up()
        node.run(RETURN_S)
        assert node.differences() == {}
        assert set(redis.scan_iter(ours + b"*")) == {
            *node.wanted(), node.keys.heartbeat, node.keys.pod(A4), node.keys.pod(A6)
        }  # fmt: skip
        assert redis.exists(*stays) == 3

    def test_lost_again_and_again(self, up: SharingNode) -> None:
        """In the middle of writing everything, executed or not."""
        for number in range(300):
            open_(up, number.to_bytes(4, "big"))
        for executed in (True, False, True):
            up.run(publishing.FLUSH_S + 0.005)
            up.lose(executed=executed)
            up.ledger.forget(up.ledger.accounts[A4], next(up.ledger.accounts[A4].holdings()), None)
            up.up()
        up.run(RETURN_S)
        assert up.differences() == {}

    def test_refused(self, up: SharingNode) -> None:
        """What Redis refuses is counted, and everything is tried again, ever more seldom."""
        open_(up)
        up.door.refuses = True
        before = up.publisher.resyncs
        up.run(60.0)
        assert 10 < up.publisher.rejected < 60
        assert up.publisher.resyncs - before < 20
        open_(up, OTHER)
        up.door.refuses = False
        up.run(RETURN_S)
        assert up.differences() == {}
        assert up.wanted()

    def test_the_copies_of_one_pods_first_record(self, up: SharingNode) -> None:
        """Of a piece, one record a pod is written whole: Redis copies it and is told what differs."""
        for source in (A4, B4):
            account = up.ledger.accounts.get(source) or up.ledger.open_account(
                identity(source, "uid-b", "mcp/b")
            )
            for number in range(WALKED):
                far = bytes((203, 0, 113, number))
                up.ledger.adopt(
                    opening(account, far, up.clock() + 100 + number, f"h{number}.example"), up.clock()
                )
        up.run(1.0)
        up.lose()
        up.door.redis.flushall()
        up.door.ends.clear()
        up.door.commands.clear()
        up.up()
        up.run(1.0)
        assert up.differences() == {}
        assert len(up.wanted()) == 2 * WALKED
        about_grants = [each for each in up.door.commands if b":grant:" in each[1]]
        counts = Counter(each[0] for each in about_grants)
        assert counts == {b"UNLINK": 2, b"COPY": 2 * WALKED - 2, b"HSET": 2 * WALKED, b"PEXPIRE": 2 * WALKED}
        assert Counter(len(each) for each in about_grants if each[0] == b"HSET") == {
            2 + 2 * FIELDS: 2,
            2 + 2 * OWN_FIELDS: 2 * WALKED - 2,
        }
        octets = sum(len(part) + 9 for each in about_grants for part in each)
        assert octets / (2 * WALKED) < 560, "on the wire; written whole they are 640"

    @pytest.mark.parametrize("garbage", ["string", "list", "more", "less"])
    def test_a_copy_replaces_whatever_lies_there(self, up: SharingNode, garbage: str) -> None:
        """Others' content, under every key: after the return of Redis each record is ours alone."""
        account = up.ledger.accounts[A4]
        for number in range(10):
            up.ledger.adopt(opening(account, bytes((203, 0, 113, number)), up.clock() + 100), up.clock())
        up.run(1.0)
        up.lose()
        for key in up.wanted():
            spoil(up, key, garbage)
        up.door.commands.clear()
        up.up()
        up.run(1.0)
        assert up.publisher.rejected == 0
        assert sum(each[0] == b"COPY" for each in up.door.commands) == 9
        assert up.differences() == {}
        believe(up)

    def test_no_record_is_a_copy_of_one_that_is_large_or_ends(self, up: SharingNode) -> None:
        """Redis keeps a copy as it keeps the model: not compact; and a model that has ended is none."""
        account = up.ledger.accounts[A4]
        long = Reason("n" * 80 + ".example", "mcp/web", "allow")
        for number, (why, lasts_s) in enumerate(((long, 100.0), ("a.example", 3.0), ("b.example", 100.0))):
            far = bytes((203, 0, 113, number))
            up.ledger.adopt(opening(account, far, up.clock() + lasts_s, why), up.clock())
        up.run(1.0)
        up.door.commands.clear()
        up.publisher.reseal()
        up.run(0.5)
        assert [each[0] for each in up.door.commands if b":grant:" in each[1]] == [
            b"UNLINK",
            b"HSET",
            b"PEXPIRE",
        ] * 3
        assert up.differences() == {}
        encodings = sorted(up.door.redis.object("encoding", key) for key in up.wanted())
        assert encodings == [b"hashtable", b"listpack", b"listpack"]

    def test_a_hundred_thousand_within_five_seconds(self, node: SharingNode) -> None:
        """By the pieces' pace: each at most a millisecond's work, a pause between them."""
        seconds = 100_000 / WALKED * publishing.PIECE_S
        assert seconds < RETURN_S - publishing.BEAT_S


def spoil(node: SharingNode, key: bytes, how: str) -> None:
    """Put something else under a key."""
    redis = node.door.redis
    if how == "more" and redis.type(key) == b"hash":
        redis.hset(key, "evil", "x")
        return
    redis.delete(key)
    if how == "string":
        redis.set(key, b"x" * 1000)
    elif how == "list":
        redis.rpush(key, b"x")
    else:
        redis.hset(key, "generation", "99")


def believe(node: SharingNode) -> None:
    """Every record of the node is sound, and its own."""
    redis: Any = node.door.redis
    heartbeat = redis.hgetall(node.keys.heartbeat)
    check(node.keyring, node.keys.heartbeat, heartbeat)
    assert node_from(node.keys.heartbeat, heartbeat).session == node.session
    for facts in node.pods:
        for source in facts.addresses:
            key = node.keys.pod(source)
            fields = redis.hgetall(key)
            check(node.keyring, key, fields)
            assert pod_from(key, fields).uid == facts.uid
    entry = redis.hget(node.keys.nodes, "node-a")
    assert seen_ms(node.keyring, node.keys.nodes, b"node-a", entry) > 0


class TestBounds:
    """What waits is bounded, and what goes is counted and made good."""

    def test_more_marks_than_may_wait(self, lasting_store: Store) -> None:
        """They go, counted; everything is compared once there is room."""
        node = SharingNode(lasting_store, limit=50)
        node.door.redis.flushall()
        node.ledger.open_account(identity(A4))
        node.up()
        node.run(0.5)
        node.door.is_slow = True
        for number in range(130):
            open_(node, number.to_bytes(4, "big"))
        assert node.publisher.dropped >= 50
        node.door.is_slow = False
        node.run(RETURN_S)
        assert node.differences() == {}
        assert len(node.wanted()) == 130
        node.close()

    def test_more_removals_than_may_wait(self, lasting_store: Store) -> None:
        """They go, counted; what nobody here knows any more is searched for."""
        node = SharingNode(lasting_store, limit=50)
        node.door.redis.flushall()
        account = node.ledger.open_account(identity(A4))
        for number in range(130):
            open_(node, number.to_bytes(4, "big"))
        node.up()
        node.run(RETURN_S)
        assert len(node.shared()) == 130
        node.lose()
        node.ledger.replace(account, [])
        open_(node)
        node.up()
        node.run(RETURN_S)
        assert node.publisher.dropped >= 50
        assert node.differences() == {}
        assert len(node.wanted()) == 1
        node.close()

    def test_redis_is_slow(self, up: SharingNode) -> None:
        """No more than a bound is sent ahead; each grant waits as one mark; nothing is dropped."""
        up.door.is_slow = True
        for _ in range(20):
            for number in range(600):
                open_(up, number.to_bytes(4, "big"), for_s=60.0)
            up.run(0.5)
        assert up.door.backlog < MOST_UNANSWERED + 3 * PIECE + 100
        up.door.is_slow = False
        up.run(RETURN_S)
        assert up.publisher.dropped == 0
        assert up.differences() == {}

    def test_nothing_piles_up_while_it_is_lost(self, up: SharingNode) -> None:
        """Changes leave no marks then; removals do, one for each record that was written."""
        open_(up)
        up.run(TWICE_S)
        said(up)
        up.lose()
        for number in range(500):
            open_(up, number.to_bytes(4, "big"))
        assert len(up.ledger.outbox) == 0
        up.ledger.close_account(A4)
        up.up()
        up.run(0.5)
        assert said(up) == [b"UNLINK"]


class TestHeartbeat:
    """The node itself."""

    def test_goes_on(self, up: SharingNode) -> None:
        """Every second, growing, each with a challenge of its own; gone ten seconds after the last."""
        seen = []
        for _ in range(12):
            up.run(1.0)
            fields: Any = up.door.redis.hgetall(up.keys.heartbeat)
            check(up.keyring, up.keys.heartbeat, fields)
            record = node_from(up.keys.heartbeat, fields)
            seen.append((record.beat, record.challenge))
            assert record.challenge == up.publisher.challenges[-1]
        beats = [beat for beat, _ in seen]
        assert beats == list(range(beats[0], beats[0] + 12))
        assert len({challenge for _, challenge in seen}) == 12
        assert len(up.publisher.challenges) == 8
        up.lose()
        up.run(11.0)
        assert up.door.redis.exists(up.keys.heartbeat) == 0

    def test_signs_the_roll(self, up: SharingNode) -> None:
        """By Redis's clock; who was not there for a day is taken off, strangers' entries are left."""
        redis, nodes = up.door.redis, up.keys.nodes
        now_ms = up.door.redis_ms()
        assert now_ms
        old, recent = now_ms - KEPT_MS - 10_000_000, now_ms - 1000
        redis.hset(nodes, "old", seen_octets(up.keyring, nodes, b"old", old))
        redis.hset(nodes, "recent", seen_octets(up.keyring, nodes, b"recent", recent))
        redis.hset(nodes, "forged", b"seen=1 mac=" + b"0" * 32)
        redis.hset(nodes, "node-b", redis.hget(nodes, "node-a"))  # type: ignore[arg-type]
        up.run(3700.0)
        entries: Any = redis.hgetall(nodes)
        assert set(entries) == {b"node-a", b"recent", b"forged", b"node-b"}
        assert seen_ms(up.keyring, nodes, b"node-a", entries[b"node-a"]) > now_ms + 3_600_000
        for stranger in (b"forged", b"node-b"):
            with pytest.raises(NotBelieved):
                seen_ms(up.keyring, nodes, stranger, entries[stranger])
        with pytest.raises(NotBelieved):
            seen_ms(up.keyring, nodes, b"x", b"nonsense")

    def test_a_roll_that_somebody_filled_is_begun_anew(self, up: SharingNode) -> None:
        """Nobody reads one that large: no other node would ever be shown again."""
        redis, nodes = up.door.redis, up.keys.nodes
        redis.hset(nodes, "big", b"x" * (2 << 20))
        up.run(3700.0)
        assert set(redis.hgetall(nodes)) == {b"node-a"}  # type: ignore[arg-type]

    def test_pods(self, up: SharingNode) -> None:
        """Come, change, go; each of their addresses; refreshed long before they end."""
        believe(up)
        up.pods = [PodFacts("mcp", "b", "uid-b", (A4,), ("default/web", "default/db"))]
        up.run(1.5)
        believe(up)
        assert up.door.redis.exists(up.keys.pod(A6)) == 0
        up.run(2000.0)
        believe(up)
        up.pods = []
        up.run(1.5)
        assert list(up.door.redis.scan_iter(up.keys.pattern("pod"))) == []

    def test_a_pod_that_left_is_not_back_with_an_old_copy(self, up: SharingNode) -> None:
        """Its record is taken away after each return, as long as it could live."""
        key = up.keys.pod(A4)
        dump = up.door.redis.dump(key)
        up.pods = []
        up.run(1.5)
        up.lose()
        up.door.redis.restore(key, 0, dump)  # type: ignore[arg-type]
        up.up()
        up.run(RETURN_S)
        assert up.door.redis.exists(key) == 0

    def test_many_pods(self, up: SharingNode) -> None:
        """Go in pieces."""
        up.pods = [PodFacts("mcp", f"p{n}", f"u{n}", (bytes((10, 1, 0, n)),)) for n in range(250)]
        up.run(2.0)
        believe(up)
        assert up.door.largest <= 3 * PIECE


class TestKeysChange:
    """A new HMAC key."""

    def test_everything_is_sealed_anew(self, up: SharingNode) -> None:
        """Grants, pods, heartbeat, roll: believed by who has the new key alone."""
        open_(up)
        up.run(1.0)
        up.keyring = Keyring(b"the new key", b"the key of the cluster")
        up.publisher.reseal()
        up.run(RETURN_S)
        up.keyring = Keyring(b"the new key")
        assert up.differences() == {}
        assert up.wanted()
        believe(up)

    def test_while_redis_is_lost(self, up: SharingNode) -> None:
        """It follows with the return."""
        open_(up)
        up.lose()
        up.keyring = Keyring(b"the new key")
        up.publisher.reseal()
        up.run(1.0)
        up.up()
        up.run(RETURN_S)
        assert up.differences() == {}
        assert up.wanted()


def refused(name: str, pod: str = "a", times: int = 1, at: float = 1000.0, **more: Any) -> Refused:
    """A refusal."""
    fields: dict[str, Any] = {
        "kind": "lookup", "namespace": "mcp", "pod": pod, "pod_ip": "10.0.0.1", "name": name, "qtype": "A",
        "address": "", "protocol": "", "port": None, "policy": "", "rule": "", "reason": "no rule",
        "reason_class": "name", "times": times, "at": at, **more,
    }  # fmt: skip
    return Refused(**fields)


def entries(node: SharingNode) -> list[tuple[int, Any]]:
    """The stream: instants (by Redis's clock, ms) and records, believed."""
    found = []
    for entry_id, fields in node.door.redis.xrange(node.keys.blocked):  # type: ignore[union-attr]
        check(node.keyring, node.keys.blocked, fields)
        found.append((int(entry_id.partition(b"-")[0]), blocked_from(node.keys.blocked, fields)))
    return found


class TestRefused:
    """The stream of refusals."""

    def test_written(self, up: SharingNode) -> None:
        """Equal ones as one, with all that is known of it."""
        for _ in range(3):
            up.blocked.add(refused("x.example", times=2, at=up.clock(), port=443, kind="packet"))
        up.run(0.5)
        ((_, record),) = entries(up)
        assert (record.name, record.times, record.port, record.kind) == ("x.example", 6, 443, "packet")
        assert (record.node, record.session, record.at) == ("node-a", "0123abcd", "at 1000.500")
        assert up.door.redis.pttl(up.keys.blocked) / SLOWED > 23 * 3600 * 1000

    def test_a_flood(self, up: SharingNode) -> None:
        """Of ever other names: at a bounded rate, the others' evidence among it, the rest counted."""
        up.run(2.0)
        for second in range(3):
            for number in range(3000):
                up.blocked.add(refused(f"{second}-{number}", "noisy", at=up.clock()))
            up.blocked.add(refused(f"quiet-{second}", "quiet", at=up.clock()))
            up.run(1.0)
        records = [record for _, record in entries(up)]
        assert len(records) <= 200 * 4
        assert [record.name for record in records if record.pod == "quiet"] == [
            "quiet-0",
            "quiet-1",
            "quiet-2",
        ]
        assert up.publisher.dropped >= 9000 - 800 - ROOM
        assert [record.seq for record in records] == sorted({record.seq for record in records})

    def test_while_redis_is_lost(self, up: SharingNode) -> None:
        """They wait, in bounds, and those that were on their way wait again."""
        up.blocked.add(refused("before", at=up.clock()))
        up.run(0.5)
        up.door.is_slow = True
        up.blocked.add(refused("under way", at=up.clock()))
        up.run(0.25)
        up.door.is_slow = False
        up.lose(executed=False)
        up.blocked.add(refused("meanwhile", at=up.clock()))
        up.run(3.0)
        up.up()
        up.run(1.0)
        assert sorted(record.name for _, record in entries(up)) == ["before", "meanwhile", "under way"]

    def test_an_empty_redis_is_told_again(self, up: SharingNode) -> None:
        """What is known goes in at its own time, oldest first; then what comes."""
        for number in range(50):
            up.blocked.add(refused(f"n{number}", at=up.clock()))
            up.run(0.1)
        up.lose()
        up.door.redis.flushall()
        up.blocked.add(refused("meanwhile", at=up.clock()))
        up.up()
        up.run(2.0)
        up.blocked.add(refused("after", at=up.clock()))
        up.run(1.0)
        told = entries(up)
        assert [record.name for _, record in told] == [*(f"n{n}" for n in range(50)), "meanwhile", "after"]
        instants = [at for at, _ in told[:51]]
        assert 4800 < instants[-1] - instants[0] < 5200

    def test_its_key_is_something_else(self, up: SharingNode) -> None:
        """It is removed, and what was refused is told again."""
        spoil(up, up.keys.blocked, "string")
        up.blocked.add(refused("x", at=up.clock()))
        up.run(3.0)
        assert [record.name for _, record in entries(up)] == ["x"]

    @pytest.mark.parametrize("how", ["deleted", "string", "dated ahead", "exhausted", "emptied ahead"])
    def test_made_useless_while_we_are_up(self, up: SharingNode, how: str) -> None:
        """The evidence is there again, and what comes is found at its own time."""
        redis, stream = up.door.redis, up.keys.blocked
        up.blocked.add(refused("before", at=up.clock()))
        up.run(3.0)
        if how == "deleted":
            redis.delete(stream)
        elif how == "string":
            spoil(up, stream, how)
        else:
            end = "18446744073709551615-18446744073709551615" if how == "exhausted" else "9999999999999-0"
            redis.xadd(stream, {"x": "y"}, id=end)
            if how == "emptied ahead":
                redis.xtrim(stream, 0, approximate=False)
        up.blocked.add(refused("after", at=up.clock()))
        up.run(5.0)
        assert [record.name for _, record in entries(up)] == ["before", "after"]
        assert all(at < 9_999_999_999_999 for at, _ in entries(up))
        before = len(up.door.commands)
        up.run(5.0)
        assert not [each for each in up.door.commands[before:] if each[:2] == (b"UNLINK", stream)]

    def test_the_streams_of_letters_are_ours_again(self, up: SharingNode) -> None:
        """While the connection stands."""
        for stream in (up.keys.requests, up.keys.acks):
            spoil(up, stream, "string")
        up.run(2.0)
        assert up.door.redis.exists(up.keys.requests, up.keys.acks) == 0

    def test_what_is_a_day_old_is_not_told_again_for_ever(self, up: SharingNode) -> None:
        """The stream ended by itself; nothing of it is due."""
        up.blocked.add(refused("old", at=up.clock()))
        up.run(1.0)
        up.clock.at += 25 * 3600
        up.run(3.0)
        assert not up.door.redis.exists(up.keys.blocked)


class Step(NamedTuple):
    """One thing that happens."""

    what: str
    pod: int
    to: int
    seconds: float
    reason: int


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(
            ["open", "open", "open", "wide", "renew", "shorten", "change", "revoke", "stop", "keep", "forget",
             "close", "pod", "wait", "flush", "flush", "lose", "lose-unsent", "back", "generation", "empty"]
        ),
        st.integers(0, 2),
        st.integers(0, 2),
        st.sampled_from([0.5, 3.0, 20.0, 45.0, 60.0]),
        st.integers(0, 2),
    ),
    max_size=25,
)  # fmt: skip


class Story:
    """Plays steps on a node."""

    def __init__(self, node: SharingNode) -> None:
        self.node = node
        self.sources = (A4, A6, B4)
        for source in self.sources:
            node.ledger.open_account(identity(source))

    def play(self, step: Step) -> None:
        getattr(self, step.what.replace("-", "_"))(step)

    def open(self, step: Step, **ports: int) -> None:
        source = self.sources[step.pod]
        account = self.node.ledger.accounts.get(source)
        if account is not None:
            to = bytes(len(source) - 1) + bytes((step.to + 1,))
            now = self.node.clock()
            reason = f"n{step.reason}"
            self.node.ledger.adopt(opening(account, to, now + step.seconds, reason, **ports), now)

    def wide(self, step: Step) -> None:
        self.open(step, first=4032, last=8192 + step.to)

    def _revised(self, step: Step, change: Any) -> None:
        account = self.node.ledger.accounts.get(self.sources[step.pod])
        if account is not None:
            revised = [change(each, number) for number, each in enumerate(account.holdings())]
            self.node.ledger.replace(account, [each for each in revised if each is not None])

    def renew(self, step: Step) -> None:
        until = self.node.clock() + step.seconds
        self._revised(
            step, lambda each, _: copy_of(each, until=until, reasons=dict.fromkeys(each.reasons, until))
        )

    def shorten(self, step: Step) -> None:
        until = self.node.clock() + 0.4
        self._revised(
            step,
            lambda each, _: copy_of(
                each,
                until=min(each.until, until),
                reasons={reason: min(at, until) for reason, at in each.reasons.items()},
            ),
        )

    def change(self, step: Step) -> None:
        other = Reason("changed", "p", f"r{step.reason}")
        self._revised(step, lambda each, _: copy_of(each, reasons={other: each.until}))

    def revoke(self, step: Step) -> None:
        self._revised(step, lambda each, number: None if number % 2 == step.to % 2 else copy_of(each))

    def keep(self, step: Step) -> None:
        self._revised(step, lambda each, _: copy_of(each, until=NEVER))

    def stop(self, step: Step) -> None:
        account = self.node.ledger.accounts.get(self.sources[step.pod])
        for holding in list(account.holdings() if account else ())[: step.to + 1]:
            self.node.ledger.stop(holding)

    def forget(self, step: Step) -> None:
        account = self.node.ledger.accounts.get(self.sources[step.pod])
        if account is not None:
            for holding in list(account.holdings())[: step.to + 1]:
                self.node.ledger.forget(account, holding, None)

    def close(self, step: Step) -> None:
        self.node.ledger.close_account(self.sources[step.pod])

    def pod(self, step: Step) -> None:
        self.node.ledger.open_account(identity(self.sources[step.pod], f"uid-{step.to}", f"mcp/p{step.to}"))

    def wait(self, step: Step) -> None:
        self.node.run(step.seconds)

    def flush(self, step: Step) -> None:
        self.node.run(publishing.FLUSH_S)

    def lose(self, step: Step) -> None:
        if self.node.door.is_up:
            self.node.lose()

    def lose_unsent(self, step: Step) -> None:
        if self.node.door.is_up:
            self.node.lose(executed=False)

    def back(self, step: Step) -> None:
        if not self.node.door.is_up:
            self.node.up()

    def generation(self, step: Step) -> None:
        self.node.generation += 1

    def empty(self, step: Step) -> None:
        self.node.door.redis.flushall()
        self.node.door.ends.clear()


@given(steps)
@settings(max_examples=150)
def test_redis_equals_the_ledger(lasting_store: Store, story: list[Step]) -> None:
    """Whatever was opened, renewed, shortened, changed, revoked and lost, in whatever order."""
    node = SharingNode(lasting_store)
    node.door.redis.flushall()
    node.up()
    node.run(0.5)
    try:
        plays = Story(node)
        for step in story:
            plays.play(step)
        plays.back(Step("back", 0, 0, 0.0, 0))
        node.run(RETURN_S)
        assert node.differences() == {}
        believe(node)
    finally:
        node.close()


@given(steps)
@settings(max_examples=100)
def test_marks_alone_are_enough(lasting_store: Store, story: list[Step]) -> None:
    """While Redis is there, each change is followed at once (at twice, if a record had just expired)."""
    node = SharingNode(lasting_store)
    node.door.redis.flushall()
    node.up()
    node.run(0.5)
    try:
        plays = Story(node)
        for step in story:
            if step.what not in {"lose", "lose-unsent", "back", "empty"}:
                plays.play(step)
                node.run(TWICE_S)
                assert node.differences() == {}
        assert node.publisher.resyncs == 1
    finally:
        node.close()
