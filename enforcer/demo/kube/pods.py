"""A real pod of the cluster, and the things a program in it would do.

Owns the pod's object and its end; speaks from the pod's own network namespace, through the cable
that the CNI plugin laid and past every rule that holds for it.
"""

from __future__ import annotations

from enforcer.demo import places
from enforcer.demo.kube.client import Json
from enforcer.demo.kube.cluster import Cluster
from enforcer.demo.kube.node import PAUSE
from enforcer.demo.pods import Pod
from enforcer.demo.spaces import Space
from enforcer.demo.stub import Stub


class ClusterPod(Pod):
    """A pod that is ready; ``addresses`` are its IPv4 and IPv6 address."""

    def __init__(self, cluster: Cluster, found: Json) -> None:
        metadata = found["metadata"]
        self.name = str(metadata["name"])
        self.namespace = str(metadata["namespace"])
        self.uid = str(metadata["uid"])
        self.index = 0
        v4, v6 = (str(entry["ip"]) for entry in found["status"]["podIPs"])
        self.addresses = (v4, v6)
        self.space = Space(self.name, cluster.pid_of(found))
        self.stub = Stub(self.space)
        self.transfers = []
        self._cluster = cluster

    def close(self) -> None:
        """Delete it at once, and wait until it is gone."""
        for transfer in self.transfers:
            transfer.close()
        self._cluster.run(
            "kubectl",
            "delete",
            "pod",
            self.name,
            "-n",
            self.namespace,
            "--grace-period=1",
            "--ignore-not-found",
        )
        self.space.close()


def pod(name: str, namespace: str = places.NAMESPACE, *, server: str = "", **spec: object) -> Json:
    """Return the object of a pod that waits; ``server`` is its label, as Obot sets it."""
    container = {"name": "main", "image": PAUSE, "imagePullPolicy": "Never"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": server or name}},
        "spec": {
            "containers": [container],
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            **spec,
        },
    }


def start(cluster: Cluster, *objects: Json) -> list[ClusterPod]:
    """Create pods and wait until all are ready. Raises LabFailureError."""
    cluster.apply(*objects)
    places_of = [(each["metadata"]["namespace"], each["metadata"]["name"]) for each in objects]
    return [ClusterPod(cluster, cluster.await_pod(namespace, name)) for namespace, name in places_of]
