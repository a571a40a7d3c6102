"""The lab's cables: nodes, outside world, and a routed veth for each pod.

Owns interfaces, addresses and routes, made with iproute2 in batches. Never touches a namespace
that the lab did not make. As the ptp CNI plugin does it: a pod has a /32 and a /128, a link route
to the gateway and a default route by it; the node has a host route to each pod.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from enforcer.demo import places
from enforcer.demo.failure import CannotRunHereError, LabFailureError
from enforcer.demo.places import NodePlace
from enforcer.demo.processes import LONG_S, output_of, wait_until
from enforcer.demo.spaces import Space

_QUIET = {"ipv6__conf__all__accept_dad": 0, "ipv6__conf__default__accept_dad": 0}
_CUTTING = f"""
table ip cut {{
  set nodes {{ type ipv4_addr; }}
  chain passing {{
    type filter hook forward priority 0; policy accept;
    ip saddr @nodes ip daddr {places.STORE4} drop
    ip saddr {places.STORE4} ip daddr @nodes drop
  }}
}}
"""


def _batch(space: Space, commands: str) -> None:
    lines = "\n".join(line.strip() for line in commands.strip().splitlines())
    output_of(space, ["ip", "-batch", "-"], lines + "\n")


def connect_world(node: Space, world: Space, place: NodePlace = places.HOME) -> None:
    """Lay the uplink of the node at ``place``, and route its pods' ranges back by it."""
    node.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1, **_QUIET)
    far = place.world_interface
    try:
        _batch(
            node,
            f"""link set lo up
            link add uplink0 type veth peer name {far} netns {world.path}
            addr add {place.node4}/30 dev uplink0
            addr add {place.node6}/64 dev uplink0 nodad
            link set uplink0 up""",
        )
    except LabFailureError as error:
        raise CannotRunHereError(f"A veth pair cannot be made here (kernel module veth): {error}") from error
    cidr4, cidr6 = place.pod_cidrs
    _batch(
        world,
        f"""addr add {place.world4}/30 dev {far}
        addr add {place.world6}/64 dev {far} nodad
        link set {far} up
        route add {cidr4} via {place.node4}
        route add {cidr6} via {place.node6}""",
    )
    _batch(
        node,
        f"""route add default via {place.world4}
        route add default via {place.world6}""",
    )
    _settle((node, "uplink0"), (world, far))


def settle_world(world: Space, *, joins_nodes: bool = False) -> None:
    """Make the world own whole ranges; it is the wire between the nodes too where there are several."""
    world.sysctl(ipv6__ip_nonlocal_bind=1, **_QUIET)
    if joins_nodes:
        world.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
    local = (places.SITES4, places.SITES6, places.ATTACKER_NET4, places.ATTACKER_NET6, places.METADATA)
    _batch(world, "link set lo up\n" + "\n".join(f"route add local {net} dev lo" for net in local))


def connect_store(world: Space, store: Space) -> None:
    """Give Redis a place of its own that every node reaches through the world, until it is cut off."""
    store.sysctl(**_QUIET)
    _batch(
        world,
        f"""link add store0 type veth peer name eth0 netns {store.path}
        addr add {places.STORE_GATEWAY4}/30 dev store0
        link set store0 up""",
    )
    _batch(
        store,
        f"""link set lo up
        addr add {places.STORE4}/30 dev eth0
        link set eth0 up
        route add default via {places.STORE_GATEWAY4}""",
    )
    output_of(world, ["nft", "-f", "-"], _CUTTING)


def cut_from_store(world: Space, place: NodePlace, *, off: bool = True) -> None:
    """Drop every packet between one node and Redis, or (``off`` false) let them pass again."""
    change = "add" if off else "delete"
    output_of(world, ["nft", f"{change} element ip cut nodes {{ {place.node4} }}"])


def lead(world: Space, addresses: Sequence[str], place: NodePlace) -> None:
    """Lead a pod's addresses to the node at ``place``, as a cluster's network does when they move."""
    lines = [
        f"route replace {address} via {place.node6 if ':' in address else place.node4}"
        for address in addresses
    ]
    _batch(world, "\n".join(lines))


def _settle(*ends: tuple[Space, str]) -> None:
    """Wait until IPv6 is ready at both ends of a cable, as CNI plugins do (SettleAddresses)."""
    for space, interface in ends:
        if not wait_until(partial(space.has_settled, interface), LONG_S, 0.001):
            raise LabFailureError(f"IPv6 on {interface} of {space.name} does not become ready")


def connect_pod(
    node: Space,
    pod: Space,
    index: int,
    addresses: tuple[str, str],
    gateways: tuple[str, str] = places.HOME.gateways,
) -> None:
    """Give ``pod`` its interface and the node its routes to it. ``index``: 2 to 250, names the cable."""
    (address4, address6), (gateway4, gateway6) = addresses, gateways
    veth = pod_interface(index)
    pod.sysctl(**_QUIET)
    _batch(
        node,
        f"""link add {veth} type veth peer name eth0 netns {pod.path}
        addr add {gateway4}/32 dev {veth}
        addr add {gateway6}/128 dev {veth} nodad
        link set {veth} up
        route add {address4}/32 dev {veth}
        route add {address6}/128 dev {veth}""",
    )
    _batch(
        pod,
        f"""link set lo up
        addr add {address4}/32 dev eth0
        addr add {address6}/128 dev eth0 nodad
        link set eth0 up
        route add {gateway4}/32 dev eth0 scope link
        route add default via {gateway4} dev eth0
        route add {gateway6}/128 dev eth0
        route add default via {gateway6} dev eth0""",
    )
    _settle((node, veth), (pod, "eth0"))


def disconnect_pod(node: Space, index: int) -> None:
    """Take the pod's interface away, as the CNI does when a pod goes."""
    _batch(node, f"link del {pod_interface(index)}")


def pod_interface(index: int) -> str:
    """Return the name of the node's end of a pod's cable."""
    return f"veth{index}"
