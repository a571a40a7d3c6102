"""Everything a decision depends on, as one value: the input that compiles to a snapshot.

The enforcer builds a World from its source and settings, numbers it, and sends it to the
resolver; both compile it with ``policy.snapshot.compile_snapshot`` and so decide alike.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from policy.break_glass import BreakGlass
from policy.pods import Pod, Service
from policy.rules import Ceiling, Policy


class World(msgspec.Struct, frozen=True, kw_only=True):
    """The compiled snapshot's input. ``generation`` grows by one with every change."""

    generation: int
    pods: tuple[Pod, ...] = ()
    policies: tuple[Policy, ...] = ()
    services: tuple[Service, ...] = ()
    ceiling: Ceiling = Ceiling()
    break_glass: tuple[BreakGlass, ...] = ()
    """Namespaces that are open now, by hand; one for each at most."""
    cluster_cidrs: tuple[str, ...] = ()
    node_addresses: tuple[str, ...] = ()
    cluster_traffic: Literal["exempt", "govern"] = "exempt"
    cluster_domain: str = "cluster.local"
    private_zones: tuple[str, ...] = ()
    dns_addresses: tuple[str, ...] = ()
    """The cluster's DNS servers and the endpoints behind them: never exempt, on any port."""
    loaded: bool = True
    """False until a source was read completely once: every lookup waits (invariant 3)."""
