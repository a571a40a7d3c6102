"""Measure the ways a pod's DNS packet can take to the resolver (docs/adr/0002).

Two throw-away network namespaces (a pod, a node), an echoing DNS server on the node, and a client
that asks A and AAAA back to back from a fresh socket, once each, 10,000 times. A way that loses one
pair has lost. Needs root, nft and gcc; prints one JSON object per way and a Markdown table.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.topology import NODE, POD, run, topology

HERE = Path(__file__).parent
PAIRS, THREADS, TIMEOUT_MS = 10_000, 8, 2000
ONE = {4: ["100.96.0.10"], 6: ["fd96::10"]}
SEVERAL = {4: ["100.96.0.10", "100.96.0.11", "100.96.0.12"], 6: ["fd96::10", "fd96::11", "fd96::12"]}

REDIRECT = """
table inet way {
  chain c { type nat hook prerouting priority dstnat; meta l4proto udp th dport 53 redirect to :15353; }
}
"""
TPROXY = """
table inet way {
  chain c { type filter hook prerouting priority mangle;
    ip daddr != 127.0.0.1 udp dport 53 tproxy ip to 127.0.0.1:15353 meta mark set 0x53 accept
    meta nfproto ipv6 udp dport 53 tproxy ip6 to [::1]:15353 meta mark set 0x53 accept
  }
}
"""
TPROXY_NOTRACK = """
table inet way {
  chain r { type filter hook prerouting priority raw; udp dport 53 notrack; }
  chain c { type filter hook prerouting priority mangle;
    ip daddr != 127.0.0.1 udp dport 53 tproxy ip to 127.0.0.1:15353 meta mark set 0x53 accept
    meta nfproto ipv6 udp dport 53 tproxy ip6 to [::1]:15353 meta mark set 0x53 accept
  }
  chain o { type filter hook output priority raw; udp sport 53 notrack; udp sport 15353 notrack; }
}
"""
REWRITE = """
table inet way {
  chain r { type filter hook prerouting priority raw;
    udp dport 53 udp checksum 0 meta mark set 0x53 notrack th dport set 15353 accept
    udp dport 53 meta mark set 0x53 notrack udp dport set 15353 accept
  }
  chain o { type filter hook output priority raw; udp sport 15353 udp sport set 53 notrack accept; }
}
"""
# name -> (ruleset, transparent socket, needs the routing rule)
WAYS = {
    "redirect": (REDIRECT, False, False),
    "TPROXY, tracked": (TPROXY, True, True),
    "TPROXY, notrack": (TPROXY_NOTRACK, True, True),
    "mark + notrack + port rewrite": (REWRITE, True, True),
}
# Neighbors found in clusters: NodeLocal DNSCache takes its address out of conntrack; kube-proxy translates
# the cluster DNS address to a pod's (here: one that does not answer).
NEIGHBORS = {
    "beside NodeLocal's notrack": """
table inet neighbor {
  chain c { type filter hook prerouting priority -310;
    ip daddr 100.96.0.10 udp dport 53 notrack
    ip6 daddr fd96::10 udp dport 53 notrack
  }
}
""",
    "beside kube-proxy's translation": """
table inet neighbor {
  chain c { type nat hook prerouting priority -101;
    ip daddr 100.96.0.10 udp dport 53 dnat ip to 10.66.0.99:53
    ip6 daddr fd96::10 udp dport 53 dnat ip6 to [fd66::99]:53
  }
}
""",
}
CONNTRACK_ON = """
table inet tracked {
  chain c { type filter hook forward priority 0; ct state new accept; }
  chain i { type filter hook input priority 0; ct state new accept; }
}
"""


def route_by_mark(verb: str) -> None:
    """Add or delete the rule and the table that deliver marked packets locally, both families."""
    for family, source in (("-4", "10.66.0.0/24"), ("-6", "fd66::/64")):
        if verb == "add":
            run(
                "ip",
                family,
                "route",
                "replace",
                "local",
                "default",
                "dev",
                "lo",
                "table",
                "15353",
                netns=NODE,
            )
        run("ip", family, "rule", verb, "from", source, "fwmark", "0x53/0xff", "lookup", "15353", netns=NODE)


def busy_ticks() -> int:
    """Return the clock ticks that all processors spent not idle (of /proc/stat's first line)."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return sum(fields) - fields[3] - fields[4]


def conntrack_entries() -> int:
    """Return how many flows the node's conntrack holds."""
    return int(run("cat", "/proc/sys/net/netfilter/nf_conntrack_count", netns=NODE))


def measure(client: Path, family: int, how: str, servers: list[str], pairs: int = PAIRS) -> dict[str, float]:
    """Ask all pairs once; return the share lost, conntrack entries made, and CPU a query in microseconds."""
    before_entries, before_ticks = conntrack_entries(), busy_ticks()
    out = run(str(client), str(pairs), str(THREADS), str(TIMEOUT_MS), how, *servers, netns=POD)
    ticks = busy_ticks() - before_ticks
    queries = pairs * 2 * len(servers)
    return {
        "pairs": pairs,
        "lost": int(out.split()[1]),
        "conntrack": conntrack_entries() - before_entries,
        "cpu_us": round(ticks / os.sysconf("SC_CLK_TCK") * 1e6 / queries, 1),
        "family": family,
    }


def measure_way(name: str, tools: Path) -> list[dict[str, object]]:
    """Set one way up, run every case over it, take it down again."""
    ruleset, transparent, routed = WAYS[name]
    results: list[dict[str, object]] = []
    run("nft", "-f", "-", netns=NODE, stdin=ruleset)
    if routed:
        route_by_mark("add")
    argv = [
        "ip",
        "netns",
        "exec",
        NODE,
        str(tools / "echo_dns"),
        "15353",
        *(["transparent"] if transparent else []),
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            server.stdout.readline()
            for family in (4, 6):
                for case, how, servers in (
                    ("A+AAAA, sendmmsg", "mmsg", ONE[family]),
                    ("A+AAAA, two threads", "threads", ONE[family]),
                    ("three servers at once", "mmsg", SEVERAL[family]),
                ):
                    figures = measure(tools / "pairs", family, how, servers)
                    results.append({"way": name, "case": case, **figures})
                    print(json.dumps(results[-1]), flush=True)
                for case, ruleset in NEIGHBORS.items():
                    run("nft", "-f", "-", netns=NODE, stdin=ruleset)
                    figures = measure(tools / "pairs", family, "mmsg", ONE[family], pairs=40)
                    run("nft", "delete", "table", "inet", "neighbor", netns=NODE)
                    results.append({"way": name, "case": case, **figures})
                    print(json.dumps(results[-1]), flush=True)
        finally:
            server.terminate()
    if routed:
        route_by_mark("delete")
    run("nft", "delete", "table", "inet", "way", netns=NODE)
    return results


def main() -> int:
    """Measure all ways and print the table."""
    with tempfile.TemporaryDirectory() as folder, topology():
        run("nft", "-f", "-", netns=NODE, stdin=CONNTRACK_ON)
        for tool in ("pairs", "echo_dns"):
            run("gcc", "-O2", "-pthread", "-o", f"{folder}/{tool}", str(HERE / f"{tool}.c"))
        rows = [row for name in WAYS for row in measure_way(name, Path(folder))]
    print("\n| way | case | family | pairs lost | conntrack entries | CPU a query, µs |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print("| {way} | {case} | IPv{family} | {lost} of {pairs} | {conntrack} | {cpu_us} |".format(**row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
