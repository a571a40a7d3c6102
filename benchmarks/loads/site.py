"""A site to load: a namespace of many pods, a node with Nameward, an outside in which every address answers.

Owns the namespaces, the manifests on disk and the node's processes; everything ends with its context.
One veth carries all pods: in their namespace the whole range is local, so a socket can be any of them,
and for the node each is a pod of its own, with its own uid, policy and grants. Never measures.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from benchmarks import obot
from benchmarks.loads.sources import built
from benchmarks.obot import Json
from benchmarks.topology import run

PODS, NODE, OUTSIDE = (f"nwload-{name}-{os.getpid()}" for name in ("pods", "node", "outside"))
ZONE = "bench.com"
NAMESPACE = "bench"
UPSTREAM_PORT = 5300
DNS = "100.96.0.10"
"""What pods ask; nobody has it: the node answers what it captures."""
SERVERS = "45.0.0.0/8"
"""The addresses that names have; all of them are the outside's own."""
HERE, THERE = "10.65.0.1", "10.67.0.2"
DEVICE = "eth0"
"""The pods' end of the veth."""
FIRST_POD = 10 << 24 | 66 << 16 | 1

_CONFIG: Json = {
    "node": "bench",
    "policy": {"governedNamespaces": [NAMESPACE]},
    "dns": {"upstreams": [f"127.0.0.1:{UPSTREAM_PORT}"]},
    "enforcement": {
        "podInterfaces": ["vpod"],
        "clusterCIDRs": ["10.65.0.0/24", "10.66.0.0/16", "10.67.0.0/24"],
    },
}


def pod_address(number: int) -> str:
    """Return the address of a pod; the first has 10.66.0.1."""
    return socket.inet_ntoa((FIRST_POD + number).to_bytes(4, "big"))


def router() -> str:
    """Return the Ethernet address of the node's end of the pods' veth."""
    return str(json.loads(run("ip", "-json", "link", "show", "vpod", netns=NODE))[0]["address"])


def pod(number: int, app: str) -> Json:
    """A pod of this node."""
    return obot.pod(f"pod-{number}", NAMESPACE, app, pod_address(number), node="bench", uid=f"u-{number}")


def policy(name: str, app: str, domains: Iterable[str], cidrs: Iterable[str] = ()) -> Json:
    """One server's policy."""
    return obot.policy(name, NAMESPACE, app, domains, cidrs)


