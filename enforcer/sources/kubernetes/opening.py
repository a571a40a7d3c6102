"""The source ``kubernetes`` as the settings say: where the API server is, what is asked of it.

Owns the translation from settings. Never asks anything itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twisted.python.failure import Failure

from enforcer.kube.access import Access, from_kubeconfig, in_cluster
from enforcer.kube.client import Api
from enforcer.sources.kubernetes.cluster import Place
from enforcer.sources.kubernetes.saved import Origin, SavedCopy
from enforcer.sources.kubernetes.source import KubernetesSource
from policy.runtime.clock import MonotonicReactor
from policy.runtime.kinds import parse_upstream
from policy.runtime.settings import Settings


def access_of(settings: Settings) -> Access:
    """Return how the API server is reached. Raises ``AccessError``."""
    kubernetes = settings.policy.kubernetes
    if kubernetes.kubeconfig:
        return from_kubeconfig(kubernetes.kubeconfig, kubernetes.context)
    return in_cluster()


def open_cluster(
    reactor: MonotonicReactor,
    settings: Settings,
    *,
    boot_id: str,
    version: str,
    failed: Callable[[Failure], object],
) -> KubernetesSource:
    """Return the source; it is not started. ``AccessError`` if the API server cannot be reached like this."""
    access = access_of(settings)
    place = Place(
        node=settings.node,
        governed=settings.policy.governed_namespaces,
        dns_servers=frozenset(parse_upstream(text).address for text in settings.dns.cluster_upstreams),
        every_node=settings.state.redis is not None,
    )
    origin = Origin(boot_id, settings.node, settings.cluster, access.server)
    api = Api(access, user_agent=f"nameward-enforcer/{version}")
    saved = SavedCopy(Path(settings.runtime_dir) / "cluster.json", origin)
    return KubernetesSource(reactor, api, place, saved, failed)
