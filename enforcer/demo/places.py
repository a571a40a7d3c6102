"""Where everything in the lab is: addresses and names, in one place.

Owns constants, and the plan of a lab with several nodes. The outside world's addresses are
ordinary unicast space, because documentation and private ranges are special-purpose and never
permitted; there is no route out of the lab, so nobody who really has these addresses ever hears
of it. The domains are those that IANA keeps for examples.
"""

from __future__ import annotations

import dataclasses
import ipaddress

NAMESPACE = "obot-mcp"


def _v6(text: str) -> str:
    return ipaddress.ip_address(text).compressed


@dataclasses.dataclass(frozen=True, slots=True)
class NodePlace:
    """Where the ``number``-th node of the lab is (0 to 3): its uplink to the world, its pods' ranges."""

    number: int
    name: str

    @property
    def node4(self) -> str:
        """The node's address on its uplink, a /30."""
        return f"172.31.255.{4 * self.number + 2}"

    @property
    def node6(self) -> str:
        """The same in IPv6, a /64."""
        return _v6(f"fd00:172:31:{self.number}::2")

    @property
    def world4(self) -> str:
        """The world's end of the uplink: the node's default route."""
        return f"172.31.255.{4 * self.number + 1}"

    @property
    def world6(self) -> str:
        """The same in IPv6."""
        return _v6(f"fd00:172:31:{self.number}::1")

    @property
    def pod_cidrs(self) -> tuple[str, str]:
        """The ranges of its pods' addresses."""
        return f"10.244.{self.number}.0/24", f"{_v6(f'fd00:10:244:{self.number}::')}/64"

    @property
    def gateways(self) -> tuple[str, str]:
        """The addresses that its pods' default routes name."""
        return f"10.244.{self.number}.1", _v6(f"fd00:10:244:{self.number}::1")

    @property
    def world_interface(self) -> str:
        """The name of the world's end of the uplink."""
        return f"node{self.number}"

    def pod_addresses(self, index: int) -> tuple[str, str]:
        """Return the addresses of its ``index``-th pod (2 to 250)."""
        return f"10.244.{self.number}.{index}", _v6(f"fd00:10:244:{self.number}::{index:x}")


HOME = NodePlace(0, "demo-node")
"""The only node of the lab with one node."""

NODES = tuple(NodePlace(number, f"node-{letter}") for number, letter in enumerate("abc"))
"""The nodes of the lab with several."""

POD_CIDR4, POD_CIDR6 = HOME.pod_cidrs
CLUSTER_CIDRS = (POD_CIDR4, "10.96.0.0/12", POD_CIDR6)
ALL_CLUSTER_CIDRS = ("10.244.0.0/16", "10.96.0.0/12", "fd00:10:244::/48")
"""What is inside the cluster for a node of several."""
GATEWAY4, GATEWAY6 = HOME.gateways
CLUSTER_DNS = "10.96.0.10"
"""The nameserver in the pods' resolv.conf. Nothing has this address: Nameward answers for it."""

NODE4, NODE6 = HOME.node4, HOME.node6
WORLD4, WORLD6 = HOME.world4, HOME.world6
STORE4, STORE_GATEWAY4 = "172.31.254.2", "172.31.254.1"
"""Where Redis is, in the lab with several nodes, and the world's end of its cable."""

SITES4, SITES6 = "44.31.0.0/16", "2a10:4000::/32"
UPSTREAM4, UPSTREAM6 = "44.31.0.53", "2a10:4000::53"

ATTACKER_NET4, ATTACKER_NET6 = "44.66.0.0/16", "2a10:6600::/32"
ATTACKER4, ATTACKER6 = "44.66.0.66", "2a10:6600::66"
ATTACKER_DNS4, ATTACKER_DNS6 = "44.66.0.53", "2a10:6600::53"
METADATA = "169.254.169.254"

CRM, LEDGER, SHOP, MANY = "crm.example.com", "ledger.example.com", "shop.example.com", "many.example.com"
MIXED, SHORT, NEW = "mixed.example.com", "short.example.com", "new.example.com"
TEMP, NEXT = "temp.example.com", "next.example.com"
FILES = "files.example.com"
DROP, TUNNEL = "drop.example.net", "t.example.net"

BULK_NAMES = tuple(f"n{index:03d}.example.com" for index in range(1000))
MANY_COUNT = 500
SINK_PORT = 7443
"""Where the world accepts and closes at once, for clients that only want to know whether they get there."""
SHORT_TTL_S, GRACE_S = 1, 1


def site(index: int) -> tuple[str, str]:
    """Return the IPv4 and IPv6 address of the ``index``-th site of the outside world (1 to 250)."""
    return f"44.31.1.{index}", f"2a10:4000::1:{index:x}"


SITE_OF = {
    name: site(index)
    for index, name in enumerate((CRM, LEDGER, SHOP, MIXED, SHORT, NEW, TEMP, NEXT, FILES), start=10)
}
"""The good addresses of each name; ``many`` and the bulk names have ranges of their own."""
