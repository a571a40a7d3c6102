"""``python -m benchmarks.kube_source [PODS]``: from a commit in a real API server to the kernel's ACK.

In a network namespace of its own: etcd, kube-apiserver, an enforcer, 110 pods' interfaces. Says how long
a policy's edit takes, what a start costs, how many requests a quiet minute has, what churn leaves behind.
Needs root and the programs of ``deploy/setup.sh cluster``. On a machine that does other things the times
are that machine's.
"""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import obot
from benchmarks.obot import Json
from enforcer.kube.client import Api
from tests.cluster.real import RealApi

NODE, NAMESPACE = "bench-node", "obot-mcp"
POLICIES, LOCAL_PODS, EDITS = 1000, 110, 300
QUIET_S, CHURN_S, CHURN_PODS_A_SECOND = 60, 20, 50
CRDS = Path("deploy/charts/nameward/crds")
POLICY_PATH = f"/apis/{obot.API}/namespaces/{NAMESPACE}/firewallpolicies"
POD_PATH = f"/api/v1/namespaces/{NAMESPACE}/pods"


def policy(number: int, *domains: str) -> Json:
    """What Obot's provider writes for one server."""
    name = f"ms1-{number}"
    return obot.policy(name, NAMESPACE, name, [f"api{number}.example.com", *domains])


def address(number: int) -> str:
    """A pod's address; the local ones come first."""
    return f"10.{50 + (number >> 16)}.{(number >> 8) & 255}.{number & 255}"


def add_pod(api: Api, name: str, number: int, node: str = NODE) -> None:
    """Create a pod and give it an address."""
    made = obot.pod(name, NAMESPACE, f"ms1-{number % POLICIES}", address(number), node=node)
    made["spec"]["containers"] = [{"name": "mcp", "image": "mcp"}]
    status = made.pop("status")
    api.create(POD_PATH, made)
    api.patch(f"{POD_PATH}/{name}/status", {"status": status}, "merge")


def remove_pod(api: Api, name: str) -> None:
    """Delete a pod at once."""
    api.delete(f"{POD_PATH}/{name}", {"gracePeriodSeconds": 0})


