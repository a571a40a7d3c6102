"""More questions than the resolver can serve: who floods loses its own, a quiet pod loses none of its."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from enforcer.demo import places
from enforcer.demo.pods import Pod
from enforcer.demo.processes import LONG_S, wait_until
from enforcer.demo.scenes import Stage
from tests.lab.staged import staged

pytestmark = pytest.mark.kernel

FLOOD = """
import random, socket, sys
opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
opened.connect((sys.argv[1], 53))
head, tail = bytes.fromhex("00000100000100000000000008"), b"\\7example\\3net\\0\\0\\1\\0\\1"
number = random.getrandbits(24)
while True:
    number += 1
    try:
        opened.send(head + b"%08x" % number + tail)
    except OSError:
        pass
"""
"""Names that are not permitted, each another: none is prepared, each costs the long way."""
LOOKUPS = 60


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """The lab with a node that does not limit what a pod may ask: many pods within limits are as many."""
    with staged({"limits": {"queriesPerSecond": 1_000_000}}, starts=True) as made:
        yield made


def flooding(pod: Pod) -> subprocess.Popen[bytes]:
    """Questions from a pod, as fast as a program asks that reads no answer."""
    argv = ["nice", "setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-c", FLOOD, places.CLUSTER_DNS]
    with pod.space.entered():
        return subprocess.Popen(argv)


def shed(stage: Stage) -> float:
    """How many questions were let go."""
    return stage.lab.ward.metric("nameward_dns_queries_shed_total")


def test_a_quiet_pod_loses_nothing_beside_a_flood(stage: Stage) -> None:
    """Others ask several times what the resolver can serve: each lookup of the quiet one is answered at its
    first try, prepared answers, fresh grants and refusals alike; what is let go is the others'."""
    floods = [flooding(stage.bulk), flooding(stage.temp)]
    try:
        assert wait_until(lambda: shed(stage) > 1000, LONG_S, 0.1)
        tries: list[int] = []
        for number in range(LOOKUPS):
            fresh, blocked = f"w{number}.{places.FILES}", f"b{number}.example.org"
            name = (places.CRM, places.SHORT, fresh, blocked)[number % 4]
            answer = stage.crm.stub.ask(name)
            assert answer.rcode == ("NXDOMAIN" if name == blocked else "NOERROR"), (name, answer)
            tries.append(answer.tries)
        assert tries == [1] * LOOKUPS
        assert wait_until(lambda: shed(stage) > 5000, LONG_S, 0.1)
    finally:
        for flood in floods:
            flood.kill()
            flood.wait()
    assert stage.crm.connect(stage.crm.stub.ask(places.CRM).addresses[0]).ok
