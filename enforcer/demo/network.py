"""The lab's cables: node, outside world, and a routed veth for each pod.

Owns interfaces, addresses and routes, made with iproute2 in batches. Never touches a namespace
that the lab did not make. As the ptp CNI plugin does it: a pod has a /32 and a /128, a link route
to the gateway and a default route by it; the node has a host route to each pod.
"""

from __future__ import annotations

from functools import partial

from enforcer.demo import places
from enforcer.demo.failure import CannotRunHereError, LabFailureError
from enforcer.demo.processes import output_of, wait_until
from enforcer.demo.spaces import Space

_QUIET = {"ipv6__conf__all__accept_dad": 0, "ipv6__conf__default__accept_dad": 0}


def _batch(space: Space, commands: str) -> None:
    lines = "\n".join(line.strip() for line in commands.strip().splitlines())
    output_of(space, ["ip", "-batch", "-"], lines + "\n")


def connect_world(node: Space, world: Space) -> None:
    """Lay the node's uplink, make the world own whole ranges, and route the pods' ranges back."""
    node.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1, **_QUIET)
    world.sysctl(ipv6__ip_nonlocal_bind=1, **_QUIET)
    try:
        _batch(
            node,
            f"""link set lo up
            link add uplink0 type veth peer name node0 netns {world.path}
            addr add {places.NODE4}/30 dev uplink0
            addr add {places.NODE6}/64 dev uplink0 nodad
            link set uplink0 up""",
        )
    except LabFailureError as error:
        raise CannotRunHereError(f"A veth pair cannot be made here (kernel module veth): {error}") from error
    local = (places.SITES4, places.SITES6, places.ATTACKER_NET4, places.ATTACKER_NET6, places.METADATA)
    _batch(
        world,
        f"""link set lo up
        addr add {places.WORLD4}/30 dev node0
        addr add {places.WORLD6}/64 dev node0 nodad
        link set node0 up
        route add {places.POD_CIDR4} via {places.NODE4}
        route add {places.POD_CIDR6} via {places.NODE6}
        """
        + "\n".join(f"route add local {net} dev lo" for net in local),
    )
    _batch(
        node,
        f"""route add default via {places.WORLD4}
        route add default via {places.WORLD6}""",
    )
    _settle((node, "uplink0"), (world, "node0"))


def _settle(*ends: tuple[Space, str]) -> None:
    """Wait until IPv6 is ready at both ends of a cable, as CNI plugins do (SettleAddresses)."""
    for space, interface in ends:
        if not wait_until(partial(space.has_settled, interface), 5.0, 0.001):
            raise LabFailureError(f"IPv6 on {interface} of {space.name} does not become ready")


def connect_pod(node: Space, pod: Space, index: int) -> None:
    """Give ``pod`` its interface and the node its routes to it. ``index``: 2 to 250."""
    address4, address6 = places.pod_addresses(index)
    veth = pod_interface(index)
    pod.sysctl(**_QUIET)
    _batch(
        node,
        f"""link add {veth} type veth peer name eth0 netns {pod.path}
        addr add {places.GATEWAY4}/32 dev {veth}
        addr add {places.GATEWAY6}/128 dev {veth} nodad
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
        route add {places.GATEWAY4}/32 dev eth0 scope link
        route add default via {places.GATEWAY4} dev eth0
        route add {places.GATEWAY6}/128 dev eth0
        route add default via {places.GATEWAY6} dev eth0""",
    )
    _settle((node, veth), (pod, "eth0"))


def disconnect_pod(node: Space, index: int) -> None:
    """Take the pod's interface away, as the CNI does when a pod goes."""
    _batch(node, f"link del {pod_interface(index)}")


def pod_interface(index: int) -> str:
    """Return the name of the node's end of a pod's cable."""
    return f"veth{index}"