def at_once(work: Callable[[Any], object], items: Iterable[Any]) -> None:
    """Do it for all, eight at a time."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, items))


class Enforcer:
    """The daemon under test, and what its records say."""

    def __init__(self, api: RealApi, folder: Path, *, shares: bool) -> None:
        key = folder / "key"
        key.write_text("k" * 32)
        settings: Json = {
            "node": NODE,
            "policy": {
                "source": "kubernetes",
                "kubernetes": {"kubeconfig": str(api.kubeconfig)},
                "governedNamespaces": {"matchLabels": {"nameward.dev/governed": "true"}},
            },
            "runtimeDir": str(folder / "run"),
            "dns": {"upstreams": ["192.0.2.53"]},
            "state": {"redis": {"url": "redis://127.0.0.1:1", "hmacKeyFile": str(key)}} if shares else {},
        }
        config = folder / "nameward.yaml"
        config.write_text(json.dumps(settings))
        command = str(Path(sys.executable).parent / "nameward")
        self.begun_at = time.monotonic()
        self.process = subprocess.Popen(
            [command, "enforcer", "--config", str(config)], stderr=subprocess.PIPE, text=True
        )
        self.loaded: queue.Queue[tuple[float, Json]] = queue.Queue()
        self.said: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stderr or ():
            now = time.monotonic()
            if '"policy.loaded"' in line:
                self.loaded.put((now, json.loads(line)))
            elif '"pod.' not in line:
                self.said.append(line)

    def wait(self, condition: Callable[[Json], bool], deadline_s: float = 120.0) -> float:
        """Return when a snapshot came into force for which it holds."""
        until = time.monotonic() + deadline_s
        while True:
            at, record = self.loaded.get(timeout=max(until - time.monotonic(), 0.001))
            if condition(record):
                return at

    def wait_for_silence(self, silence_s: float = 1.0) -> None:
        """Return once nothing has come into force for so long."""
        while True:
            try:
                self.loaded.get(timeout=silence_s)
            except queue.Empty:
                return

    @property
    def worker(self) -> int:
        """The enforcing process."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def memory_mib(self) -> tuple[float, float]:
        """Return the worker's resident and proportional size."""
        text = Path(f"/proc/{self.worker}/smaps_rollup").read_text()
        found = {key: int(kib) for key, kib in re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE)}
        return found["Rss"] / 1024, found["Pss"] / 1024

    def cpu_s(self) -> float:
        """Return the worker's processor time."""
        fields = Path(f"/proc/{self.worker}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def metric(self, name: str) -> float:
        """Return a metric."""
        text = urllib.request.urlopen("http://127.0.0.1:9153/metrics").read().decode()
        return float(re.search(rf"^{name} (.*)$", text, re.MULTILINE)[1])  # type: ignore[index]

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(30)


def quantiles(times: list[float]) -> str:
    """Median, P99 and the longest, in milliseconds."""
    times = sorted(times)
    return " ".join(
        f"{name} {times[min(int(len(times) * share), len(times) - 1)] * 1000:.0f} ms"
        for name, share in (("P50", 0.5), ("P90", 0.9), ("P99", 0.99), ("max", 1.0))
    )


def edits(api: Api, enforcer: Enforcer) -> tuple[list[float], list[float]]:
    """Edit one policy after the other: from the request, and from its answer, to the ACK's record.

    The commit lies between the two.
    """
    asked, answered = [], []
    for number in range(EDITS):
        patch = {"spec": policy(number % LOCAL_PODS, f"new{number}.example.org")["spec"]}
        begun_at = time.monotonic()
        api.patch(f"{POLICY_PATH}/ms1-{number % LOCAL_PODS}", patch, "merge")
        committed_at = time.monotonic()
        done_at = enforcer.wait(lambda _: True)
        asked.append(done_at - begun_at)
        answered.append(max(done_at - committed_at, 0.0))
        enforcer.wait_for_silence(0.3)  # or the next would be brought into force together with a rest
    return asked, answered


def churn(api: Api, enforcer: Enforcer) -> None:
    """Pods that come and go."""
    count = CHURN_S * CHURN_PODS_A_SECOND
    begun_at = time.monotonic()

    def live_and_die(number: int) -> None:
        due = begun_at + number / CHURN_PODS_A_SECOND
        time.sleep(max(due - time.monotonic(), 0.0))
        add_pod(api, f"churn-{number}", 60_000 + number % 500)
        remove_pod(api, f"churn-{number}")

    at_once(live_and_die, range(count))
    print(f"  {count} pods came and went in {time.monotonic() - begun_at:.0f} s")
    enforcer.wait_for_silence()


def measure(api: RealApi, folder: Path, *, shares: bool) -> None:
    """One enforcer's life."""
    print("pods of all nodes (shared state)" if shares else "this node's pods")
    door = api.admin
    enforcer = Enforcer(api, folder, shares=shares)
    try:
        at = enforcer.wait(lambda record: record["policies"] == POLICIES)
        rss, pss = enforcer.memory_mib()
        print(
            f"  start to enforcing {at - enforcer.begun_at:.1f} s; resident {rss:.0f} MiB (shared: {pss:.0f})"
        )
        enforcer.wait_for_silence()
        cpu_s = enforcer.cpu_s()
        asked, answered = edits(door, enforcer)
        print(f"  edit of a policy to the kernel's ACK, from the request: {quantiles(asked)}")
        print(f"  the same from the API server's answer: {quantiles(answered)}")
        cpu_ms = (enforcer.cpu_s() - cpu_s) / EDITS * 1000
        print(f"  processor time of the enforcer for each edit, and for what follows it: {cpu_ms:.0f} ms")
        before = enforcer.metric("nameward_source_requests_total")
        time.sleep(QUIET_S)
        after = enforcer.metric("nameward_source_requests_total")
        print(f"  requests in {QUIET_S} quiet seconds, watches included: {after - before:.0f}")
        churn(door, enforcer)
        rss, pss = enforcer.memory_mib()
        failures = enforcer.metric("nameward_source_failures_total")
        print(f"  then resident {rss:.0f} MiB (shared: {pss:.0f}); failures {failures:.0f}")
    finally:
        enforcer.stop()
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        if enforcer.said:
            print("  said:", *enforcer.said[:60], sep="\n    ")


def main(pods: int) -> None:
    """Measure, in this network namespace."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(
        ["ip", "-batch", "-"],
        input="link add up0 type veth peer name up1\nlink set up1 up\nlink set up0 up\n"
        "addr add 192.0.2.1/24 dev up0\nroute add default via 192.0.2.2\n"
        + "".join(
            f"link add v{n} type veth peer name w{n}\nlink set v{n} up\nlink set w{n} up\n"
            f"route add {address(n)}/32 dev v{n}\n"
            for n in range(LOCAL_PODS)
        ),
        text=True,
        check=True,
    )
    folder = Path(tempfile.mkdtemp())
    api = RealApi().start()
    try:
        for crd in sorted(CRDS.glob("networking*.yaml")):
            api.kubectl("apply", "--server-side", "-f", str(crd))
        labels = {"nameward.dev/governed": "true"}
        api.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
        )
        door = api.admin
        time.sleep(2)
        begun_at = time.monotonic()
        at_once(lambda n: door.create(POLICY_PATH, policy(n)), range(POLICIES))
        at_once(
            lambda n: add_pod(door, f"pod-{n}", n, NODE if n < LOCAL_PODS else f"node-{n % 90}"), range(pods)
        )
        made_s = time.monotonic() - begun_at
        print(f"{POLICIES} policies, {LOCAL_PODS} local pods of {pods}: made in {made_s:.0f} s")
        measure(api, folder, shares=False)
        if pods > LOCAL_PODS:
            measure(api, folder, shares=True)
    finally:
        api.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if os.environ.get("BENCH_NETNS") != "own":
        os.environ["BENCH_NETNS"] = "own"
        os.execvp(
            "unshare", ["unshare", "--net", sys.executable, "-m", "benchmarks.kube_source", *sys.argv[1:]]
        )
    main(int(sys.argv[1]) if len(sys.argv) > 1 else LOCAL_PODS)
