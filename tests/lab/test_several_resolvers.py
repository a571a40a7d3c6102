"""Two resolvers on one node: who answers whom, what the end of one costs; a pod's limits stay its limits."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.demo import places
from enforcer.demo.pods import Pod
from enforcer.demo.processes import LONG_S, comm_of, descendants, uid_of, wait_until
from enforcer.demo.scenes import Stage
from enforcer.demo.ward import Ward
from tests.lab.staged import staged

pytestmark = pytest.mark.kernel

PER_SECOND = 50


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """The lab with a node of two resolvers, and a limit that a test can reach."""
    with staged({"dns": {"processes": 2}, "limits": {"queriesPerSecond": PER_SECOND}}, starts=True) as made:
        yield made


def resolvers(ward: Ward) -> dict[str, int]:
    """Their process ids, by what the kernel calls them."""
    unprivileged = [pid for pid in descendants(ward.pid)[1:] if uid_of(pid)]
    return {comm: pid for pid in unprivileged if (comm := comm_of(pid))}


def both(ward: Ward) -> dict[str, int]:
    """Wait until both are there."""
    assert wait_until(lambda: set(resolvers(ward)) == {"nw-resolver", "nw-resolver-1"}, LONG_S, 0.05)
    return resolvers(ward)


def answered_by(stage: Stage, pod: Pod, name: str, comm: str) -> bool:
    """Say that a pod is answered by this one of the two: while the other is stopped, and not while it is."""
    asked = {}
    for stopped, pid in both(stage.lab.ward).items():
        os.kill(pid, signal.SIGSTOP)
        try:
            asked[stopped] = pod.stub.once(name, wait_s=0.5 if stopped == comm else LONG_S).rcode
        finally:
            os.kill(pid, signal.SIGCONT)
    return asked.pop(comm) == "TIMEOUT" and set(asked.values()) == {"NOERROR"}


def test_pods_spread_over_both_and_each_is_answered_by_one(stage: Stage) -> None:
    """By address: pods of even ones by the first, of odd ones by the second, over UDP and TCP."""
    assert answered_by(stage, stage.crm, places.CRM, "nw-resolver")
    assert answered_by(stage, stage.bulk, places.BULK_NAMES[0], "nw-resolver")
    assert answered_by(stage, stage.ledger, places.LEDGER, "nw-resolver-1")
    assert answered_by(stage, stage.temp, places.TEMP, "nw-resolver-1")
    for pod, name in ((stage.crm, places.CRM), (stage.ledger, places.LEDGER)):
        for tcp in (False, True):
            answer = pod.stub.ask(name, tcp=tcp)
            assert pod.connect(answer.addresses[0]).ok
        assert pod.stub.ask(places.DROP).rcode == "NXDOMAIN"


def test_what_is_asked_while_one_is_away_waits_for_the_next_one(stage: Stage) -> None:
    """Killed, it is back with the same sockets: what was sent after its end is answered at its first sending,
    and who is answered by the other does not notice."""
    for number in range(5):
        gone = both(stage.lab.ward)["nw-resolver-1"]
        os.kill(gone, signal.SIGKILL)
        assert wait_until(lambda gone=gone: gone not in resolvers(stage.lab.ward).values(), LONG_S, 0.001)
        assert stage.ledger.stub.once(places.LEDGER, wait_s=LONG_S).rcode == "NOERROR"
        assert stage.crm.stub.once(f"a{number}.{places.FILES}", wait_s=LONG_S).rcode == "NOERROR"
    assert set(both(stage.lab.ward)) == {"nw-resolver", "nw-resolver-1"}
    assert stage.lab.ward.status()["enforcing"]


@pytest.mark.parametrize("actor", ["bulk", "temp"])
def test_a_pods_limit_is_its_limit(stage: Stage, actor: str) -> None:
    """Asked from many ports at once, a pod is answered queriesPerSecond times, not twice as often."""
    pod: Pod = getattr(stage, actor)
    for _ in range(10):
        time.sleep(1.1)  # the second that has begun is not counted
        started_at = time.monotonic()
        codes = burst(pod, 4 * PER_SECOND)
        further = int(time.monotonic() - started_at + 0.1)  # seconds that began on a slow machine
        if further == 0:
            break
    answered = codes.count(3)
    assert PER_SECOND <= answered <= PER_SECOND * (1 + further)
    assert answered + codes.count(5) == 4 * PER_SECOND


def burst(pod: Pod, count: int) -> list[int]:
    """Ask names that are not permitted, each from a port of its own; return the response codes."""
    opened = [pod.space.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    try:
        for number, sock in enumerate(opened):
            sock.connect((places.CLUSTER_DNS, 53))
            sock.settimeout(LONG_S)
            head = struct.pack("!6H", number, 0x0100, 1, 0, 0, 0)
            sock.send(head + b"\x05b%04d" % number + b"\x07example\x03org\0" + struct.pack("!HH", 1, 1))
        return [sock.recv(4096)[3] & 15 for sock in opened]
    finally:
        for sock in opened:
            sock.close()


def test_a_node_that_is_ready_answers_whoever_asks_first(stage: Stage, tmp_path: Path) -> None:
    """As a service: READY=1 comes when both have the policy: each pod's first question is answered."""
    stage.lab.ward.stop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(LONG_S)
        stage.lab.ward.start(NOTIFY_SOCKET=str(tmp_path / "notify"))
        while not manager.recv(1000).startswith(b"READY=1"):
            pass
        for pod, name in ((stage.crm, places.CRM), (stage.ledger, places.LEDGER)):
            assert pod.stub.once(name, wait_s=LONG_S).addresses
