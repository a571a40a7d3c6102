"""The authority socket: only the resolver's uid, in order, within budgets, one bad peer alone."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from enforcer import link
from enforcer.authority import Decided
from enforcer.link import LinkHub
from policy.authority import (
    CountersReported,
    GrantAnswered,
    GrantRequested,
    Hello,
    LookupsRecorded,
    SnapshotPublished,
)
from policy.pods import Pod
from policy.runtime.clock import now
from policy.runtime.framing import MAX_TO_RESOLVER_BYTES, encode, resolver_decoder
from tests.enforcer.rig import API, OTHER, A, B, KeptRecords, Rig, permit, policy

POLICY = policy(permit("*.example.org"))


class _Reports:
    def __init__(self) -> None:
        self.lookups = 0
        self.told: Callable[[str], None] = lambda what: None

    def lookups_recorded(self, message: LookupsRecorded) -> None:
        self.lookups += 1
        self.told("report")

    def counters_reported(self, message: CountersReported) -> None:
        raise AssertionError("nobody reports here")


class _Loop:
    """A reactor of this test's own, turned by hand."""

    def __init__(self, folder: Path, uid: int) -> None:
        self.reactor = EPollReactor()  # type: ignore[no-untyped-call]
        self.rig = Rig(folder).settled_with(POLICY)
        self.reactor.seconds = self.rig.clock  # the hub asks its reactor for the time
        self.records, self.reports = KeptRecords(), _Reports()
        self.pair = socket.socketpair()
        self.peers: list[_Resolver] = []
        self.hub = LinkHub(
            reactor=self.reactor,
            authority=self.rig.authority,
            reports=self.reports,
            records=self.records,
            uids=frozenset((uid,)),
            sockets={"udp4": self.pair[0]},
            version="1",
            granted=lambda: self.told("granted"),
            turn_done=lambda: self.told("upkeep"),
        )
        self.told: Callable[[str], None] = lambda what: None
        self.folder = folder
        assert self.rig.authority.snapshot is not None
        self.hub.publish(self.rig.authority.snapshot.world)
        link.listen(self.reactor, folder, self.hub, os.getuid())

    def close(self) -> None:
        """Close everything that the test opened."""
        for peer in self.peers:
            peer.peer.close()
            for descriptor in peer.descriptors:
                os.close(descriptor)
        for connected in list(self.hub.links):
            connected.transport.connectionLost(Failure(ConnectionDone()))
        for each in self.reactor.removeAll():
            each.connectionLost(Failure(ConnectionDone()))
        for internal in list(self.reactor._internalReaders):
            internal.connectionLost(Failure(ConnectionDone()))
        self.reactor._poller.close()
        for end in self.pair:
            end.close()

    def until(self, what: Callable[[], bool]) -> None:
        """Turn the loop until something holds, 5 s at most."""
        deadline = now() + 5
        while not what():
            assert now() < deadline
            self.reactor.runUntilCurrent()
            self.reactor.doIteration(0.01)


class _Resolver:
    """The other side, as bytes."""

    def __init__(self, loop: _Loop) -> None:
        self.loop = loop
        self.peer = socket.socket(socket.AF_UNIX)
        self.peer.connect(str(loop.folder / "authority.sock"))
        self.peer.settimeout(0)
        self.decoder = resolver_decoder()
        self.got: list[object] = []
        self.descriptors: list[int] = []
        self.closed = False
        loop.peers.append(self)

    def read(self) -> list[object]:
        while not self.closed:
            try:
                data, descriptors, _, _ = socket.recv_fds(self.peer, 1 << 16, 8)
            except BlockingIOError:
                break
            except ConnectionResetError:
                data, descriptors = b"", []
            self.descriptors += descriptors
            self.closed = not data
            self.got += self.decoder.feed(data)
        return self.got

    def answers(self) -> list[GrantAnswered]:
        return [each for each in self.read() if isinstance(each, GrantAnswered)]


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[_Loop]:
    """A hub that serves this process's uid."""
    made = _Loop(tmp_path, os.getuid())
    yield made
    made.close()


def test_a_greeting_brings_version_sockets_and_the_snapshot(loop: _Loop) -> None:
    """In this order, descriptors with the names."""
    peer = _Resolver(loop)
    loop.until(lambda: len(peer.read()) == 2)
    hello, snapshot = peer.got
    assert hello == Hello("1", ("udp4",))
    assert isinstance(snapshot, SnapshotPublished)
    assert snapshot.world.generation == 1
    assert len(peer.descriptors) == 1


