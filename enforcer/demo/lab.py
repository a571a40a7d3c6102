"""The whole lab with one node as one context manager: node, world, pods, manifests and Nameward itself.

Owns what the others make, and its end. Never leaves anything behind: namespaces and programs go
with this process, and the folder of a run that was killed is removed by the next one.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from enforcer.demo import folders, manifests, network, places
from enforcer.demo.nodes import LabNode
from enforcer.demo.pods import Pod
from enforcer.demo.processes import output_of
from enforcer.demo.world import World

CRM_SERVER, LEDGER_SERVER, BULK_SERVER = "ms1crm7k", "ms1led9m", "ms1blk3p"
TEMP_SERVER, NEXT_SERVER = "ms1tmp5d", "ms1nxt8w"
CRM_DOMAINS = (places.CRM, places.SHOP, places.MANY, places.MIXED, places.SHORT, f"*.{places.FILES}")


class Lab:
    """A node with its pods and a world around it; made whole by ``running``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = World(folder / "world")
        self.manifests = manifests.Folder(folder / "manifests")
        self._home = LabNode(folder, [self.manifests])
        self.node = self._home.space
        self.ward = self._home.ward
        self.pods = self._home.pods
        self.foreign_rules = ""
        """nft text of what others have on the node; loaded by ``add_foreign_rules``."""

    def start(self) -> None:
        """Lay the cables, start the world, declare the namespace; the daemon is started apart."""
        network.settle_world(self.world.space)
        network.connect_world(self.node, self.world.space)
        self.world.start()
        self.manifests.put("namespace", manifests.namespace())

    def add_foreign_rules(self, text: str) -> None:
        """Give the node tables of somebody else, before or while Nameward runs."""
        output_of(self.node, ["nft", "-f", "-"], text)
        self.foreign_rules += text

    def add_pod(self, server: str, index: int, *, declared: bool = True) -> Pod:
        """Make a pod of an MCP server at address ``index``; its manifest comes first, as a CNI's would."""
        return self._home.add_pod(server, index, declared=declared)

    def remove_pod(self, pod: Pod) -> None:
        """Take a pod and its manifest away."""
        self._home.remove_pod(pod)

    def set_domains(self, server: str, domains: Sequence[str]) -> None:
        """Write the server's policy as Obot's provider does when somebody edits its egress domains."""
        self.put(f"policy-{server}", manifests.obot_policy(server, domains))

    def put(self, key: str, document: manifests.Document) -> None:
        """Write another object into the node's manifests."""
        self.manifests.put(key, document)

    def close(self) -> None:
        """End everything, the daemon first."""
        with contextlib.ExitStack() as ending:
            ending.callback(self.world.stop)
            ending.callback(self._home.close)


@contextlib.contextmanager
def running(*, enforced: bool = True) -> Iterator[Lab]:
    """Make the lab, with ``nameward node`` enforcing unless told otherwise; end all of it afterwards."""
    with own_folder() as folder:
        lab = Lab(folder)
        try:
            lab.start()
            if enforced:
                lab.ward.start()
            yield lab
        finally:
            lab.close()


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """Make a folder for one run, and remove it afterwards; those of runs that were killed go too."""
    folder = folders.made()
    folder.chmod(0o755)  # the resolver's user passes through to its socket
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
