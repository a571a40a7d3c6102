"""Worlds and layouts: what the source has seen and the settings say, in the shapes of the parts.

Pure. Owns the translation from settings. Never decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, cast

import msgspec

from enforcer.elements import Endpoint
from enforcer.ruleset import Layout
from policy.addresses import from_packed, to_packed
from policy.break_glass import BreakGlass
from policy.manifest import Loaded
from policy.pods import labels_match
from policy.runtime.kinds import parse_listen, parse_upstream
from policy.runtime.settings import Settings
from policy.world import World


def world_of(
    loaded: Loaded,
    settings: Settings,
    addresses: Iterable[bytes],
    generation: int,
    *,
    complete: bool,
    break_glass: tuple[BreakGlass, ...] = (),
) -> World:
    """Return the world of what was loaded on a node with these (packed) addresses.

    ``break_glass``: the namespaces that are open by hand now.
    """
    enforcement = settings.enforcement
    return World(
        generation=generation,
        pods=loaded.pods,
        policies=loaded.policies,
        services=loaded.services,
        ceiling=settings.policy.ceiling,
        break_glass=break_glass,
        cluster_cidrs=enforcement.cluster_cidrs,
        node_addresses=tuple(sorted(from_packed(each) for each in addresses)),
        cluster_traffic=cast(Literal["exempt", "govern"], enforcement.cluster_traffic),
        cluster_domain=settings.dns.cluster_domain,
        private_zones=settings.dns.private_zones,
        dns_addresses=_dns_addresses(loaded, settings.dns.cluster_upstreams),
        loaded=complete,
    )


def is_same(one: World, other: World) -> bool:
    """Say whether two worlds differ in nothing but their generation."""
    return msgspec.structs.replace(one, generation=other.generation) == other


def _dns_addresses(loaded: Loaded, cluster_upstreams: Iterable[str]) -> tuple[str, ...]:
    """Return the cluster's DNS servers and the endpoints behind them."""
    servers = {parse_upstream(text).address for text in cluster_upstreams}
    found = set(servers)
    for service in loaded.services:
        if servers.isdisjoint(service.cluster_ips):
            continue
        found.update(service.addresses)
        for pod in loaded.pods:
            is_behind = service.selector and pod.namespace == service.namespace
            if is_behind and labels_match(service.selector or {}, pod.labels):
                found.update(pod.addresses)
    return tuple(sorted(found))


def upstream_endpoints(settings: Settings, host: Iterable[str]) -> tuple[Endpoint, ...]:
    """Return where the resolver may ask; ``host`` are the host's own servers, used without others."""
    endpoints = []
    for text in (*(settings.dns.upstreams or tuple(host)), *settings.dns.cluster_upstreams):
        upstream = parse_upstream(text)
        packed = to_packed(upstream.address)
        endpoints.append(Endpoint(packed, "tcp", upstream.port))
        if not upstream.tls:
            endpoints.append(Endpoint(packed, "udp", upstream.port))
    return tuple(endpoints)


def listen_endpoints(settings: Settings) -> tuple[Endpoint, ...]:
    """Return where ungoverned clients are answered."""
    places = [parse_listen(text) for text in settings.dns.listen]
    return tuple(
        Endpoint(to_packed(address), protocol, port)
        for address, port in places
        for protocol in ("udp", "tcp")
    )


KINDS = frozenset(
    ("veth", "netkit", "bridge", "macvlan", "macvtap", "ipvlan", "ipvtap", "tun", "dummy", "vlan", "vxlan")
)
"""What rtnetlink calls kinds; anything else in ``podInterfaces`` is a name or its beginning."""


def layout_of(
    settings: Settings,
    resolver_uid: int,
    dns_port: int,
    *,
    capture_by: Literal["rule", "rewrite"] = "rule",
    rewrite_to: tuple[str, ...] = (),
) -> Layout:
    """Return what the ruleset's structure depends on."""
    enforcement = settings.enforcement
    interfaces = enforcement.pod_interfaces
    return Layout(
        pod_interface_kinds=tuple(each for each in interfaces if each in KINDS),
        pod_interface_names=tuple(each for each in interfaces if each not in KINDS),
        capture=settings.dns.capture,
        cluster_traffic=cast(Literal["exempt", "govern"], enforcement.cluster_traffic),
        unknown_pods=cast(Literal["deny", "allow"], enforcement.unknown_pods),
        nflog_group=enforcement.nflog_group,
        resolver_uid=resolver_uid,
        dns_port=dns_port,
        capture_by=capture_by,
        rewrite_to=rewrite_to,
        grants=settings.limits.grants,
    )
