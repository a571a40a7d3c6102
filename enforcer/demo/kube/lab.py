"""The lab of the scenes in a real cluster: its pods are Kubernetes', Nameward comes by its chart.

Owns the objects that a scene makes. Plays nothing.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence

from enforcer.demo import manifests, places
from enforcer.demo.kube import cluster as clusters
from enforcer.demo.kube import images, pods
from enforcer.demo.kube.cluster import Cluster
from enforcer.demo.kube.ward import ClusterWard
from enforcer.demo.pods import Pod
from enforcer.demo.processes import output_of
from enforcer.demo.spaces import Space
from enforcer.demo.world import World

_OURS = "nameward"


class ClusterLab:
    """A cluster with the namespace of MCP servers, and Nameward's objects known to it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.ward = ClusterWard(cluster)
        self.pods: list[Pod] = []
        self._count = itertools.count(1)

    @property
    def world(self) -> World:
        """What is outside."""
        return self.cluster.world

    @property
    def node(self) -> Space:
        """The node's network."""
        return self.cluster.space

    @property
    def foreign_rules(self) -> str:
        """What others have on the node now: kubelet's and kube-proxy's tables, as nft text."""
        listed = output_of(self.node, ["nft", "list", "tables"]).splitlines()
        others = [line for line in listed if not line.split()[-1].startswith(_OURS)]
        return "".join(output_of(self.node, ["nft", "list", *line.split()]) for line in others)

    def start(self) -> None:
        """Give the cluster our kinds of objects, the namespace, and the image."""
        self.cluster.kubectl("apply", "--server-side", "-f", str(images.CHART / "crds"))
        self.cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        space = manifests.namespace()
        space["metadata"]["labels"] = {"nameward.dev/governed": "true"}
        self.cluster.apply(space)
        self.cluster.await_account(places.NAMESPACE, "default")
        archive = self.cluster.folder / "nameward.tar"
        images.build(archive)
        self.cluster.node.load_image(archive)
        archive.unlink()

    def set_domains(self, server: str, domains: Sequence[str]) -> None:
        """Write the server's policy as Obot's provider does when somebody edits its egress domains."""
        self.put(server, manifests.obot_policy(server, domains))

    def put(self, key: str, document: manifests.Document) -> None:
        """Write an object; the API server needs no other name for it."""
        del key
        self.cluster.kubectl("apply", "--server-side", "-f", "-", text=manifests.as_text(document))

    def add_pod(self, server: str, index: int, *, declared: bool = True) -> Pod:
        """Make a pod of an MCP server, and wait until it is ready.

        With an ``index`` that was a pod's already it gets that pod's addresses; undeclared: a cable of
        which the API server knows nothing.
        """
        if not declared:
            stranger = Pod(self.node, server, index)
            self.pods.append(stranger)
            return stranger
        self.cluster.node.next_address(index)
        wanted = pods.pod(f"{server}-6c9f7d5b8-{next(self._count):05d}", server=server)
        made = pods.start(self.cluster, wanted)[0]
        made.index = index
        self.pods.append(made)
        return made

    def remove_pod(self, pod: Pod) -> None:
        """Delete a pod, and wait until it is gone."""
        self.pods.remove(pod)
        pod.close()

    def close(self) -> None:
        """Let go of what was made; the cluster's end removes it."""
        for pod in self.pods:
            for transfer in pod.transfers:
                transfer.close()
            pod.space.close()


@contextlib.contextmanager
def running() -> Iterator[ClusterLab]:
    """Make a cluster with everything but Nameward itself; end all of it afterwards."""
    with clusters.running() as cluster:
        lab = ClusterLab(cluster)
        try:
            lab.start()
            yield lab
        finally:
            lab.close()
