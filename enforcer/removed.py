"""An enforcer whose rules were taken away: what is left of it until its pod goes.

Owns the taking away at its start, and what it says of itself: on the inspection socket, and to the API
server, for the uninstallation waits for that. Follows the source for one reason: the mark may be taken
back, and then the next enforcer builds the rules again. Invariant: nothing is installed by it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from enforcer import inspect
from enforcer.blocked import BlockedRecords
from enforcer.inspection import Inspection, Row
from enforcer.kernel import Kernel
from enforcer.ledger import MemoryLedger
from enforcer.node import Reported, Unreported
from enforcer.records import LogRecords
from enforcer.removal import forget_removed, removal_of, take_away
from enforcer.reports.opening import open_reports
from enforcer.routes import Routes
from enforcer.sources import Seen
from enforcer.sources.opening import open_source
from enforcer.watch import every
from policy.runtime.clock import MonotonicReactor, now
from policy.runtime.release import release
from policy.runtime.settings import Settings

AWAY = "Nameward was removed from this node, as its namespace asks; nothing is enforced"


class Removed:
    """One node without rules. ``KernelRejected`` or ``OSError`` if they cannot be taken away."""

    removed = True

    def __init__(
        self,
        *,
        reactor: MonotonicReactor,
        settings: Settings,
        records: LogRecords,
        failed: Callable[[Failure], None],
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._records = records
        self._failed = failed
        self._folder = Path(settings.runtime_dir)
        self._threads = ThreadPool(0, 1, "enforcer")
        self._blocked = BlockedRecords(settings.limits.blocked_records)
        self.configuration_problems: tuple[str, ...] = ()
        self.reports: Reported = Unreported()
        self.removal = removal_of(settings, self._folder, records, asked=_nothing, seen=self._unmarked)
        self._written = open_reports(
            reactor,
            settings,
            self,
            blocked=self._blocked,
            records=records,
            snapshot=lambda: None,
            failed=failed,
            version=release(),
        )
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        self.source = open_source(
            reactor, self._threads, settings, boot_id=boot_id, version=release(), failed=failed
        )

    @property
    def node(self) -> Removed:
        """What of it has problems."""
        return self

    def start(self) -> None:
        """Take everything away, then say so."""
        kernel, routes = Kernel(), Routes()
        gone = take_away(kernel, routes)
        kernel.close()
        routes.close()
        self._records.tell("rules.removed", "warning", reason=", ".join(gone) or "there were none")
        self._threads.start()
        inspection = Inspection(self._settings.node, MemoryLedger(), self._blocked, lambda: None, self.status)
        later = self._reactor.callLater
        askers = inspect.InspectFactory(inspection, now, later, inspect.Turns(now, later))
        inspect.listen(self._reactor, self._folder, askers)
        if self._written is not None:
            self._written.start()
            every(self._reactor, self._written.look_every_s, self._written.look, self._failed)
        self.source.start(self.removal.look)

    def status(self) -> Row:
        """Return the row of ``nameward status``."""
        return {
            "node": self._settings.node,
            "version": release(),
            "enforcing": False,
            "generation": 0,
            "policyHash": "",
            "pods": 0,
            "policies": 0,
            "rejectedPolicies": 0,
            "grants": 0,
            "pending": 0,
            "redis": "off",
            "upstreams": [],
            "lastRealizedAt": None,
            "problems": [AWAY, *self.configuration_problems, *self.reports.problems],
            "lost": False,
        }

    def close(self) -> None:
        """Let go of everything."""
        self.source.stop()
        if self._written is not None:
            self._written.stop()
        self._threads.stop()

    def reload(self, settings: Settings) -> None:
        """Look again; settings mean nothing here."""
        self._settings = settings
        self.source.look()

    def _unmarked(self, seen: Seen) -> None:
        """The mark is not there, or was not meant for us: end, for the next one to build the rules."""
        if seen.complete and seen.is_fresh:
            self._records.tell("enforcer.returns", "warning", reason="its namespace asks for it no more")
            forget_removed(self._folder)
            self._reactor.stop()


def _nothing() -> None:
    """It is done."""
