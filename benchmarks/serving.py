"""Measure what an answer costs, beside peers in the same run: cached, missed, held.

For each server: CPU microseconds a query (user and system time of its processes, not of the machine)
for answers from its cache, and for names it has never seen; for those Nameward and `dnsmasq --nftset`
also open the address in the kernel. Prints one JSON object and a Markdown table with ratios
(dnsmasq = 1.00). Timing never fails: this is no test. Needs root, nsd, dnsmasq, Unbound, dnsperf.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.topology import NODE, POD, run, topology

CACHED_NAMES, CACHED_QUERIES, MISSED_NAMES = 100, 200_000, 20_000
HELD_FROM, HELD_NAMES, HELD_RATE = 1000 + MISSED_NAMES, 5_000, 500
"""Names and queries a second by which the hold is measured: a busy pod, not a flooded one."""
ALL_NAMES = HELD_FROM + HELD_NAMES
FOREIGN_CHAINS = 2_000
"""Chains in somebody else's table, as kube-proxy has them in nftables mode with some hundred Services."""
SLOW_MISSED_NAMES = 1_000
"""Misses for `dnsmasq --nftset` beside them: milliseconds each."""


def ask(
    folder: Path, peer: peers.Peer, names: range, *, times: int, window: int, rate: int = 1_000_000
) -> dict[str, float]:
    """Ask every name ``times`` times, ``window`` at once, ``rate`` a second at most.

    Returns CPU a query (µs), answers a second, the share answered and the mean latency (ms).
    """
    (folder / "questions").write_text("".join(f"h{i}.{peers.ZONE} A\n" for i in names))
    before_s = peers.cpu_s(peer.processes)
    questions = str(folder / "questions")
    load = ["-n", str(times), "-c", "4", "-q", str(window), "-Q", str(rate)]
    out = run("dnsperf", "-s", peer.address, "-d", questions, *load, netns=POD)
    used_s = peers.cpu_s(peer.processes) - before_s

    def figure(label: str) -> float:
        found = re.search(rf"{label}:\s+([\d.]+)", out)
        return float(found[1]) if found else 0.0

    completed = figure("Queries completed")
    return {
        "cpu_us": round(used_s * 1e6 / max(completed, 1), 2),
        "qps": round(figure("Queries per second")),
        "answered": completed / max(figure("Queries sent"), 1),
        "latency_ms": round(figure(r"Average Latency \(s\)") * 1000, 3),
    }


def hold_ms() -> dict[str, float]:
    """Return the hold's P50 and P99 (upper bounds of their histogram buckets) and its mean, in ms."""
    fetch = "import urllib.request as u;print(u.urlopen('http://127.0.0.1:9153/metrics').read().decode())"
    text = run(sys.executable, "-c", fetch, netns=NODE)
    buckets = [
        (float(bound), float(count))
        for bound, count in re.findall(r'^nameward_hold_seconds_bucket\{.*le="([^"]+)".*\} (\S+)', text, re.M)
    ]
    total = buckets[-1][1] if buckets else 0.0
    sums = re.search(r"^nameward_hold_seconds_sum\S* (\S+)", text, re.M)

    def quantile(share: float) -> float:
        return next((bound * 1000 for bound, count in buckets if count >= total * share), 0.0)

    return {
        "p50": quantile(0.5),
        "p99": quantile(0.99),
        "mean": round(float(sums[1]) * 1000 / total, 3) if sums and total else 0.0,
    }


Start = Callable[[Path], AbstractContextManager[peers.Peer]]
Row = dict[str, Any]


def measure(start: Start, misses: int, *, foreign_chains: int = 0) -> Row:
    """Start one server in namespaces of its own, ask it names it never saw, then the same few."""
    with (
        tempfile.TemporaryDirectory() as name,
        topology(),
        peers.foreign_chains(foreign_chains),
        peers.upstream(Path(name), ALL_NAMES),
    ):
        folder = Path(name)
        folder.chmod(0o755)
        with start(folder) as peer:
            row: Row = {"server": peer.name}
            if peer.name == "Nameward":
                ask(folder, peer, range(HELD_FROM, ALL_NAMES), times=1, window=8, rate=HELD_RATE)
                row["hold_ms"] = hold_ms()
            row["miss"] = ask(folder, peer, range(1000, 1000 + misses), times=1, window=64)
            if not foreign_chains:
                ask(folder, peer, range(CACHED_NAMES), times=2, window=20)
                repeats = CACHED_QUERIES // CACHED_NAMES
                row["cached"] = ask(folder, peer, range(CACHED_NAMES), times=repeats, window=100)
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def nftset(folder: Path) -> AbstractContextManager[peers.Peer]:
    """Dnsmasq that also adds each answered address to a set: the nearest peer by what it does."""
    return peers.dnsmasq(folder, nftset=True)


def report(quiet: list[Row], crowded: list[Row]) -> str:
    """Return the Markdown tables."""
    base = quiet[0]
    lines = [
        "| server | cached answer, CPU µs | ÷ dnsmasq | miss, CPU µs | ÷ dnsmasq | answered |",
        "|---|---|---|---|---|---|",
    ]
    for row in quiet:
        cached, miss = row["cached"], row["miss"]
        figures = (
            cached["cpu_us"],
            round(cached["cpu_us"] / base["cached"]["cpu_us"], 2),
            miss["cpu_us"],
            round(miss["cpu_us"] / base["miss"]["cpu_us"], 2),
            round(min(cached["answered"], miss["answered"]), 4),
        )
        lines += ["| " + " | ".join(map(str, (row["server"], *figures))) + " |"]
    lines += ["", f"Beside {FOREIGN_CHAINS:,} chains of another table:", ""]
    lines += ["| server | miss, CPU µs | ÷ dnsmasq --nftset | answers a second |", "|---|---|---|---|"]
    for row in crowded:
        ratio = row["miss"]["cpu_us"] / crowded[0]["miss"]["cpu_us"]
        lines.append(f"| {row['server']} | {row['miss']['cpu_us']} | {ratio:.3f} | {row['miss']['qps']} |")
    held = [row["hold_ms"] for row in (*quiet, *crowded) if "hold_ms" in row]
    return "\n".join([*lines, "", f"Hold of an answer, grant asked for to kernel acknowledged, ms: {held}"])


def main() -> int:
    """Measure all servers, print JSON, then the tables."""
    tools = ("nsd", "dnsmasq", "unbound", "dnsperf", "nft", "dig")
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        packages = "nsd dnsmasq-base unbound dnsperf nftables bind9-dnsutils"
        print(f"missing: {', '.join(missing)}; apt-get install {packages}", file=sys.stderr)
        return 2
    starts = (peers.dnsmasq, peers.unbound, nftset, peers.nameward)
    quiet = [measure(start, MISSED_NAMES) for start in starts]
    crowded = [
        measure(nftset, SLOW_MISSED_NAMES, foreign_chains=FOREIGN_CHAINS),
        measure(peers.nameward, MISSED_NAMES, foreign_chains=FOREIGN_CHAINS),
    ]
    print(json.dumps({"quiet": quiet, "crowded": crowded}, indent=2))
    print("\n" + report(quiet, crowded))
    return 0


if __name__ == "__main__":
    sys.exit(main())
