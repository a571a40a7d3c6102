"""The servers that are measured: how each is configured and started in the node's namespace.

Owns their configuration, so that a reader can see that the comparison is fair: one worker each, no
validation, caches larger than the question set, the same upstream. All of them end with their context.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.topology import NODE, NODE_ADDRESSES, POD, POD_ADDRESSES, run

ZONE = "bench.com"
UPSTREAM_PORT = 5300
CLUSTER_DNS = "100.96.0.10"
HERE = Path(__file__).parent


class Peer(NamedTuple):
    """A server under test: its name, the address the pod asks, and its processes."""

    name: str
    address: str
    processes: tuple[int, ...]


def cpu_s(processes: tuple[int, ...]) -> float:
    """Return the CPU seconds (user and system) that these processes have used."""
    total = 0
    for pid in processes:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / 100


def _children(pid: int) -> tuple[int, ...]:
    own = tuple(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return own + tuple(grandchild for child in own for grandchild in _children(child))


def _wait_for_answer(address: str, deadline_s: float = 20.0) -> None:
    end = time.monotonic() + deadline_s
    ask = ["ip", "netns", "exec", POD, "dig", "+time=1", "+tries=1", "+short", f"@{address}", f"h0.{ZONE}"]
    while time.monotonic() < end:
        if subprocess.run(ask, capture_output=True, text=True, check=False).stdout.startswith("45."):
            return
    raise SystemExit(f"no answer from the server under test at {address} within {deadline_s:.0f} s")


@contextmanager
def _started(name: str, argv: list[str], address: str, log: Path, *, netns: str = NODE) -> Iterator[Peer]:
    with (
        log.open("wb") as out,
        subprocess.Popen(["ip", "netns", "exec", netns, *argv], stdout=out, stderr=out) as process,
    ):
        try:
            _wait_for_answer(address)
            yield Peer(name, address, (process.pid, *_children(process.pid)))
        except SystemExit as failure:
            raise SystemExit(f"{name}: {failure}\n{log.read_text()[-2000:]}") from None
        finally:
            process.terminate()


@contextmanager
def upstream(folder: Path, names: int, *, netns: str = NODE) -> Iterator[None]:
    """Serve ``names`` names h0 … with an address of their own each, by nsd on a node's loopback."""
    folder.mkdir(exist_ok=True)
    records = "\n".join(f"h{i} 300 A 45.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}" for i in range(names))
    (folder / "zone").write_text(
        f"$ORIGIN {ZONE}.\n@ 300 SOA ns host 1 3600 600 86400 60\n@ 300 NS ns\nns A 45.255.0.1\n{records}\n"
    )
    (folder / "nsd.conf").write_text(
        f'server:\n ip-address: 127.0.0.1@{UPSTREAM_PORT}\n username: root\n chroot: ""\n server-count: 1\n'
        f" pidfile: {folder}/nsd.pid\n xfrdfile: {folder}/xfrd\n zonelistfile: {folder}/zones\n"
        f' database: ""\n'
        f"remote-control:\n control-enable: no\n"
        f"zone:\n name: {ZONE}\n zonefile: {folder}/zone\n"
    )
    argv = ["ip", "netns", "exec", netns, "nsd", "-d", "-c", str(folder / "nsd.conf")]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


@contextmanager
def foreign_chains(count: int) -> Iterator[None]:
    """Fill another table of the node with chains, as kube-proxy in nftables mode does."""
    chains = "".join(
        f"  chain svc-{i} {{ ip daddr 10.96.{i >> 8}.{i & 255} counter accept; }}\n" for i in range(count)
    )
    run("nft", "-f", "-", netns=NODE, stdin=f"table ip foreign {{\n{chains}}}\n")
    try:
        yield
    finally:
        run("nft", "delete", "table", "ip", "foreign", netns=NODE)


