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
        **settings: Settings | str,
    ) -> None:
        self.place = place
        self.space = Space(place.name)
        paths = [source.path for source in sources]
        self.ward = Ward(self.space, folder, configuration(folder, paths, place, **settings))
        self.pods: dict[str, Pod] = {}
        self._sources = sources

    @property
    def own(self) -> manifests.Folder:
        """The last of its sources: the folder that is its own where it shares others."""
        return self._sources[-1]

    def add_pod(
        self,
        server: str,
        index: int,
        *,
        declared: bool = True,
        addresses: tuple[str, str] | None = None,
        source: manifests.Folder | None = None,
    ) -> Pod:
        """Make a pod of an MCP server at address ``index``; its manifest comes first, as a CNI's would.

        ``addresses``: others than the node's ``index``-th, for a pod that claims what is another's;
        ``source``: where it is declared, by default where every node reads it.
        """
        name = f"{server}-6c9f7d5b8-{self.place.number:02d}{index:03d}"
        if declared:
            taken = addresses or self.place.pod_addresses(index)
            document = manifests.pod(server, name, str(uuid.uuid4()), taken, self.place)
            (source or self._sources[0]).put(f"pod-{name}", document)
        made = Pod(self.space, name, index, self.place, addresses)
        self.pods[name] = made
        return made

    def remove_pod(self, pod: Pod) -> None:
        """Take a pod and its manifest away."""
        for source in self._sources:
            source.remove(f"pod-{pod.name}")
        del self.pods[pod.name]
        pod.close()

    @property
    def lives(self) -> bool:
        """Say whether its daemon was started and neither stopped nor killed as a whole."""
        return self.ward.runs

    def die(self) -> None:
        """Lose the node's power: every process of the daemon ends at once, none can say goodbye."""
        pid = self.ward.pid
        for process in (pid, *descendants(pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.ward.stop()

    def close(self) -> None:
        """End everything on it, the daemon first."""
        with contextlib.ExitStack() as ending:
            ending.callback(self.space.close)
            for pod in self.pods.values():
                ending.callback(pod.close)
            ending.callback(self.ward.stop)
