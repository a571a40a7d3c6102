"""The servers that are measured: how each is configured and started in the node's namespace.

Owns their configuration, so that a reader can see that the comparison is fair: one worker each on the
same core, no validation, caches as large as each can well have them, the same upstream. All end with
their context.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.topology import (
    HERE,
    LOAD_CORE,
    NODE_ADDRESSES,
    POD_ADDRESSES,
    SERVER_CORE,
    Place,
    pin,
    pod_address,
    run,
)

ZONE = "bench.com"
UPSTREAM_PORT = 5300
CLUSTER_DNS = "100.96.0.10"


class Peer(NamedTuple):
    """A server under test: its name, the address the pod asks, its processes, and where it is."""

    name: str
    address: str
    processes: tuple[int, ...]
    place: Place = HERE

    def named(self, comm: str) -> tuple[int, ...]:
        """Return those of its processes whose names begin so."""
        return tuple(pid for pid in self.processes if _comm(pid).startswith(comm))


def cpu_s(processes: tuple[int, ...]) -> float:
    """Return the CPU seconds (user and system) that these processes and their threads have used."""
    return sum(_ran_ns(pid) for pid in processes) / 1e9


def _ran_ns(pid: int) -> int:
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((thread / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return total


def _comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _children(pid: int) -> tuple[int, ...]:
    own = tuple(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return own + tuple(grandchild for child in own for grandchild in _children(child))


def _wait_for_answer(
    process: subprocess.Popen[bytes], address: str, place: Place, deadline_s: float = 60.0
) -> None:
    end = time.monotonic() + deadline_s
    ask = [
        "ip",
        "netns",
        "exec",
        place.pod,
        "dig",
        "+time=1",
        "+tries=1",
        "+short",
        f"@{address}",
        f"h0.{ZONE}",
    ]
    while time.monotonic() < end and process.poll() is None:
        if subprocess.run(ask, capture_output=True, text=True, check=False).stdout.startswith("45."):
            return
        time.sleep(0.05)
    raise SystemExit(f"no answer from the server under test at {address} within {deadline_s:.0f} s")


@contextmanager
def _started(name: str, argv: list[str], address: str, log: Path, place: Place) -> Iterator[Peer]:
    log.parent.mkdir(exist_ok=True)
    with (
        log.open("wb") as out,
        subprocess.Popen(["ip", "netns", "exec", place.node, *argv], stdout=out, stderr=out) as process,
    ):
        try:
            try:
                _wait_for_answer(process, address, place)
            except SystemExit as failure:
                raise SystemExit(f"{name}: {failure}\n{log.read_text()[-2000:]}") from None
            peer = Peer(name, address, (process.pid, *_children(process.pid)), place)
            for pid in peer.processes:
                pin(pid, SERVER_CORE)
            yield peer
        finally:
            process.terminate()


@contextmanager
def upstream(folder: Path, names: int, *, netns: str = HERE.node) -> Iterator[None]:
    """Serve ``names`` names h0 … with an address of their own each, by nsd on a node's loopback."""
    folder.mkdir(exist_ok=True)
    records = [f"h{i} 300 A 45.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}" for i in range(names)]
    (folder / "zone").write_text(
        f"$ORIGIN {ZONE}.\n@ 300 SOA ns host 1 3600 600 86400 60\n@ 300 NS ns\nns A 45.255.0.1\n"
        + "\n".join(records)
        + "\n"
    )
    (folder / "nsd.conf").write_text(
        f'server:\n ip-address: 127.0.0.1@{UPSTREAM_PORT}\n username: root\n chroot: ""\n server-count: 1\n'
        f" pidfile: {folder}/nsd.pid\n xfrdfile: {folder}/xfrd\n zonelistfile: {folder}/zones\n"
        f' database: ""\n'
        f"remote-control:\n control-enable: no\n"
        f"zone:\n name: {ZONE}\n zonefile: {folder}/zone\n"
    )
    argv = [
        "taskset",
        "-c",
        str(LOAD_CORE),
        "ip",
        "netns",
        "exec",
        netns,
        "nsd",
        "-d",
        "-c",
        str(folder / "nsd.conf"),
    ]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


