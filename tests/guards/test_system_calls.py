"""What a hit and a miss ask of the kernel: system calls and transactions of the running node, counted."""

from __future__ import annotations

import collections
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dns.message
import pytest

from enforcer.demo import places
from enforcer.demo.processes import wait_until
from enforcer.demo.scenes import Stage
from resolver.messages import NOERROR, NXDOMAIN
from tests.guards.bounds import KERNEL, KERNEL_REMEDY
from tests.lab.staged import staged

pytestmark = pytest.mark.kernel

BURST = 32
ASKED = 20 * BURST
BY_THE_CLOCK = frozenset({"newfstatat", "statx", "getdents64", "openat", "close", "futex"})
"""Looking at the manifests and waking a thread: done so many times a second, not a question."""
_CALL = re.compile(r"^\d+ +(\w+)\(", re.MULTILINE)
_TRANSACTION = re.compile(r"^\d+ +send\w*\(\d+<NETLINK:\[NETFILTER", re.MULTILINE)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """The lab with a node that does not limit what a pod may ask."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: bash deploy/setup.sh test installs it")
    limits = {"queriesPerSecond": 1_000_000, "distinctNames": "1000000/600s"}
    with staged({"limits": limits}, starts=True) as made:
        yield made


@contextmanager
def traced(stage: Stage, folder: Path, part: str) -> Iterator[Callable[[], str]]:
    """Every system call of one process meanwhile; the text is whole once the context has ended."""
    log, said = folder / f"{part}.strace", folder / f"{part}.said"
    argv = ["strace", "-f", "-yy", "-s", "0", "-o", str(log), "-p", str(stage.lab.ward.worker(part))]
    with said.open("wb") as errors, stage.lab.node.entered():
        tracer = subprocess.Popen(argv, stderr=errors)
    try:
        wait_until(lambda: "attached" in said.read_text() or tracer.poll() is not None, 10.0)
        if "attached" not in said.read_text():
            pytest.skip(f"this kernel has no ptrace for us: {said.read_text().strip()}")
        yield log.read_text
    finally:
        tracer.terminate()
        tracer.wait()


def ask(stage: Stage, names: list[str], burst: int = BURST, rcode: int = NOERROR) -> None:
    """Ask for the addresses of names, so many at once; every one is answered, and so."""
    with stage.crm.space.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.settimeout(10)
        opened.connect((places.CLUSTER_DNS, 53))
        for at in range(0, len(names), burst):
            asked = names[at : at + burst]
            for number, name in enumerate(asked):
                opened.send(dns.message.make_query(name, "A", id=number).to_wire())
            replies = [dns.message.from_wire(opened.recv(4096)) for _ in asked]
            assert all((reply.rcode(), bool(reply.answer)) == (rcode, not rcode) for reply in replies), (
                replies[0]
            )


def connect_and_ask(stage: Stage, names: list[str]) -> None:
    """Ask for the addresses of names over a connection each, so many at once; every one is answered."""
    for at in range(0, len(names), BURST):
        with ExitStack() as opened:
            streams = []
            for name in names[at : at + BURST]:
                stream = opened.enter_context(stage.crm.space.socket(socket.AF_INET, socket.SOCK_STREAM))
                stream.settimeout(10)
                stream.connect((places.CLUSTER_DNS, 53))
                wire = dns.message.make_query(name, "A").to_wire()
                stream.sendall(len(wire).to_bytes(2, "big") + wire)
                streams.append(stream)
            assert all(dns.message.from_wire(stream.recv(4096)[2:]).answer for stream in streams)


def calls(text: str) -> collections.Counter[str]:
    """System calls by name, without those made by the clock."""
    return collections.Counter(call for call in _CALL.findall(text) if call not in BY_THE_CLOCK)


def check(work: str, what: str, found: float, detail: object) -> None:
    """Hold a figure against its bound."""
    most = KERNEL[work][what]
    print(f"{work}: {found:.2f} {what}, at most {most:g}; {detail}")
    assert found <= most, (
        f"{work}: {found:.2f} {what}, at most {most:g} are allowed (tests/guards/bounds.py). "
        f"{KERNEL_REMEDY[what]}: {detail}"
    )


@pytest.mark.parametrize(
    ("work", "name", "rcode"),
    [
        ("hit", places.CRM, NOERROR),
        ("hit, one at a time", places.CRM, NOERROR),
        ("hit, blocked", "blocked.example.org", NXDOMAIN),
    ],
)
def test_a_hit_is_read_and_answered(stage: Stage, tmp_path: Path, work: str, name: str, rcode: int) -> None:
    """A repeated question takes a call to read it and one to answer it, and the enforcer next to none."""
    ask(stage, [name], 1, rcode)
    with traced(stage, tmp_path, "resolver") as seen, traced(stage, tmp_path, "enforcer") as told:
        ask(stage, [name] * ASKED, 1 if work == "hit, one at a time" else BURST, rcode)
    made, others = calls(seen()), calls(told())
    assert made["sendmsg"] + made["sendmmsg"] > 0, "the tracer saw nothing"
    check(work, "resolver's calls", made.total() / ASKED, made.most_common(6))
    check(work, "enforcer's calls", others.total() / ASKED, others.most_common(6))


def test_a_connection_for_a_question_is_a_handful_of_calls(stage: Stage, tmp_path: Path) -> None:
    """Accepted, read, watched, answered, read to its end, closed: no call is made only to set it up."""
    ask(stage, [places.CRM], 1)
    with traced(stage, tmp_path, "resolver") as seen:
        connect_and_ask(stage, [places.CRM] * ASKED)
    made = calls(seen())
    assert made["accept4"] >= ASKED, "the tracer did not see each connection"
    check("hit, a connection each", "resolver's calls", made.total() / ASKED, made.most_common(8))


def test_a_miss_is_one_question_and_a_share_of_a_transaction(stage: Stage, tmp_path: Path) -> None:
    """Fresh names, so many at once: the calls of both processes, and the enforcer's transactions."""
    with traced(stage, tmp_path, "resolver") as seen, traced(stage, tmp_path, "enforcer") as told:
        ask(stage, [f"g{number}.{places.FILES}" for number in range(ASKED)])
    made, others = calls(seen()), calls(told())
    transactions = len(_TRANSACTION.findall(told()))
    assert made["connect"] >= ASKED, "the tracer did not see each question upstream"
    assert transactions > 0, "the tracer saw no transaction"
    check("miss", "resolver's calls", made.total() / ASKED, made.most_common(12))
    check("miss", "enforcer's calls", others.total() / ASKED, others.most_common(12))
    check("miss", "transactions", transactions / ASKED, transactions)
