"""The watch over the kernel and the host: what changes there is looked at, and put right if it is ours.

Owns the descriptors and the timers of the self-checks, and what ``status`` says is in doubt. Decides
nothing: repairs are the reconciler's. Invariant: whatever a look finds, nothing is opened by it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from enforcer import probe
from enforcer.bridging import Bridging
from enforcer.foreign import Foreign
from enforcer.installation import Installation
from enforcer.kernel import Kernel, KernelRejected
from enforcer.nflog import Nflog
from enforcer.node import Node
from enforcer.proving import TICK_S, Proving
from enforcer.readable import Readable
from enforcer.reconciler import Reconciler
from enforcer.records import Records
from enforcer.refusals import PACKETS_A_TURN
from enforcer.routes import Routes
from enforcer.way import Way
from policy.runtime.clock import MonotonicReactor
from policy.runtime.settings import Settings

CHECK_EVERY_S = 5.0
CHECK_AT_MOST_EVERY_S = 1.0
"""However often snapshots come, while nothing is in doubt."""
COMPARE_EVERY_S = 60.0
PORTS_EVERY_S = 0.5


class Watch:
    """Looks at events, and at everything now and then all the same."""

    def __init__(
        self,
        *,
        reactor: MonotonicReactor,
        settings: Settings,
        records: Records,
        sockets: Mapping[str, socket.socket],
        kernel: Kernel,
        routes: Routes,
        way: Way,
        installation: Installation,
        bridging: Bridging,
        proving: Proving,
        reconciler: Reconciler,
        node: Node,
        tell_enforced: Callable[[frozenset[str]], None],
        lay_out: Callable[[], None],
        failed: Callable[[Failure], None],
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._records = records
        self._sockets = sockets
        self._kernel = kernel
        self._routes = routes
        self._way = way
        self._installation = installation
        self._bridging = bridging
        self._proving = proving
        self._reconciler = reconciler
        self._node = node
        self._tell_enforced = tell_enforced
        self._lay_out = lay_out
        self._failed = failed
        self._nflog: Nflog | None = None
        self._foreign = Foreign()
        self._soon: IDelayedCall | None = None
        self._checked_at = float("-inf")
        self._look_at_foreign()

    def start(self) -> None:
        """Follow the kernel's descriptors, and look every so often."""
        self._reactor.addReader(Readable(self._kernel.monitor_fd(), self._kernel_changed))
        self._reactor.addReader(Readable(self._routes.monitor_fd(), self._routes_changed))
        try:
            self._nflog = Nflog(self._settings.enforcement.nflog_group)
        except OSError as error:
            in_use = "its group is another program's" if error.errno == errno.EBUSY else str(error)
            self._records.tell("packets.unrecorded", "error", reason=f"NFLOG: {in_use}; set nflogGroup")
        else:
            self._reactor.addReader(Readable(self._nflog.fileno(), self._packets_came))
        for seconds, look in (
            (CHECK_EVERY_S, self.check),
            (COMPARE_EVERY_S, self.compare),
            (PORTS_EVERY_S, self._reconciler.look_for_ports),
            (TICK_S, self._proving.tick),
        ):
            every(self._reactor, seconds, look, self._failed)

    def compare(self) -> None:
        """Compare what is with what should be, and repair it."""
        self._look_at_foreign()
        self._repair(deep=False)
        self._reconciler.retry()

    def published(self) -> None:
        """Another snapshot is in force: check soon, and at once where something was in doubt."""
        if self._soon is not None and self._soon.active():
            if not self._node.doubts:
                return
            self._soon.cancel()
        rest_s = (
            0.0 if self._node.doubts else self._checked_at + CHECK_AT_MOST_EVERY_S - self._reactor.seconds()
        )
        self._soon = self._reactor.callLater(max(rest_s, 0.0), self.check)

    def check(self) -> None:
        """Ask the kernel whether it enforces; what is in doubt is what ``status`` says."""
        self._checked_at = self._reactor.seconds()
        proving = self._proving
        proving.is_required = self._node.settings.enforcement.pod_proof == "require"
        doubts = [*self._installation.doubts, *self._bridging.doubts, *self._foreign.doubts]
        if self._reconciler.snapshot is None:
            doubts.append("nothing was loaded yet")
        elif not doubts:
            found = (probe.must_drop(self._sockets), probe.must_pass(self._passed))
            doubts += [each for each in found if each]
        stands = not doubts
        self._node.doubts = (*doubts, *proving.doubts)
        self._say_problems()
        self._tell_enforced(proving.enforced if stands else frozenset())

    def untracking(self) -> tuple[str, ...]:
        """Look which chains of others take packets out of connection tracking, and name them."""
        self._look_at_foreign()
        return self._foreign.untracked

    def _kernel_changed(self) -> None:
        events = self._kernel.drain_events()
        if events & {"offload", "lost"}:
            self._look_at_foreign()
        if events:
            self._repair(deep=bool(events & {"changed", "lost"}))

    def _routes_changed(self) -> None:
        changes = self._routes.drain_changes()
        if changes & {"rules", "routes", "lost"}:
            self._keep_dns_rule()
        if changes & {"rules", "filters", "lost"}:
            self._proving.host_changed()
        elif "routes" in changes:
            self._proving.ways_changed()
        if changes & {"links", "routes", "lost"}:
            if self._way.capture_by == "rewrite":
                self._lay_out()  # it names an address of the node
            self._reconciler.host_changed()
            self._node.renew()

    def _keep_dns_rule(self) -> None:
        """Restore the rule that somebody (systemd-networkd does) removed."""
        is_used = self._settings.dns.capture and self._way.capture_by == "rule"
        if not is_used or self._routes.dns_rule_stands():
            return
        try:
            self._routes.install_dns_rule()
        except OSError as error:
            self._records.tell("kernel.refused", "error", reason=f"the DNS routing rule: {error.strerror}")
            return
        self._installation.repairs += 1
        self._records.tell("enforcer.repaired", "warning", reason="the DNS routing rule was gone")

    def _packets_came(self) -> None:
        if self._nflog is not None:
            packets, _ = self._nflog.read(PACKETS_A_TURN)
            self._node.refusals.packets_denied(packets)

    def _look_at_foreign(self) -> None:
        """Read what others' rulesets do to pods' packets."""
        try:
            self._foreign = self._kernel.foreign()
        except OSError as error:
            self._records.tell("kernel.refused", "error", reason=f"others' rules cannot be read: {error}")
        self._say_problems()

    def _say_problems(self) -> None:
        """Say what is wrong on this host, and does not keep the node from enforcing."""
        said = (*self._way.problems, *self._foreign.problems, *self._proving.problems)
        self._node.host_problems = said

    def _repair(self, *, deep: bool) -> None:
        try:
            self._reconciler.repair(deep=deep)
        except KernelRejected as error:
            self._reconciler.kernel_errors += 1
            self._node.doubts = (f"the kernel refused the repair: {error}",)
            self._reactor.callLater(1.0, self.compare)
            return
        self.check()

    def _passed(self) -> int:
        return self._kernel.counters().get("passed", (0, 0))[0]


def every(
    reactor: MonotonicReactor, seconds: float, call: Callable[[], None], failed: Callable[[Failure], None]
) -> None:
    """Call it every so many seconds, the first time after as many; ``failed`` hears what it raises."""
    turning = LoopingCall(call)
    turning.clock = reactor
    turning.start(seconds, now=False).addErrback(failed)
