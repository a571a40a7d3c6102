"""Where everything in the lab is: addresses and names, in one place.

Owns constants. The outside world's addresses are ordinary unicast space, because documentation
and private ranges are special-purpose and never permitted; there is no route out of the lab, so
nobody who really has these addresses ever hears of it. The domains are those that IANA keeps for
examples.
"""

from __future__ import annotations

NAMESPACE = "obot-mcp"
NODE_NAME = "demo-node"

POD_CIDR4, POD_CIDR6 = "10.244.0.0/24", "fd00:10:244::/64"
CLUSTER_CIDRS = (POD_CIDR4, "10.96.0.0/12", POD_CIDR6)
GATEWAY4, GATEWAY6 = "10.244.0.1", "fd00:10:244::1"
CLUSTER_DNS = "10.96.0.10"
"""The nameserver in the pods' resolv.conf. Nothing has this address: Nameward answers for it."""

NODE4, NODE6 = "172.31.255.2", "fd00:172:31::2"
WORLD4, WORLD6 = "172.31.255.1", "fd00:172:31::1"

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
SHORT_TTL_S, GRACE_S = 1, 1


def site(index: int) -> tuple[str, str]:
    """Return the IPv4 and IPv6 address of the ``index``-th site of the outside world (1 to 250)."""
    return f"44.31.1.{index}", f"2a10:4000::1:{index:x}"


def pod_addresses(index: int) -> tuple[str, str]:
    """Return the addresses of the ``index``-th pod (2 to 250)."""
    return f"10.244.0.{index}", f"fd00:10:244::{index:x}"


SITE_OF = {
    name: site(index)
    for index, name in enumerate((CRM, LEDGER, SHOP, MIXED, SHORT, NEW, TEMP, NEXT, FILES), start=10)
}
"""The good addresses of each name; ``many`` and the bulk names have ranges of their own."""