@contextmanager
def foreign_chains(count: int, place: Place = HERE) -> Iterator[None]:
    """Fill another table of the node with chains, as kube-proxy in nftables mode does."""
    chains = "".join(
        f"  chain svc-{i} {{ ip daddr 10.96.{i >> 8}.{i & 255} counter accept; }}\n" for i in range(count)
    )
    run("nft", "-f", "-", netns=place.node, stdin=f"table ip foreign {{\n{chains}}}\n")
    try:
        yield
    finally:
        run("nft", "delete", "table", "ip", "foreign", netns=place.node)


@contextmanager
def dnsmasq(folder: Path, place: Place = HERE, *, nftset: str = "", cache: int = 10_000) -> Iterator[Peer]:
    """Debian's dnsmasq; with ``nftset`` (a set's type and flags) it adds every answered address to one.

    Its cache is as large as its manual lets it be.
    """
    argv = [
        "dnsmasq", "-k", "-C", "/dev/null", "--no-resolv", "--no-hosts", "--user=root",
        f"--cache-size={cache}",
        f"--server=127.0.0.1#{UPSTREAM_PORT}", f"--listen-address={NODE_ADDRESSES[0]}", "--bind-interfaces",
        "--dns-forward-max=10000", f"--pid-file={folder}/dnsmasq.pid", "--log-facility=-",
    ]  # fmt: skip
    if nftset:
        table = f"table inet bench {{ set s {{ {nftset} }}\n}}\n"
        run("nft", "-f", "-", netns=place.node, stdin=table)
        argv.append(f"--nftset=/{ZONE}/4#inet#bench#s")
    name = "dnsmasq --nftset" if nftset else "dnsmasq"
    with _started(name, argv, NODE_ADDRESSES[0], folder / "dnsmasq.log", place) as peer:
        yield peer


@contextmanager
def unbound(folder: Path, place: Place = HERE) -> Iterator[Peer]:
    """Debian's Unbound as a forwarder."""
    folder.mkdir(exist_ok=True)
    (folder / "unbound.conf").write_text(
        f"server:\n interface: {NODE_ADDRESSES[0]}\n access-control: 0.0.0.0/0 allow\n"
        f" do-not-query-localhost: no\n incoming-num-tcp: 100\n"
        f' do-daemonize: no\n username: ""\n chroot: ""\n directory: "{folder}"\n pidfile: ""\n'
        f" use-syslog: no\n"
        f' module-config: "iterator"\n num-threads: 1\n msg-cache-size: 64m\n rrset-cache-size: 64m\n'
        f'forward-zone:\n name: "."\n forward-addr: 127.0.0.1@{UPSTREAM_PORT}\n'
        f"remote-control:\n control-enable: no\n"
    )
    argv = ["unbound", "-d", "-c", str(folder / "unbound.conf")]
    with _started("Unbound", argv, NODE_ADDRESSES[0], folder / "unbound.log", place) as peer:
        yield peer


def coredns_program() -> str | None:
    """Return CoreDNS where the cluster's programs are (``deploy/setup.sh cluster``), or on the path."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    folder = os.environ.get("NAMEWARD_CLUSTER_BIN") or f"{cache}/nameward-cluster/bin"
    return shutil.which("coredns", path=folder) or shutil.which("coredns")


@contextmanager
def coredns(folder: Path, place: Place = HERE) -> Iterator[Peer]:
    """CoreDNS with one processor and the plugins of kubeadm's Corefile that an outside name goes through."""
    program = coredns_program()
    assert program
    folder.mkdir(exist_ok=True)
    (folder / "Corefile").write_text(
        f".:53 {{\n bind {NODE_ADDRESSES[0]}\n errors\n prometheus 127.0.0.1:9253\n loadbalance\n"
        f" cache {{\n  success 100000\n  denial 100000\n }}\n forward . 127.0.0.1:{UPSTREAM_PORT}\n}}\n"
    )
    argv = ["env", "GOMAXPROCS=1", program, "-conf", str(folder / "Corefile")]
    with _started("CoreDNS", argv, NODE_ADDRESSES[0], folder / "coredns.log", place) as peer:
        yield peer


