"""A whole cluster of one node, in the lab's world: control plane, node, CoreDNS, pods.

Owns what the others make, and its end. Never leaves anything behind: the node's processes and mounts
go with this process, and what a killed run left is removed by the next one.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from enforcer.demo import folders, network, places, prerequisites
from enforcer.demo.failure import CannotRunHereError, LabFailureError
from enforcer.demo.kube import binaries, manifests
from enforcer.demo.kube.archives import Image
from enforcer.demo.kube.client import Client, Json
from enforcer.demo.kube.control import SERVICE_RANGE, ControlPlane
from enforcer.demo.kube.machine import Machine
from enforcer.demo.kube.node import Node
from enforcer.demo.kube.program import Program
from enforcer.demo.spaces import Space
from enforcer.demo.world import World

PORTS = (6443, 2379, 2380)
SERVICE_RANGES = f"{SERVICE_RANGE},fd00:10:96::/112"
POD_RANGES = "10.244.0.0/16,fd00:10:244::/56"
_NAME = places.HOME.name
_COREDNS = "lab.invalid/coredns:1"
_READY = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
_FLAGS = (
    f"--advertise-address={places.NODE4}",
    f"--service-cluster-ip-range={SERVICE_RANGES}",
    "--kubelet-preferred-address-types=InternalIP",
)


class Cluster(Client):
    """One node named as the lab's; ``running`` makes it whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = World(folder / "world")
        self.space = Space(_NAME)
        control = ControlPlane(
            folder, PORTS, address=places.NODE4, space=self.space, nodes=(_NAME,), more_flags=_FLAGS
        )
        super().__init__(control)
        self.machine = Machine(self.space, folder / "machine.log")
        self.node: Node
        self._controllers = [self._all_controllers(), self._scheduler()]
        self.started_s: dict[str, float] = {}
        """How long each step of the start took, in seconds since its beginning."""

    def start(self) -> None:
        """Start everything; returns when the node is ready and CoreDNS answers. Raises LabFailureError."""
        began_at = time.monotonic()

        def note(step: str) -> None:
            self.started_s[step] = round(time.monotonic() - began_at, 1)

        network.settle_world(self.world.space)
        network.connect_world(self.space, self.world.space)
        self.world.start()
        self.machine.start()
        self.node = self._node()
        self.control.etcd.start()
        self.control.apiserver.start()
        note("world and machine")
        self.node.start()
        dns = Image(_COREDNS, {"/coredns": binaries.path_of("coredns")}, ["/coredns"])
        self.node.add_image(dns)
        note("node's programs")
        self.control.apiserver.await_ready(self.control.is_ready)
        note("API server")
        for program in self._controllers:
            program.start()
        self.apply(*manifests.cluster_dns(_COREDNS, places.UPSTREAM4))
        self.await_ready_node()
        note("node ready")
        self.await_rollout("kube-system", "deployment/coredns")
        note("cluster DNS")

    def await_ready_node(self, deadline_s: float = 90.0) -> None:
        """Wait until the API says that the node is ready. Raises LabFailureError."""

        def is_ready() -> bool:
            found = self.run("kubectl", "get", "node", _NAME, "-o", _READY)
            return found.stdout.strip() == "True"

        self._await(is_ready, f"node {_NAME} is not ready:\n{self.node.kubelet.tail()}", deadline_s)

    def await_rollout(self, namespace: str, what: str, deadline_s: float = 120.0) -> None:
        """Wait until a Deployment or DaemonSet has rolled out. Raises LabFailureError with its pods."""
        done = self.run(
            "kubectl", "rollout", "status", what, "-n", namespace, f"--timeout={deadline_s:.0f}s",
            timeout_s=deadline_s + 10,
        )  # fmt: skip
        if done.returncode != 0:
            pods = self.run("kubectl", "describe", "pods", "-n", namespace).stdout
            raise LabFailureError(f"{what}: {done.stderr.strip()}\n{pods[-4000:]}")

    def await_pod(self, namespace: str, name: str, deadline_s: float = 60.0) -> Json:
        """Wait until a pod is ready, and return it. Raises LabFailureError with its description."""
        done = self.run(
            "kubectl", "wait", "--for=condition=Ready", f"pod/{name}", "-n", namespace,
            f"--timeout={deadline_s:.0f}s", timeout_s=deadline_s + 10,
        )  # fmt: skip
        if done.returncode != 0:
            said = self.run("kubectl", "describe", "pod", name, "-n", namespace).stdout
            raise LabFailureError(f"pod {namespace}/{name} is not ready: {said[-3000:]}")
        return self.get("pod", name, "-n", namespace)

    def await_account(self, namespace: str, name: str, deadline_s: float = 30.0) -> None:
        """Wait until a service account exists: pods cannot be made before. Raises LabFailureError."""

        def exists() -> bool:
            return self.run("kubectl", "get", "serviceaccount", name, "-n", namespace).returncode == 0

        self._await(exists, f"there is no service account {namespace}/{name}", deadline_s)

    def processes_of(self, uid: str = "") -> list[int]:
        """Return the host's process ids of a pod, or of all pods, by their control groups."""
        sought = f"pod{uid}" if uid else self.machine.cgroup
        found = []
        for group in Path("/proc").glob("[0-9]*/cgroup"):
            with contextlib.suppress(OSError):
                if sought in group.read_text():
                    found.append(int(group.parent.name))
        return found

    def pid_of(self, pod: Json) -> int:
        """Return the host's process id of one of a pod's processes. Raises LabFailureError if it has none."""
        processes = self.processes_of(str(pod["metadata"]["uid"]))
        if not processes:
            raise LabFailureError(f"pod {pod['metadata']['name']} has no process on this machine")
        return processes[0]

    def _await(self, holds: Callable[[], bool], otherwise: str, deadline_s: float) -> None:
        limit_at = time.monotonic() + deadline_s
        while not holds():
            if time.monotonic() >= limit_at:
                raise LabFailureError(f"after {deadline_s:.0f} s {otherwise}")
            time.sleep(0.1)

    def close(self) -> None:
        """End everything, the workloads first."""
        for program in reversed(self._controllers):
            program.stop(grace_s=0)
        if hasattr(self, "node"):
            self.node.stop()
        self.machine.stop()
        self.control.stop()
        self.world.stop()
        self.space.close()

    def _node(self) -> Node:
        return Node(
            _NAME,
            self.control,
            self.machine,
            addresses=(places.NODE4, places.NODE6),
            ranges=places.HOME.pod_cidrs,
            dns=places.CLUSTER_DNS,
            nameserver=places.UPSTREAM4,
            labels={"kubernetes.io/os": "linux"},
        )

    def _all_controllers(self) -> Program:
        name = "kube-controller-manager"
        _, signing = self.control.credentials.accounts_files
        argv = [
            str(self.control.programs / name),
            f"--kubeconfig={self.control.credentials.kubeconfig(self.server, name)}",
            f"--service-account-private-key-file={signing}",
            f"--root-ca-file={self.control.credentials.ca_file}",
            f"--service-cluster-ip-range={SERVICE_RANGES}",
            f"--cluster-cidr={POD_RANGES}",
            "--allocate-node-cidrs=true",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--secure-port=0",
        ]
        return Program(name, argv, self.folder / f"{name}.log", space=self.space)

    def _scheduler(self) -> Program:
        name = "kube-scheduler"
        kubeconfig = self.control.credentials.kubeconfig(self.server, name)
        flags = [f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0"]
        argv = [str(self.control.programs / name), *flags]
        return Program(name, argv, self.folder / f"{name}.log", space=self.space)


def require() -> None:
    """Raise CannotRunHereError naming the first thing that is missing and what to do about it."""
    prerequisites.require()
    binaries.require(("kube", "pause", "coredns"), ("etcd", "containerd", "ctr", "runc", "setpriv"))
    if not (binaries.CNI_FOLDER / "ptp").exists():
        raise CannotRunHereError(
            f"{binaries.CNI_FOLDER}/ptp is missing: apt-get install -y containernetworking-plugins"
        )


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """Make a cluster, and end all of it afterwards. Raises CannotRunHereError, LabFailureError."""
    require()
    folder = folders.made(in_memory=True)
    folder.chmod(0o755)
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)
