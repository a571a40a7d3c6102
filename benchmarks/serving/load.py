"""What is asked: dnsperf from a pod, on a core of its own, and what that cost a server.

Owns how dnsperf is run and read. All candidates of a benchmark stand ready in places of their own at the
same time (``Stand``) and are asked in turn.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import peers
from benchmarks.peers import Peer
from benchmarks.topology import LOAD_CORE, Place, run, topology

Start = Callable[[Path, Place], AbstractContextManager[Peer]]
TOLERATED = 0.01
"""Of questions that are lost or fail: a machine that stalls for a moment drops packets."""


class Asked(NamedTuple):
    """What came of one load: CPU a query (µs), answers a second, sent, answered, and codes of answers."""

    cpu_us: float
    qps: float
    sent: int
    answered: int
    codes: dict[str, int]


def names(numbers: Iterable[int], *, letter: str = "h", zone: str = peers.ZONE, kind: str = "A") -> str:
    """Return dnsperf's questions."""
    return "".join(f"{letter}{number}.{zone} {kind}\n" for number in numbers)


def ask(
    peer: Peer,
    questions: str,
    *,
    times: int = 1,
    window: int = 100,
    clients: int = 4,
    mode: str = "udp",
    source: str = "",
    options: tuple[str, ...] = (),
    processes: tuple[int, ...] = (),
    expect: str = "NOERROR",
) -> Asked:
    """Ask everything ``times`` times, ``window`` at once, as fast as it answers.

    The cost is that of ``processes``, or of all the server's. SystemExit if it was not answered as expected:
    a figure of a server that loses or refuses questions would not be one.
    """
    with tempfile.NamedTemporaryFile("w", prefix="nwbench-") as file:
        file.write(questions)
        file.flush()
        argv = ["dnsperf", "-s", peer.address, "-d", file.name, "-n", str(times), "-m", mode]
        argv += ["-c", str(clients), "-q", str(window), *options]
        argv += ["-a", source] if source else []
        watched = processes or peer.processes
        before_s = peers.cpu_s(watched)
        text = run(*argv, netns=peer.place.pod, core=LOAD_CORE)
        used_s = peers.cpu_s(watched) - before_s
    asked = _read(text, used_s)
    others = sum(count for code, count in asked.codes.items() if code != expect)
    if asked.sent - asked.answered + others > asked.sent * TOLERATED:
        raise SystemExit(f"{peer.name}: {asked.answered} of {asked.sent} answered, {asked.codes}")
    return asked


def _read(text: str, used_s: float) -> Asked:
    def figure(label: str) -> float:
        found = re.search(rf"{label}:\s+([\d.]+)", text)
        return float(found[1]) if found else 0.0

    completed = int(figure("Queries completed"))
    codes = re.search(r"Response codes:\s+(.*)", text)
    counted = re.findall(r"(\w+) (\d+) \(", codes[1]) if codes else []
    return Asked(
        cpu_us=used_s * 1e6 / max(completed, 1),
        qps=figure("Queries per second"),
        sent=int(figure("Queries sent")),
        answered=completed,
        codes={code: int(count) for code, count in counted},
    )


def metric(peer: Peer, name: str) -> float:
    """Return one of our metrics, read where the node serves them."""
    fetch = "import urllib.request as u;print(u.urlopen('http://127.0.0.1:9153/metrics').read().decode())"
    text = run(sys.executable, "-c", fetch, netns=peer.place.node)
    found = re.search(rf"^{name} (\S+)", text, re.MULTILINE)
    if found is None:
        raise SystemExit(f"{peer.name}: no metric {name}")
    return float(found[1])


@contextmanager
def stand(starts: dict[str, Start], *, known: int, pods: int = 1) -> Iterator[dict[str, Peer]]:
    """Start each candidate in a place of its own, with an upstream of its own that knows the same names."""
    with tempfile.TemporaryDirectory(prefix="nwbench-") as name, ExitStack() as stack:
        root = Path(name)
        root.chmod(0o755)
        found = {}
        for number, (title, start) in enumerate(starts.items()):
            place = stack.enter_context(topology(f"-{number}", pods=pods))
            folder = root / str(number)
            folder.mkdir()
            stack.enter_context(peers.upstream(folder / "upstream", known, netns=place.node))
            found[title] = stack.enter_context(start(folder / "server", place))._replace(name=title)
        yield found
