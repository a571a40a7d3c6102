"""One node of the lab: its namespace, its pods, its daemon, and a folder of sources of its own.

Owns what is on that node, and its end. Knows neither the world nor the other nodes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections.abc import Sequence
from pathlib import Path

from enforcer.demo import manifests
from enforcer.demo.places import HOME, NodePlace
from enforcer.demo.pods import Pod
from enforcer.demo.processes import descendants
from enforcer.demo.spaces import Space
from enforcer.demo.ward import Settings, Ward, configuration


class LabNode:
    """A namespace that plays a node. ``folder`` must exist; ``sources`` are the folders it reads."""

    def __init__(
        self,
        folder: Path,
        sources: Sequence[manifests.Folder],
        place: NodePlace = HOME,
        **settings: Settings,
    ) -> None:
        self.place = place
        self.space = Space(place.name)
        paths = [source.path for source in sources]
        self.ward = Ward(self.space, folder, configuration(folder, paths, place, **settings))
        self.pods: dict[str, Pod] = {}
        self._sources = sources

    def add_pod(
        self,
        server: str,
        index: int,
        *,
        declared: bool = True,
        addresses: tuple[str, str] | None = None,
    ) -> Pod:
        """Make a pod of an MCP server at address ``index``; its manifest comes first, as a CNI's would.

        ``addresses``: others than the node's ``index``-th, for a pod that claims what is another's.
        """
        name = f"{server}-6c9f7d5b8-{self.place.number:02d}{index:03d}"
        if declared:
            taken = addresses or self.place.pod_addresses(index)
            self.declare(server, name, taken)
        made = Pod(self.space, name, index, self.place, addresses)
        self.pods[name] = made
        return made

    def declare(self, server: str, name: str, addresses: tuple[str, str], uid: str = "") -> None:
        """Write a pod's manifest into the first of the node's sources, as one that runs here."""
        document = manifests.pod(server, name, uid or str(uuid.uuid4()), addresses, self.place)
        self._sources[0].put(f"pod-{name}", document)

    def remove_pod(self, pod: Pod) -> None:
        """Take a pod and its manifest away."""
        self._sources[0].remove(f"pod-{pod.name}")
        del self.pods[pod.name]
        pod.close()

    def die(self) -> None:
        """Lose the node's power: every process of the daemon ends at once, none can say goodbye."""
        pid = self.ward.pid
        for process in (pid, *descendants(pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def close(self) -> None:
        """End everything on it, the daemon first."""
        with contextlib.ExitStack() as ending:
            ending.callback(self.space.close)
            for pod in self.pods.values():
                ending.callback(pod.close)
            ending.callback(self.ward.stop)
