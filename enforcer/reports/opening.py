"""Makes the reports of a node whose policies come from an API server.

Owns the choice whether there are any. They, and the client, are imported only where they are used, as by
the source.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from twisted.python.failure import Failure

from enforcer.blocked import BlockedRecords
from enforcer.node import Reported
from enforcer.records import Records
from policy.runtime.clock import MonotonicReactor
from policy.runtime.settings import Settings
from policy.snapshot import Snapshot

if TYPE_CHECKING:
    from enforcer.reports.service import Reports


_SERVICE, _TOLD, _CLIENT = "enforcer.reports.service", "enforcer.reports.told", "enforcer.kube.client"


class Reporting(Protocol):
    """Whose reports they are: ``enforcer.node.Node``, or what is left of one (``enforcer.removed``)."""

    removed: bool
    reports: Reported

    def status(self) -> Mapping[str, Any]:
        """Return the row of ``nameward status``."""


def preload(settings: Settings) -> None:
    """Import what reports need, if there are any; before a fork."""
    if settings.policy.source == "kubernetes":
        for module in (_SERVICE, _TOLD, _CLIENT):
            importlib.import_module(module)


def open_reports(
    reactor: MonotonicReactor,
    settings: Settings,
    node: Reporting,
    *,
    blocked: BlockedRecords,
    records: Records,
    snapshot: Callable[[], Snapshot | None],
    failed: Callable[[Failure], None],
    version: str,
) -> Reports | None:
    """Return the reports, not started; None without an API server. ``AccessError`` as from the source."""
    if settings.policy.source != "kubernetes":
        return None
    access = importlib.import_module("enforcer.sources.kubernetes.opening").access_of(settings)
    told = importlib.import_module(_TOLD).NodeTold
    reports: Reports = importlib.import_module(_SERVICE).Reports(
        reactor=reactor,
        door=importlib.import_module(_CLIENT).Api(access, user_agent=f"nameward-enforcer/{version}"),
        node=settings.node,
        told=told(settings.node, node.status, snapshot, lambda: node.removed),
        blocked=blocked,
        records=records,
        events_per_hour=settings.policy.kubernetes.events_per_hour,
        failed=failed,
    )
    node.reports = reports
    return reports