class Site:
    """The namespaces, while they stand, and the manifests of the node that runs in them."""

    def __init__(self, folder: Path, pods: int) -> None:
        self.folder = folder
        self.pods = pods
        self.manifests = folder / "manifests"
        self.manifests.mkdir()
        self.questions = folder / "questions"

    def write(self, name: str, *objects: Json) -> None:
        """Put a manifest into place, whole: written beside, then renamed."""
        beside = self.folder / f".{name}"
        beside.write_text("\n---\n".join(json.dumps(each) for each in objects))
        beside.rename(self.manifests / f"{name}.yaml")

    def write_pods(self, apps: Mapping[int, str] | str) -> None:
        """Declare the namespace and the pods; ``apps`` says each one's app, or that of all."""
        chosen = apps if isinstance(apps, Mapping) else dict.fromkeys(range(self.pods), apps)
        namespace: Json = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        self.write("pods", namespace, *(pod(number, app) for number, app in chosen.items()))

    def asked(self) -> int:
        """Return how many questions the upstream has heard."""
        return int.from_bytes(self.questions.read_bytes()[:8], sys.byteorder)

    def forget(self) -> None:
        """Have the next node start as the first of its host: no journal, no rules."""
        shutil.rmtree(self.folder / "node", ignore_errors=True)
        run("nft", "flush", "ruleset", netns=NODE)

    @contextmanager
    def upstream(self, *, addresses: int = 1, delay_ms: float = 0, core: int | None = None) -> Iterator[None]:
        """Answer every name under every zone, on the node's loopback, and count; ``core``: there alone."""
        argv = [
            *([] if core is None else ["taskset", "-c", str(core)]),
            str(built("answering")),
            str(UPSTREAM_PORT),
            str(addresses),
            str(delay_ms),
            str(self.questions),
        ]
        with subprocess.Popen(
            ["ip", "netns", "exec", NODE, *argv], stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                if process.stdout is None or process.stdout.readline().strip() != "ready":
                    raise SystemExit("the upstream did not start")
                yield
            finally:
                process.kill()

    @contextmanager
    def nameward(
        self, *, within_s: float = 60.0, limits: Json | None = None, grace: str = "1m"
    ) -> Iterator[Node]:
        """Run the node as a user runs it, ``limits`` beside the defaults. Yields once it enforces."""
        folder = self.folder / "node"
        folder.mkdir(exist_ok=True)
        config = _CONFIG | {
            "runtimeDir": str(folder / "run"),
            "policy": _CONFIG["policy"] | {"manifests": [str(self.manifests)]},
            "enforcement": _CONFIG["enforcement"] | {"grace": grace},
            "limits": limits or {},
        }
        (folder / "nameward.yaml").write_text(json.dumps(config))
        node = Node(folder)
        try:
            node.wait(within_s)
            yield node
        finally:
            node.stop()


class Node:
    """A node's three processes, from the moment at which they were started."""

    def __init__(self, folder: Path) -> None:
        self._log: IO[bytes] = (folder / "log").open("wb")
        self._log_path = folder / "log"
        notify = folder / "notify"
        notify.unlink(missing_ok=True)
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind(str(notify))
        command = str(Path(sys.executable).parent / "nameward")
        argv = ["ip", "netns", "exec", NODE, command, "node", "--config", str(folder / "nameward.yaml")]
        self.begun_at = time.monotonic()
        environ = os.environ | {"NOTIFY_SOCKET": str(notify)}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has its bytecode
        self._process = subprocess.Popen(argv, stdout=self._log, stderr=self._log, env=environ)
        self.ready_s = 0.0
        """From start to "READY=1": it enforces, has seen pods' packets meet its rules, and answers."""
        self.serving_s = 0.0
        """From start to a resolver that has told of the policy, too."""

    def wait(self, within_s: float) -> None:
        """Wait until it says that it enforces, and until the resolver has the policy too."""
        self._notified.settimeout(0.05)
        while True:
            with suppress(TimeoutError):
                if b"READY=1" in self._notified.recv(4096):
                    self.ready_s = time.monotonic() - self.begun_at
                    break
            if self._process.poll() is not None or time.monotonic() > self.begun_at + within_s:
                raise SystemExit(f"the node does not enforce:\n{self._log_path.read_text()[-2000:]}")
        while not self.records("snapshot.loaded"):
            if time.monotonic() > self.begun_at + within_s:
                raise SystemExit("the resolver has no policy")
            time.sleep(0.01)
        self.serving_s = time.monotonic() - self.begun_at

    def records(self, event: str) -> list[Json]:
        """Return the log's records of one kind."""
        mark = f'"{event}"'
        lines = [line for line in self._log_path.read_text().splitlines() if mark in line]
        return [json.loads(line) for line in lines]

    def worker(self, name: str) -> int:
        """Return the process id of the ``resolver`` or the ``enforcer``."""
        for pid in self._workers():
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == f"nw-{name}":
                    return pid
        raise SystemExit(f"the {name} is not there")

    def _workers(self) -> list[int]:
        pid = self._process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def memory_bytes(self, which: str = "Pss") -> dict[str, int]:
        """Return each worker's memory: ``Pss``, its share, or ``Rss``."""
        found = {}
        for name in ("resolver", "enforcer"):
            text = Path(f"/proc/{self.worker(name)}/smaps_rollup").read_text()
            line = next(line for line in text.splitlines() if line.startswith(f"{which}:"))
            found[name] = int(line.split()[1]) * 1024
        return found

    def cpu_s(self) -> dict[str, float]:
        """Return the processor time that each worker has used."""
        found = {}
        for name in ("resolver", "enforcer"):
            fields = Path(f"/proc/{self.worker(name)}/stat").read_text().rsplit(") ", 1)[1].split()
            found[name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return found

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        self._notified.close()


def _commands(pods: int) -> Iterator[tuple[str, str]]:
    """Yield the namespaces' ``ip`` commands; pods are permanent neighbours: others a host has 1,024 of."""
    yield PODS, "link set lo up"
    yield PODS, "address add 10.65.0.2/24 dev eth0"
    yield PODS, "link set eth0 up"
    yield PODS, f"route add default via {HERE}"
    yield PODS, "route add local 10.66.0.0/16 dev lo"
    yield NODE, "link set lo up"
    yield NODE, f"address add {HERE}/24 dev vpod"
    yield NODE, "link set vpod up"
    yield NODE, "route add 10.66.0.0/16 dev vpod"
    yield NODE, "address add 10.67.0.1/24 dev up0"
    yield NODE, "link set up0 up"
    yield NODE, f"route add default via {THERE}"
    yield OUTSIDE, "link set lo up"
    yield OUTSIDE, f"address add {THERE}/24 dev up0"
    yield OUTSIDE, "link set up0 up"
    yield OUTSIDE, "route add default via 10.67.0.1"
    yield OUTSIDE, f"route add local {SERVERS} dev lo"
    hardware = json.loads(run("ip", "-json", "link", "show", "eth0", netns=PODS))[0]["address"]
    for number in range(pods):
        yield NODE, f"neighbour add {pod_address(number)} lladdr {hardware} dev vpod nud permanent"


@contextmanager
def site(pods: int) -> Iterator[Site]:
    """Make the three namespaces for so many pods; remove them whatever happens."""
    names = (PODS, NODE, OUTSIDE)
    with ExitStack() as stack:
        for name in names:
            run("ip", "netns", "add", name)
            stack.callback(subprocess.run, ["ip", "netns", "delete", name], check=False, capture_output=True)
        run("ip", "link", "add", "eth0", "netns", PODS, "type", "veth", "peer", "name", "vpod", "netns", NODE)
        run(
            "ip", "link", "add", "up0", "netns", NODE, "type", "veth", "peer", "name", "up0", "netns", OUTSIDE
        )
        commands = list(_commands(pods))
        for name in names:
            run(
                "ip",
                "-batch",
                "-",
                netns=name,
                stdin="\n".join(text for netns, text in commands if netns == name),
            )
        run("sysctl", "-qw", "net.ipv4.ip_forward=1", netns=NODE)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        yield Site(folder, pods)
