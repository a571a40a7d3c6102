"""The node of a cluster: containerd, kubelet, kube-proxy and a CNI plugin, in a machine of its own.

Owns their configuration files, their start and their end. Everything they keep is in the machine's
memory and goes with it. As on many clusters a pod has its own cable and a /32 route (ptp).
"""

from __future__ import annotations

import ipaddress
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from enforcer.demo.kube import archives, binaries
from enforcer.demo.kube.archives import Image
from enforcer.demo.kube.control import ControlPlane
from enforcer.demo.kube.machine import Machine
from enforcer.demo.kube.program import Program

SOCKET = "/run/containerd/containerd.sock"
PAUSE = "lab.invalid/pause:1"
_CONTAINERD = """
version = 2
root = "/run/containerd/root"
state = "/run/containerd/state"
oom_score = 0
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "/run/runc"
"""


class Node:
    """``name`` at ``addresses`` (IPv4, IPv6), with pods in ``ranges``; ``dns`` is what its pods ask."""

    def __init__(
        self,
        name: str,
        control: ControlPlane,
        machine: Machine,
        *,
        addresses: tuple[str, str],
        ranges: tuple[str, str],
        dns: str,
        nameserver: str,
        labels: Mapping[str, str],
    ) -> None:
        self.name = name
        self.machine = machine
        self.folder = control.folder / name
        self.folder.mkdir()
        self._control = control
        self._addresses = addresses
        self._ranges = ranges
        self._dns = dns
        self._labels = dict(labels)
        (self.folder / "resolv.conf").write_text(f"nameserver {nameserver}\n")
        (self.folder / "cni").mkdir()
        self.set_network(ptp(ranges))
        self.containerd = self._containerd()
        self.kubelet = self._kubelet()
        self.proxy = self._proxy()

    def set_network(self, plugins: list[dict[str, object]]) -> None:
        """Choose the CNI plugins of pods made from now on."""
        made = {"cniVersion": "0.4.0", "name": "lab", "plugins": plugins}
        written = self.folder / "cni" / "10-lab.new"
        written.write_text(json.dumps(made, indent=1))
        written.rename(written.with_suffix(".conflist"))  # containerd reads what is half written, too

    def start(self) -> None:
        """Start the node's programs; images of the sandbox are there before kubelet asks for them."""
        self.containerd.start()
        self.containerd.await_ready(lambda: self.machine.path(SOCKET).is_socket(), 30.0)
        self.proxy.start()
        pause = Image(PAUSE, {"/pause": binaries.path_of("pause")}, ["/pause"], user="65534")
        self.add_image(pause)
        self.kubelet.start()

    def add_image(self, image: Image) -> None:
        """Make an image and give it to containerd."""
        archive = self.folder / "image.tar"
        archives.write(image, archive)
        self.load_image(archive)
        archive.unlink()

    def load_image(self, archive: Path) -> None:
        """Give containerd the images of an archive. Raises LabFailureError if it refuses."""
        self.machine.run(
            ["ctr", "-a", SOCKET, "-n", "k8s.io", "images", "import", "--no-unpack", str(archive)],
            timeout_s=120.0,
        )

    def next_address(self, index: int) -> None:
        """Let the next pod have the ``index``-th addresses of the ranges, if they are free."""
        folder = self.machine.path("/run/cni-addresses/lab")
        folder.mkdir(parents=True, exist_ok=True)
        for number, subnet in enumerate(self._ranges):
            before = ipaddress.ip_network(subnet)[index - 1]
            (folder / f"last_reserved_ip.{number}").write_text(str(before))

    def stop(self) -> None:
        """End the programs; what they started ends with the machine."""
        for program in (self.kubelet, self.proxy, self.containerd):
            program.stop(grace_s=0)

    def _containerd(self) -> Program:
        path = self.folder / "containerd.toml"
        path.write_text(
            _CONTAINERD.format(socket=SOCKET, pause=PAUSE, folder=self.folder, cni=binaries.CNI_FOLDER)
        )
        argv = [shutil.which("containerd") or "containerd", "--config", str(path)]
        return self.machine.program("containerd", argv, self.folder / "containerd.log")

    def _kubelet(self) -> Program:
        path = self.folder / "kubelet.yaml"
        path.write_text(yaml.safe_dump(self._kubelet_settings()))
        kubeconfig = self._control.credentials.kubeconfig(self._control.server, self.name)
        argv = [
            str(self._control.programs / "kubelet"),
            f"--config={path}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={self.name}",
            f"--node-ip={','.join(self._addresses)}",
            "--root-dir=/run/kubelet",
            "--cert-dir=/run/kubelet/certificates",
            f"--node-labels={','.join(f'{key}={value}' for key, value in self._labels.items())}",
        ]
        return self.machine.program("kubelet", argv, self.folder / "kubelet.log")

    def _kubelet_settings(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.machine.cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "clusterDomain": "cluster.local",
            "clusterDNS": [self._dns],
            "resolvConf": str(self.folder / "resolv.conf"),
            "podLogsDir": "/run/pod-logs",
            "volumePluginDir": "/run/kubelet/volume-plugins",
            "staticPodPath": "",
            "authentication": {
                "anonymous": {"enabled": False},
                "x509": {"clientCAFile": str(self._control.credentials.ca_file)},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "evictionHard": {"memory.available": "1%", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "nodeStatusUpdateFrequency": "2s",
            "syncFrequency": "10s",
            "serializeImagePulls": False,
            "maxPods": 120,
            "shutdownGracePeriod": "0s",
        }

    def _proxy(self) -> Program:
        path = self.folder / "kube-proxy.yaml"
        kubeconfig = self._control.credentials.kubeconfig(self._control.server, "kube-proxy")
        settings = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "hostnameOverride": self.name,
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "clusterCIDR": ",".join(self._ranges),
            "conntrack": {"maxPerCore": 0, "min": 0},
            "nftables": {"syncPeriod": "30s", "minSyncPeriod": "0s"},
        }
        path.write_text(yaml.safe_dump(settings))
        argv = [str(self._control.programs / "kube-proxy"), f"--config={path}"]
        return self.machine.program("kube-proxy", argv, self.folder / "kube-proxy.log")


def ptp(ranges: tuple[str, str]) -> list[dict[str, object]]:
    """A cable for each pod, with a host route: as Calico, the AWS VPC CNI and others do it."""
    return [{"type": "ptp", "ipMasq": False, "ipam": _addresses(ranges)}]


def bridge(ranges: tuple[str, str], name: str = "cni0") -> list[dict[str, object]]:
    """All pods on one bridge of the node: as flannel and k3s do it."""
    return [
        {
            "type": "bridge",
            "bridge": name,
            "isGateway": True,
            "ipMasq": False,
            "hairpinMode": True,
            "ipam": _addresses(ranges),
        }
    ]


def _addresses(ranges: tuple[str, str]) -> dict[str, object]:
    return {
        "type": "host-local",
        "dataDir": "/run/cni-addresses",
        "ranges": [[{"subnet": subnet}] for subnet in ranges],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    }