def test_a_policy_that_fits_no_frame_is_said_and_ends_nothing(loop: _Loop) -> None:
    """The resolver goes on with the one before, and hears of the next that fits."""
    assert loop.rig.authority.snapshot is not None
    world = loop.rig.authority.snapshot.world
    names = ("x" * 200,) * (MAX_TO_RESOLVER_BYTES // 200)
    large = permit(*names)
    said = loop.hub.publish(msgspec.structs.replace(world, policies=(policy(large),)))
    assert "fits no frame" in said
    peer = _Resolver(loop)
    loop.until(lambda: len(peer.read()) == 2)
    assert peer.got[1] == SnapshotPublished(world)
    assert loop.hub.publish(msgspec.structs.replace(world, generation=3)) == ""
    loop.until(lambda: len(peer.read()) == 3)


def test_another_uid_is_refused(tmp_path: Path) -> None:
    """Whoever may open the socket: the peer's uid decides."""
    loop = _Loop(tmp_path, 12345)
    peer = _Resolver(loop)
    loop.until(lambda: bool(peer.read() is not None and peer.closed))
    assert peer.got == []
    loop.close()


def test_requests_are_answered_after_the_snapshot_that_decided_them(loop: _Loop) -> None:
    """A new generation's snapshot leaves before its first answer."""
    peer = _Resolver(loop)
    loop.until(lambda: len(peer.read()) == 2)
    snapshot = loop.rig.apply(POLICY, private_zones=("a.internal",))
    loop.hub.publish(snapshot.world)
    peer.peer.sendall(encode(loop.rig.request("a.example.org", API)))
    loop.until(lambda: bool(peer.answers()))
    kinds = [type(each).__name__ for each in peer.got]
    assert kinds[-2:] == ["WorldChanged", "GrantAnswered"]
    assert peer.answers()[0].generation == snapshot.generation
    assert peer.answers()[0].outcomes == ("realized",)


def test_an_answer_waits_for_the_kernel_and_the_journal_and_for_nothing_else(loop: _Loop) -> None:
    """The commit and what is kept of it come before; reports that came first, and upkeep, come after."""
    peer = _Resolver(loop)
    loop.until(lambda: len(peer.read()) == 2)
    loop.until(lambda: not loop.hub._woken)
    order: list[tuple[str, int, int]] = []

    def note(what: str) -> None:
        order.append((what, len(loop.rig.open_now()), len(peer.answers())))

    loop.told = loop.reports.told = note
    record = LookupsRecorded(())
    peer.peer.sendall(encode(record) + encode(loop.rig.request("a.example.org", API)) + encode(record))
    loop.until(lambda: bool(peer.answers()))
    assert order == [("granted", 1, 0), ("report", 1, 1), ("report", 1, 1), ("upkeep", 1, 1)]


def test_reports_alone_are_heard_too_and_once(loop: _Loop) -> None:
    """They need no request beside them, and a flood of them is taken in several turns."""
    peer = _Resolver(loop)
    loop.until(lambda: len(peer.read()) == 2)
    peer.peer.sendall(encode(LookupsRecorded(())) * (3 * link.MAX_REPORTS_A_TURN))
    loop.until(lambda: loop.reports.lookups == 3 * link.MAX_REPORTS_A_TURN and not loop.hub.pending)
    loop.reactor.doIteration(0)
    assert loop.reports.lookups == 3 * link.MAX_REPORTS_A_TURN


def test_a_turn_that_fails_answers_nobody_and_the_next_one_comes(loop: _Loop) -> None:
    """Its reports are heard all the same, or they would pile up as long as turns fail."""
    peer = _Resolver(loop)
    loop.until(lambda: len(peer.read()) == 2)
    loop.until(lambda: not loop.hub._woken)
    failures = [OSError("no room on the journal's disk")]

    def fail_once(what: str) -> None:
        if what == "granted" and failures:
            raise failures.pop()

    loop.told = fail_once
    peer.peer.sendall(encode(LookupsRecorded(())) + encode(loop.rig.request("a.example.org", API)))
    loop.until(lambda: loop.reports.lookups == 1)
    assert not failures
    assert not peer.answers()
    again = _Resolver(loop)
    again.peer.sendall(encode(loop.rig.request("a.example.org", API)))
    loop.until(lambda: bool(again.answers()))
    assert again.answers()[0].outcomes == ("realized",)


def test_a_garbage_frame_closes_its_connection_alone(loop: _Loop) -> None:
    """The neighbour's requests are answered as before."""
    bad, good = _Resolver(loop), _Resolver(loop)
    bad.peer.sendall(b"\x00\x00\x00\x05hello" * 100)
    good.peer.sendall(encode(loop.rig.request("a.example.org", API)))
    loop.until(lambda: bool(good.answers()) and bad.read() is not None and bad.closed)
    assert good.answers()[0].outcomes == ("realized",)
    assert "resolver.refused" in loop.records.events()


def test_a_flood_is_taken_in_bounded_turns_and_starves_nobody(loop: _Loop) -> None:
    """Memory is the queue's bound; the other connection is answered long before the flood ends."""
    flood, quiet = _Resolver(loop), _Resolver(loop)
    frame = encode(loop.rig.request("a.example.org", API))
    sent = 0
    most = 0
    data = frame * 20_000
    quiet.peer.sendall(encode(loop.rig.request("b.example.org", API)))

    def turn() -> bool:
        nonlocal sent, most
        with contextlib.suppress(BlockingIOError):
            sent += flood.peer.send(data[sent : sent + (1 << 16)])
        flood.read()
        most = max(most, loop.hub.pending)
        return bool(quiet.answers())

    loop.until(turn)
    assert len(flood.answers()) < 20_000
    assert most <= link.MAX_QUEUED + (1 << 16) // len(frame) + 1


def test_a_resolver_that_never_reads_is_not_served_further(loop: _Loop) -> None:
    """Its answers would pile up here; instead its requests wait there."""
    peer = _Resolver(loop)
    frame = encode(loop.rig.request("a.example.org", API)) * 500
    loop.until(lambda: len(loop.hub.links) == 1)

    def stuck() -> bool:
        try:
            peer.peer.send(frame)
        except BlockingIOError:
            return not loop.hub.links[0].writable
        return False

    loop.until(stuck)
    answered = sum(loop.rig.authority.outcomes.values())
    for _ in range(20):
        loop.reactor.runUntilCurrent()
        loop.reactor.doIteration(0)
    assert sum(loop.rig.authority.outcomes.values()) == answered


def test_a_request_for_a_pod_to_come_waits_and_is_refused_in_the_end(tmp_path: Path) -> None:
    """It never hangs: admitted or not, it is answered within its time."""
    loop = _Loop(tmp_path, os.getuid())
    new = A.__class__(namespace="mcp", name="new", uid="uid-new", addresses=("100.64.0.9",))
    loop.rig.apply(POLICY, pods=(A, new))
    peer = _Resolver(loop)
    peer.peer.sendall(encode(loop.rig.request("a.example.org", API, pod=new)))

    def answered() -> bool:
        loop.rig.clock.at += 0.02
        return bool(peer.answers())

    begun = loop.rig.clock.at
    loop.until(answered)
    assert loop.rig.clock.at - begun == pytest.approx(link.WAIT_S, abs=0.5)
    assert peer.answers()[0].outcomes == ("failed",)
    peer.peer.sendall(encode(loop.rig.request("a.example.org", API, pod=new)))
    loop.until(lambda: loop.hub.pending == 1)
    loop.rig.run_threads()
    loop.hub.admitted()
    loop.until(lambda: len(peer.answers()) == 2)
    assert peer.answers()[1].outcomes == ("realized",)
    loop.close()


def test_nobody_is_answered_before_anything_is_in_force(loop: _Loop) -> None:
    """An enforcer that has only begun refuses nothing: all that is asked waits for its first snapshot."""
    snapshot, loop.rig.authority.snapshot = loop.rig.authority.snapshot, None
    peer = _Resolver(loop)
    count = link.MAX_WAITING + 10
    for _ in range(count):
        peer.peer.sendall(encode(loop.rig.request("a.example.org", API)))
    loop.until(lambda: loop.hub.pending == count)
    loop.rig.clock.at += 2 * link.WAIT_S
    loop.reactor.runUntilCurrent()
    assert peer.answers() == []
    assert snapshot is not None
    loop.rig.authority.snapshot = snapshot
    loop.hub.publish(snapshot.world)
    loop.until(lambda: len(peer.answers()) == count)
    assert {each.outcomes for each in peer.answers()} == {("realized",)}


FAR = msgspec.structs.replace(B, node="node-b")


class _Others:
    """The other nodes, as a test has them."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.asked: list[tuple[GrantRequested, Callable[[GrantAnswered], None]]] = []
        self.queue: list[GrantRequested] = []
        self.shares: list[int] = []
        self.is_owing = False
        self.told: list[Decided] = []

    def is_elsewhere(self, pod: Pod) -> bool:
        return pod.node == "node-b"

    def ask(self, request: GrantRequested, pod: Pod, done: Callable[[GrantAnswered], None]) -> None:
        assert pod == FAR
        self.asked.append((request, done))

    @property
    def waiting(self) -> int:
        return len(self.queue)

    @property
    def pending(self) -> int:
        return len(self.asked)

    def take(self, most: int, addresses: int) -> list[GrantRequested]:
        self.shares.append(most)
        taken, self.queue = self.queue[:most], self.queue[most:]
        return taken

    def answered(self, decided: Sequence[Decided]) -> None:
        self.told += decided


@pytest.fixture
def others(loop: _Loop) -> _Others:
    """The hub knows other nodes; A is here, FAR is on node-b."""
    loop.hub.publish(loop.rig.apply(POLICY, pods=(A, FAR)).world)
    loop.rig.run_threads()
    made = loop.hub.elsewhere = _Others(loop.rig)
    return made


def test_a_request_for_another_nodes_pod_is_answered_by_that_node(loop: _Loop, others: _Others) -> None:
    """The answer comes back over the same link, whenever it comes; nothing is opened here."""
    peer = _Resolver(loop)
    far, near = loop.rig.request("a.example.org", API, pod=FAR), loop.rig.request("a.example.org", API)
    peer.peer.sendall(encode(far) + encode(near))
    loop.until(lambda: bool(peer.answers()))
    assert [each.id for each in peer.answers()] == [near.id]
    ((request, done),) = others.asked
    assert request == far
    done(GrantAnswered(far.id, 2, ("realized",), 120.0, lasting=False))
    loop.until(lambda: len(peer.answers()) == 2)
    assert peer.answers()[1] == GrantAnswered(far.id, 2, ("realized",), 120.0, lasting=False)
    assert len(loop.rig.open_now()) == 1


def test_an_answer_for_a_link_that_has_gone_is_nobodys(loop: _Loop, others: _Others) -> None:
    """The resolver was restarted meanwhile."""
    peer = _Resolver(loop)
    peer.peer.sendall(encode(loop.rig.request("a.example.org", API, pod=FAR)))
    loop.until(lambda: bool(others.asked))
    peer.peer.close()
    loop.until(lambda: not loop.hub.links)
    others.asked[0][1](GrantAnswered(1, 2, ("realized",), 120.0))
    assert loop.rig.open_now() == set()


@pytest.mark.parametrize("change", [{"pod_uid": "other"}, {"source": b"\x64\x40\x00\x63"}])
def test_what_is_wrong_with_a_request_is_refused_here(
    loop: _Loop, others: _Others, change: dict[str, object]
) -> None:
    """Another uid, an address of nobody: no other node is asked."""
    peer = _Resolver(loop)
    request = msgspec.structs.replace(loop.rig.request("a.example.org", API, pod=FAR), **change)
    peer.peer.sendall(encode(request))
    loop.until(lambda: bool(peer.answers()))
    assert peer.answers()[0].outcomes == ("denied",)
    assert others.asked == []


def test_without_other_nodes_their_pods_are_waited_for_in_vain(loop: _Loop, others: _Others) -> None:
    """As before: no Redis, no answer of another node's."""
    loop.hub.elsewhere = None
    peer = _Resolver(loop)
    peer.peer.sendall(encode(loop.rig.request("a.example.org", API, pod=FAR)))

    def answered() -> bool:
        loop.rig.clock.at += 0.02
        return bool(peer.answers())

    loop.until(answered)
    assert peer.answers()[0].outcomes == ("failed",)


def test_other_nodes_requests_share_the_turn_and_the_transaction(loop: _Loop, others: _Others) -> None:
    """One commit for both; each side has its share, however much the other sends."""
    peer = _Resolver(loop)
    loop.until(lambda: len(loop.hub.links) == 1 and loop.hub.links[0].writable and not loop.hub._woken)
    commits = len(loop.rig.kernel.commits)
    others.queue = [
        msgspec.structs.replace(loop.rig.request(f"h{n}.example.org", OTHER), id=n) for n in range(600)
    ]
    near = [loop.rig.request("near.example.org", API) for _ in range(100)]
    loop.hub.links[0].dataReceived(b"".join(map(encode, near)))
    loop.until(lambda: len(peer.answers()) == 100)
    assert set(others.shares) == {link.REQUESTS_A_TURN // 2}
    assert len(loop.rig.kernel.commits[commits]) == 4  # both grants, both with their twins
    loop.until(lambda: len(others.told) == 600)
    assert {each.answer.outcomes for each in others.told} == {("realized",)}
    assert [each.request.id for each in others.told] == list(range(600))


def test_requests_of_other_nodes_do_not_take_all_places_to_wait(loop: _Loop, others: _Others) -> None:
    """Asked for a pod that is declared and never admitted, they leave room for our own."""
    new = Pod(namespace="mcp", name="new", uid="uid-new", addresses=("100.64.0.9",))
    loop.rig.apply(POLICY, pods=(A, FAR, new))
    others.queue = [loop.rig.request("a.example.org", API, pod=new) for _ in range(200)]
    loop.hub.came()
    loop.until(lambda: not others.queue)
    assert len(others.told) == 200 - link.MAX_WAITING_ELSEWHERE
    assert {each.answer.outcomes for each in others.told} == {("failed",)}
    peer = _Resolver(loop)
    peer.peer.sendall(encode(loop.rig.request("a.example.org", API, pod=new)))
    loop.until(lambda: loop.hub.pending == link.MAX_WAITING_ELSEWHERE + 1)
    loop.rig.run_threads()
    loop.hub.admitted()
    loop.until(lambda: bool(peer.answers()) and len(others.told) == 200)
    assert peer.answers()[0].outcomes == ("realized",)


def test_requests_of_other_nodes_that_wait_for_a_turn_wait_for_their_budget_too(
    loop: _Loop, others: _Others
) -> None:
    """Taken, and too wide for one turn: while elements are owed none is looked at, whatever turns we have."""
    wide = policy(permit("*.example.org", first=1, last=65534, name="wide"))
    loop.rig.authority.limits = loop.rig.authority.limits._replace(per_pod=100_000, total=100_000)
    loop.rig.apply(wide, pods=(A, FAR))
    loop.rig.run_threads()
    others.queue = [
        loop.rig.request(f"h{n}.example.org", *(f"8.0.{n}.{last}" for last in range(1, 21))) for n in range(4)
    ]
    loop.hub._turn()
    first = len(others.told)
    assert 0 < first < 4
    others.is_owing = True
    peer = _Resolver(loop)
    for turn in range(5):
        peer.peer.sendall(encode(loop.rig.request(f"near{turn}.example.org", API)))
        loop.until(lambda: len(peer.answers()) == turn + 1)  # noqa: B023 - called before the next turn
    assert len(others.told) == first
    others.is_owing = False
    for _ in range(4 - first):
        loop.hub._turn()
    assert (len(others.told), loop.hub.pending) == (4, 0)


def test_a_request_of_another_node_that_waited_in_vain_for_its_budget_is_told(
    loop: _Loop, others: _Others
) -> None:
    """What is owed for longer than somebody waits: refused, and its place is free again."""
    new = Pod(namespace="mcp", name="new", uid="uid-new", addresses=("100.64.0.9",))
    loop.rig.apply(POLICY, pods=(A, FAR, new))
    others.queue = [loop.rig.request("a.example.org", API, pod=new)]
    loop.hub._turn()
    assert (loop.hub.pending, others.told) == (1, [])
    others.is_owing = True
    loop.rig.run_threads()
    loop.hub._turn()
    assert others.told == [], "admitted, and not looked at"
    loop.rig.clock.at += link.WAIT_S
    loop.hub._turn()
    assert [each.answer.outcomes for each in others.told] == [("failed",)]