_POD = """
---
apiVersion: v1
kind: Pod
metadata: {{name: load-{number}, namespace: bench, uid: bench-load-{number}, labels: {{app: load-{number}}}}}
spec: {{nodeName: bench}}
status: {{phase: Running, podIPs: [{addresses}]}}
"""
_POLICY = """
---
apiVersion: networking.aviatrix.com/v1alpha1
kind: FirewallPolicy
metadata: {{name: load-{number}, namespace: bench}}
spec:
  smartGroups: [{{name: any, selectors: [{{cidr: 0.0.0.0/0}}]}}]
  webGroups: [{{name: names, domains: [{domains}]}}]
  rules:
  - {{name: allow, action: permit, selector: {{matchLabels: {{app: load-{pod}}}}}, protocol: tcp, port: 443,
      destinationSmartGroups: [{{name: any}}], webGroups: [{{name: names}}]}}
"""


def manifests(pods: int = 1, policies: int = 0, names: int = 0) -> str:
    """Return the node's objects: pods, and policies that each permit ``names`` names to one of them.

    Policy ``n`` permits h(n * names) … to pod n modulo ``pods``. Without policies each pod has one for
    the whole zone.
    """
    text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: bench}\n"
    for number in range(pods):
        own = f"{{ip: {pod_address(number)}}}" + (f', {{ip: "{POD_ADDRESSES[1]}"}}' if number == 0 else "")
        text += _POD.format(number=number, addresses=own)
    for number in range(policies):
        domains = ", ".join(f"h{number * names + name}.{ZONE}" for name in range(names))
        text += _POLICY.format(number=number, pod=number % pods, domains=domains)
    for number in range(0 if policies else pods):
        text += _POLICY.format(number=number, pod=number, domains=f'"*.{ZONE}"')
    return text


_CONFIG = """
node: {name}
runtimeDir: {folder}/run
policy: {{manifests: [{manifests}], governedNamespaces: [bench]}}
dns: {{upstreams: ["127.0.0.1:{port}"]{dns}}}
enforcement:
  {{podInterfaces: [vpod], clusterCIDRs: [10.66.0.0/24, 10.67.0.0/24, "fd66::/64"], grace: {grace}}}
limits:
  {{queriesPerSecond: 1000000, queriesInFlight: 4096, distinctNames: 1000000/10m, grantsPerPod: 1000000,
    cacheEntries: 1000000}}
metrics: {{listen: "127.0.0.1:9153"}}
{state}
"""


@contextmanager
def nameward(
    folder: Path,
    place: Place = HERE,
    *,
    name: str = "bench",
    netns: str = "",
    address: str = CLUSTER_DNS,
    dns: str = "",
    state: str = "",
    grace: str = "60s",
    objects: str = "",
) -> Iterator[Peer]:
    """This project's node, as a user runs it, with limits above what the benchmark asks.

    ``dns`` and ``state`` are more of its configuration; ``address`` is what the pod asks; ``grace`` is how
    long grants outlive their answers; ``objects`` are the manifests (else those of one pod).
    """
    place = place._replace(node=netns) if netns else place
    folder.mkdir(exist_ok=True)
    found = folder / "manifests"
    found.mkdir()
    (found / "bench.yaml").write_text(objects or manifests())
    config = folder / "nameward.yaml"
    config.write_text(
        _CONFIG.format(
            name=name, folder=folder, manifests=found, port=UPSTREAM_PORT, dns=dns, state=state, grace=grace
        )
    )
    command = str(Path(sys.executable).parent / "nameward")
    argv = [command, "node", "--config", str(config)]
    with _started("Nameward", argv, address, folder / "nameward.log", place) as peer:
        yield peer
