"""Measure what sharing through Redis costs a node, and what an answer for another node's pod takes.

CPU and Redis memory a grant at 2,000 grants a second (the same load with Redis and without); the hold and
the latency of lookups with Redis, without, and while it is frozen; the latency added where the pod's own
node is asked across Redis first. Prints JSON and a Markdown table. Timing never fails: this is no test.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import peers, shared_cost
from benchmarks.topology import CORES, NODE, POD, SECOND, UPLINKS, pin, run, second_node, topology

GRANTS_A_SECOND, SECONDS = 2_000, 15
HELD_RATE, HELD_NAMES = 500, 5_000
ALL_NAMES = 1000 + max(GRANTS_A_SECOND * SECONDS, 3 * HELD_NAMES)
TOLERATED = 0.01
"""Of lookups that are lost: a machine that stalls for a moment drops packets."""
_LATENCY = re.compile(r"^> (\S+) \S+ \S+ ([\d.]+)$", re.MULTILINE)


class Redis(NamedTuple):
    """A running server: what the configuration says of it, its process, and its socket for redis-cli."""

    state: str
    pid: int
    address: str

    def info(self, field: str) -> int:
        """Return one number of INFO."""
        out = run("redis-cli", "-h", self.address, "INFO", netns=NODE)
        return next(int(line.split(":")[1]) for line in out.splitlines() if line.startswith(f"{field}:"))

    def grants(self) -> int:
        """Return how many grants it holds."""
        keys = run("redis-cli", "-h", self.address, "--scan", "--pattern", "*:grant:*", netns=NODE)
        return len(keys.splitlines())


@contextmanager
def redis(folder: Path, address: str = "127.0.0.1") -> Iterator[Redis]:
    """Debian's redis-server on the first node, as docs/redis.md configures it."""
    folder.mkdir()
    key = folder / "hmac-key"
    key.write_text("a key of the benchmark only\n")
    argv = [
        "ip", "netns", "exec", NODE, "redis-server", "--bind", address, "--protected-mode", "no",
        "--save", "", "--appendonly", "no", "--dir", str(folder),
    ]  # fmt: skip
    state = f"state: {{redis: {{url: 'redis://{address}:6379', hmacKeyFile: {key}}}}}"
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        try:
            _wait_for(address)
            yield Redis(state, process.pid, address)
        finally:
            os.kill(process.pid, signal.SIGCONT)
            process.kill()


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + 10
    ping = ["ip", "netns", "exec", NODE, "redis-cli", "-h", address, "PING"]
    while subprocess.run(ping, capture_output=True, text=True, check=False).stdout.strip() != "PONG":
        if time.monotonic() > deadline:
            raise SystemExit("redis-server did not start")
        time.sleep(0.05)


def enforcer_of(peer: peers.Peer) -> int:
    """Return the pid of a node's enforcer."""
    return next(
        pid for pid in peer.processes if Path(f"/proc/{pid}/comm").read_text().strip() == "nw-enforcer"
    )


def ask(folder: Path, address: str, names: range, rate: int) -> dict[str, float]:
    """Ask each name once at a steady rate; returns quantiles of the latency (ms) and the share answered."""
    questions = folder / "questions"
    questions.write_text("".join(f"h{i}.{peers.ZONE} A\n" for i in names))
    load = ["-n", "1", "-c", "4", "-q", "1000", "-Q", str(rate), "-v"]
    out = run("dnsperf", "-s", address, "-d", str(questions), *load, netns=POD)
    times_ms = sorted(float(took) * 1000 for code, took in _LATENCY.findall(out) if code == "NOERROR")

    def quantile(share: float) -> float:
        return round(times_ms[int(share * (len(times_ms) - 1))], 3) if times_ms else float("nan")

    return {"p50": quantile(0.5), "p99": quantile(0.99), "answered": len(times_ms) / len(names)}


@contextmanager
def one_node(*, shared: bool) -> Iterator[tuple[Path, peers.Peer, Redis | None]]:
    """One node in namespaces of its own, with a Redis or without."""
    with tempfile.TemporaryDirectory() as name, topology(), ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        stack.enter_context(peers.upstream(folder / "upstream", ALL_NAMES))
        store = stack.enter_context(redis(folder / "redis")) if shared else None
        state = store.state if store else ""
        yield folder, stack.enter_context(peers.nameward(folder / "node", state=state)), store


def cost(*, shared: bool) -> dict[str, float]:
    """Open 2,000 grants a second; returns the enforcer's CPU a grant (µs), and Redis's bytes a grant."""
    with one_node(shared=shared) as (folder, peer, store):
        enforcer = (enforcer_of(peer),)
        empty = store.info("used_memory") if store else 0
        before_s = peers.cpu_s(enforcer)
        count = GRANTS_A_SECOND * SECONDS
        row = ask(folder, peer.address, range(1000, 1000 + count), GRANTS_A_SECOND)
        row["enforcer_us"] = round((peers.cpu_s(enforcer) - before_s) * 1e6 / count, 1)
        if store:
            row["grants"] = store.grants()
            row["redis_bytes"] = round((store.info("used_memory") - empty) / max(row["grants"], 1))
    return row


