"""Makes the sharing of a node that has a Redis.

Owns the choice whether any state is shared. Whatever sharing needs is imported only then: Redis's client
alone costs 12 MiB and a sixth of a start.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from enforcer.asked import Row
from enforcer.blocked import BlockedRecords
from enforcer.ledger import MemoryLedger
from enforcer.records import Records
from policy.runtime.clock import MonotonicReactor, now
from policy.runtime.settings import Settings
from policy.snapshot import Snapshot

if TYPE_CHECKING:
    from enforcer.sharing.service import Sharing

_SERVICE, _PUBLISHING = "enforcer.sharing.service", "enforcer.sharing.publishing"
_DOOR = "enforcer.sharing.redis.door"


def preload(settings: Settings) -> None:
    """Import what sharing needs, if any state is shared; before a fork."""
    if settings.state.redis is not None:
        importlib.import_module(_SERVICE)
        importlib.import_module(_DOOR)


def ledger_of(settings: Settings) -> MemoryLedger:
    """Return the node's ledger: one that marks what there is to share, or only keeps it."""
    redis = settings.state.redis
    if redis is None:
        return MemoryLedger()
    outbox = importlib.import_module(f"{_PUBLISHING}.outbox").Outbox(redis.pending_records, now)
    ledger: MemoryLedger = importlib.import_module(f"{_PUBLISHING}.ledger").RedisLedger(outbox)
    return ledger


def open_sharing(
    reactor: MonotonicReactor,
    settings: Settings,
    ledger: MemoryLedger,
    *,
    blocked: BlockedRecords,
    records: Records,
    in_force: Callable[[], Settings],
    snapshot: Callable[[], Snapshot | None],
    status: Callable[[], Row],
    look_again: Callable[[], None],
    asked: Callable[[], None],
    failed: Callable[[Failure], None],
) -> Sharing | None:
    """Return the sharing, not started; None without a Redis. ``ledger`` is ``ledger_of`` the settings.

    What it asks of the node is as ``enforcer.sharing.service.Here`` says.
    """
    redis = settings.state.redis
    if redis is None:
        return None
    service = importlib.import_module(_SERVICE)
    sharing: Sharing = service.Sharing(
        reactor=reactor,
        redis=redis,
        settings=settings,
        ledger=ledger,
        blocked=blocked,
        records=records,
        here=service.Here(in_force, snapshot, status, look_again, asked),
        failed=failed,
    )
    return sharing