@contextmanager
def dnsmasq(folder: Path, *, nftset: bool = False) -> Iterator[Peer]:
    """Debian's dnsmasq; with ``nftset`` it adds every answered address to an nftables set."""
    name = "dnsmasq --nftset" if nftset else "dnsmasq"
    argv = [
        "dnsmasq", "-k", "-C", "/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--cache-size=10000",
        f"--server=127.0.0.1#{UPSTREAM_PORT}", f"--listen-address={NODE_ADDRESSES[0]}", "--bind-interfaces",
        "--dns-forward-max=10000", f"--pid-file={folder}/dnsmasq.pid", "--log-facility=-",
    ]  # fmt: skip
    if nftset:
        run("nft", "-f", "-", netns=NODE, stdin="table inet bench { set s { type ipv4_addr; }\n}\n")
        argv.append(f"--nftset=/{ZONE}/4#inet#bench#s")
    try:
        with _started(name, argv, NODE_ADDRESSES[0], folder / "dnsmasq.log") as peer:
            yield peer
    finally:
        if nftset:
            run("nft", "delete", "table", "inet", "bench", netns=NODE)


@contextmanager
def unbound(folder: Path) -> Iterator[Peer]:
    """Debian's Unbound as a forwarder."""
    (folder / "unbound.conf").write_text(
        f"server:\n interface: {NODE_ADDRESSES[0]}\n access-control: 0.0.0.0/0 allow\n"
        f" do-not-query-localhost: no\n"
        f' do-daemonize: no\n username: ""\n chroot: ""\n directory: "{folder}"\n pidfile: ""\n'
        f" use-syslog: no\n"
        f' module-config: "iterator"\n num-threads: 1\n msg-cache-size: 64m\n rrset-cache-size: 64m\n'
        f'forward-zone:\n name: "."\n forward-addr: 127.0.0.1@{UPSTREAM_PORT}\n'
        f"remote-control:\n control-enable: no\n"
    )
    argv = ["unbound", "-d", "-c", str(folder / "unbound.conf")]
    with _started("Unbound", argv, NODE_ADDRESSES[0], folder / "unbound.log") as peer:
        yield peer


_POLICY = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: bench}}
---
apiVersion: v1
kind: Pod
metadata: {{name: load, namespace: bench, uid: bench-load, labels: {{app: load}}}}
spec: {{nodeName: bench}}
status: {{phase: Running, podIPs: [{{ip: {POD_ADDRESSES[0]}}}, {{ip: "{POD_ADDRESSES[1]}"}}]}}
---
apiVersion: networking.aviatrix.com/v1alpha1
kind: FirewallPolicy
metadata: {{name: load, namespace: bench}}
spec:
  smartGroups: [{{name: any, selectors: [{{cidr: 0.0.0.0/0}}]}}]
  webGroups: [{{name: zone, domains: ["*.{ZONE}"]}}]
  rules:
  - {{name: allow, action: permit, selector: {{matchLabels: {{app: load}}}}, protocol: tcp, port: 443,
      destinationSmartGroups: [{{name: any}}], webGroups: [{{name: zone}}]}}
"""


_CONFIG = """
node: {name}
runtimeDir: {folder}/run
policy: {{manifests: [{manifests}], governedNamespaces: [bench]}}
dns: {{upstreams: ["127.0.0.1:{port}"]{dns}}}
enforcement: {{podInterfaces: [vpod], clusterCIDRs: [10.66.0.0/24, 10.67.0.0/24, "fd66::/64"]}}
limits:
  {{queriesPerSecond: 1000000, queriesInFlight: 4096, distinctNames: 1000000/10m, grantsPerPod: 1000000}}
metrics: {{listen: "127.0.0.1:9153"}}
{state}
"""


@contextmanager
def nameward(
    folder: Path,
    *,
    name: str = "bench",
    netns: str = NODE,
    address: str = CLUSTER_DNS,
    dns: str = "",
    state: str = "",
) -> Iterator[Peer]:
    """This project's node, as a user runs it, with limits above what the benchmark asks.

    ``dns`` and ``state`` are more of its configuration; ``address`` is what the pod asks.
    """
    folder.mkdir(exist_ok=True)
    manifests = folder / "manifests"
    manifests.mkdir()
    (manifests / "bench.yaml").write_text(_POLICY)
    config = folder / "nameward.yaml"
    config.write_text(
        _CONFIG.format(
            name=name, folder=folder, manifests=manifests, port=UPSTREAM_PORT, dns=dns, state=state
        )
    )
    command = str(Path(sys.executable).parent / "nameward")
    argv = [command, "node", "--config", str(config)]
    with _started("Nameward", argv, address, folder / "nameward.log", netns=netns) as peer:
        yield peer
