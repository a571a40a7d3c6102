"""The lab with several nodes: one world between them, one folder of manifests, one Redis.

Owns what the others make, and its end. The manifests are shared as git shares them; each node has a
folder of its own beside, for sources that are stale or contradict. Leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from enforcer.demo import manifests, network, places
from enforcer.demo.lab import own_folder
from enforcer.demo.nodes import LabNode
from enforcer.demo.places import NODES, NodePlace
from enforcer.demo.shapes import Shape, alone
from enforcer.demo.spaces import Space
from enforcer.demo.stores import Store
from enforcer.demo.world import World

CLUSTER = "demo"
"""The cluster's name: a part of every key in Redis."""
_LIMITS = {"queriesPerSecond": 20000, "queriesInFlight": 4096}


class Cluster:
    """Two or three nodes, and their Redis as ``shared``; made whole by ``running``."""

    def __init__(self, folder: Path, count: int, shape: Shape) -> None:
        self.folder = folder
        self.store_space = Space("redis")
        self.shared = shape(self.store_space, folder / "redis")
        self.world = World(folder / "world")
        self.manifests = manifests.Folder(folder / "manifests")
        self.hmac_key = secrets.token_hex(32)
        self.nodes = [self._made(place) for place in NODES[:count]]

    def _made(self, place: NodePlace) -> LabNode:
        folder = self.folder / place.name
        folder.mkdir()
        keys = self.set_keys(place, self.hmac_key, self.hmac_key)
        key_files = {"hmacKeyFile": str(keys / "current"), "previousHmacKeyFile": str(keys / "previous")}
        own = manifests.Folder(folder / "manifests")
        others = [other.node4 for other in NODES if other is not place]
        return LabNode(
            folder,
            [self.manifests, own],
            place,
            dns={"listen": [place.node4], "peers": others, "capture": place.number == 0},
            enforcement={"clusterCIDRs": list(places.ALL_CLUSTER_CIDRS)},
            limits=_LIMITS,
            state={"redis": {**self.shared.settings, **key_files}},
            cluster=CLUSTER,
        )

    def set_keys(self, place: NodePlace, current: str, previous: str) -> Path:
        """Write a node's two HMAC keys, both at one instant; returns the folder that has them."""
        made = Path(tempfile.mkdtemp(prefix="keys-", dir=self.folder / place.name))
        for name, key in (("current", current), ("previous", previous)):
            (made / name).touch(0o600)
            (made / name).write_text(key)
        link, fresh = made.with_name("keys"), made.with_name("keys.new")
        fresh.symlink_to(made.name)
        os.replace(fresh, link)
        return link

    def start(self) -> None:
        """Lay the cables, start the world and Redis; the daemons are started apart."""
        network.settle_world(self.world.space, joins_nodes=True)
        network.connect_store(self.world.space, self.store_space)
        for node in self.nodes:
            network.connect_world(node.space, self.world.space, node.place)
        self.world.start()
        self.shared.start()
        self.manifests.put("namespace", manifests.namespace())

    def set_domains(self, server: str, domains: Sequence[str], port: int = 443) -> None:
        """Write a server's policy where every node reads it."""
        self.manifests.put(f"policy-{server}", manifests.obot_policy(server, domains, port))

    @property
    def store(self) -> Store:
        """The Redis server; under Sentinel the one that was the master first."""
        return self.shared.store

    def redis(self, *words: str) -> str:
        """Run redis-cli as the administrator of Redis, on each server of a Cluster; return what it prints."""
        servers = self.shared.ring.servers if self.shared.ring is not None else (self.store,)
        return "\n".join(server.cli(*words) for server in servers)

    def cut(self, node: LabNode, *, off: bool = True) -> None:
        """Cut one node off from Redis, or join it again."""
        network.cut_from_store(self.world.space, node.place, off=off)

    def close(self) -> None:
        """End everything, the daemons first."""
        with contextlib.ExitStack() as ending:
            ending.callback(self.store_space.close)
            ending.callback(self.world.stop)
            ending.callback(self.shared.stop)
            for node in self.nodes:
                ending.callback(node.close)


@contextlib.contextmanager
def running(count: int = 2, shape: Shape = alone) -> Iterator[Cluster]:
    """Make the lab with its Redis, no daemon started yet; end all of it afterwards."""
    with own_folder() as folder:
        cluster = Cluster(folder, count, shape)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.close()