def held() -> dict[str, dict[str, float]]:
    """Return hold and latency at 500 new names a second: without Redis, with it, while it is frozen."""
    rows = {}
    with one_node(shared=False) as (folder, peer, _):
        rows["no Redis"] = _held(folder, peer, 0)
    with one_node(shared=True) as (folder, peer, store):
        assert store is not None
        rows["Redis"] = _held(folder, peer, 0)
        os.kill(store.pid, signal.SIGSTOP)
        rows["Redis frozen"] = _held(folder, peer, 1)
    return rows


def _held(folder: Path, peer: peers.Peer, part: int) -> dict[str, float]:
    first = 1000 + part * HELD_NAMES
    before_s, before = hold_totals()
    row = ask(folder, peer.address, range(first, first + HELD_NAMES), HELD_RATE)
    after_s, after = hold_totals()
    return row | {"hold": round((after_s - before_s) * 1000 / max(after - before, 1), 3)}


def hold_totals() -> tuple[float, float]:
    """Return the seconds that answers were held for grants so far, and how many were."""
    fetch = "import urllib.request as u;print(u.urlopen('http://127.0.0.1:9153/metrics').read().decode())"
    text = run(sys.executable, "-c", fetch, netns=NODE)
    found = dict(re.findall(r"^nameward_hold_seconds_(sum|count)\S* (\S+)", text, re.MULTILINE))
    return float(found.get("sum", 0)), float(found.get("count", 0))


@contextmanager
def two_nodes(names: int = ALL_NAMES) -> Iterator[tuple[Path, str, str]]:
    """Two nodes that share a Redis: a folder, and where the pod of the first asks its own, and the other."""
    with tempfile.TemporaryDirectory() as name, topology(), second_node(), ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        for netns in (NODE, SECOND):
            stack.enter_context(peers.upstream(folder / f"upstream-{netns}", names, netns=netns))
        state = stack.enter_context(redis(folder / "redis", UPLINKS[0])).state
        other = f', listen: ["{UPLINKS[1]}"]'
        own = peers.nameward(
            folder / "own",
            address="10.66.0.1",
            state=state,
            dns=f', capture: false, listen: ["10.66.0.1"], peers: ["{UPLINKS[1]}"]',
        )
        far = peers.nameward(
            folder / "other", name="second", netns=SECOND, address=UPLINKS[1], state=state, dns=other
        )
        nodes = [stack.enter_context(own), stack.enter_context(far)]
        for peer in nodes:
            for pid in peer.processes:
                pin(pid, *CORES)  # two nodes have more than one core between them
        yield folder, "10.66.0.1", UPLINKS[1]


def across() -> dict[str, dict[str, float]]:
    """Return the latency of a pod's lookups by its own node, and by another that has to ask its own."""
    names = [range(1000 + part * HELD_NAMES, 1000 + (part + 1) * HELD_NAMES) for part in range(2)]
    with two_nodes() as (folder, *addresses):
        own, other_row = (
            ask(folder, address, part, HELD_RATE) for address, part in zip(addresses, names, strict=True)
        )
    added = {key: round(other_row[key] - own[key], 3) for key in ("p50", "p99")}
    return {"own node": own, "another node": other_row, "added": added}


def report(
    results: dict[str, dict[str, dict[str, float]]], new: shared_cost.Cost, renewed: shared_cost.Cost
) -> str:
    """Return the Markdown tables."""
    without, with_redis = results["cost"]["no Redis"], results["cost"]["Redis"]
    added = round(with_redis["enforcer_us"] - without["enforcer_us"], 1)
    lines = [
        f"| sharing at {GRANTS_A_SECOND:,} grants a second | measured | goal |",
        "|---|---|---|",
        f"| CPU a grant in the enforcer, with Redis less without, µs | {added} | 15 |",
        f"| a new grant, the code alone, all threads, µs | {new.added_us:.1f} | 15 |",
        f"| a renewed one, µs | {renewed.added_us:.1f} | 15 |",
        f"| Redis memory a grant, bytes | {with_redis['redis_bytes']} | 600 |",
        "",
        f"| lookups of new names, {HELD_RATE} a second | P50 ms | P99 ms | hold, mean ms | answered |",
        "|---|---|---|---|---|",
    ]
    for title, row in (*results["held"].items(), *results["across"].items()):
        held_ms, answered = row.get("hold", ""), row.get("answered", "")
        lines.append(f"| {title} | {row['p50']} | {row['p99']} | {held_ms} | {answered} |")
    return "\n".join(lines)


def main() -> int:
    """Measure, print JSON, then the tables."""
    if not shutil.which("redis-server"):
        print("missing: redis-server; apt-get install redis-server", file=sys.stderr)
        return 2
    new, renewed = (shared_cost.measure(what) for what in ("new", "renewed"))
    results: dict[str, dict[str, dict[str, float]]] = {}
    results["cost"] = {title: cost(shared=title == "Redis") for title in ("no Redis", "Redis")}
    print(json.dumps(results), file=sys.stderr, flush=True)
    results["held"] = held()
    results["across"] = across()
    print(json.dumps(results, indent=2))
    print("\n" + report(results, new, renewed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
