"""Which source the settings name, made.

Owns the choice. The source ``kubernetes`` is imported only where it is used: its client costs 17 MiB and
a quarter of a second.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from enforcer.sources import Source
from enforcer.sources.files import FilesSource
from policy.runtime.clock import MonotonicReactor
from policy.runtime.settings import Settings

_KUBERNETES = "enforcer.sources.kubernetes.opening"


def preload(settings: Settings) -> None:
    """Import what the source needs, before a fork."""
    if settings.policy.source == "kubernetes":
        importlib.import_module(_KUBERNETES)


def open_source(
    reactor: MonotonicReactor,
    threads: ThreadPool,
    settings: Settings,
    *,
    boot_id: str,
    version: str,
    failed: Callable[[Failure], None],
) -> Source:
    """Return the source; it is not started. ``AccessError`` if it cannot be."""
    if settings.policy.source == "kubernetes":
        open_cluster: Callable[..., Source] = importlib.import_module(_KUBERNETES).open_cluster
        return open_cluster(reactor, settings, boot_id=boot_id, version=version, failed=failed)
    policy = settings.policy
    return FilesSource(reactor, threads, policy.manifests, policy.governed_namespaces, failed)


def is_same_place(one: Settings, other: Settings) -> bool:
    """Say whether two settings name the same source, asked for the same."""
    return _place(one) == _place(other)


def _place(settings: Settings) -> tuple[object, ...]:
    policy = settings.policy
    named = policy.manifests if policy.source == "files" else settings.dns.cluster_upstreams
    return policy.source, policy.kubernetes, policy.governed_namespaces, named
