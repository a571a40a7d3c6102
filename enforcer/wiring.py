"""The parts of one enforcer, made and joined to the loop: timers, descriptors, threads, ports.

Owns who knows whom. Decides nothing, and holds no state but the parts. Work in threads comes back on
the loop; a failure there is the process's.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from enforcer import inspect, link, web
from enforcer.able import capabilities
from enforcer.authority import Authority, GrantLimits
from enforcer.blocked import BlockedRecords
from enforcer.break_glass import Openings
from enforcer.bridging import Bridging
from enforcer.collection import Collection
from enforcer.conntrack import Conntrack
from enforcer.desired import Fixed
from enforcer.inspection import Inspection
from enforcer.installation import Installation
from enforcer.journal import Journal, replay
from enforcer.journaled import known_answers, replayed_answers
from enforcer.kernel import Kernel
from enforcer.kube.access import AccessError
from enforcer.layout import Layout
from enforcer.node import Node
from enforcer.probe import Questions
from enforcer.proving import Proving
from enforcer.reconciler import Reconciler
from enforcer.records import LogRecords
from enforcer.removal import removal_of
from enforcer.reports.opening import open_reports
from enforcer.revision import OnRevoke
from enforcer.routes import Routes
from enforcer.sharing.opening import ledger_of, open_sharing
from enforcer.sources import Source
from enforcer.sources.opening import is_same_place, open_source
from enforcer.watch import Watch, every
from enforcer.way import rewrite_to, way_of_dns
from enforcer.worlds import layout_of, listen_endpoints, upstream_endpoints
from policy.runtime import pauses
from policy.runtime.clock import MonotonicReactor, now
from policy.runtime.release import release
from policy.runtime.resolvconf import host_upstreams
from policy.runtime.settings import Settings
from policy.snapshot import Snapshot

DEFAULT_DNS_PORT = 15353
COLLECT_EVERY_S = 15.0
COMPACTION_LINES = 200
THREADS = 3


class Wiring:
    """All parts, joined. ``KernelRejected`` or ``OSError`` if the host does not allow it."""

    def __init__(
        self,
        *,
        reactor: MonotonicReactor,
        settings: Settings,
        records: LogRecords,
        resolver_uid: int,
        sockets: Mapping[str, socket.socket],
        failed: Callable[[Failure], None],
        routes: Routes | None = None,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._records = records
        self._sockets = sockets
        self._failed = failed
        self._uid = resolver_uid
        self._folder = Path(settings.runtime_dir)
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._threads = ThreadPool(0, THREADS, "enforcer")
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        self._kernel = Kernel()
        self._able = capabilities(self._kernel, self._folder / "able", boot_id)
        self._routes = routes or Routes()
        self.ledger = ledger_of(settings)
        self._blocked = BlockedRecords(settings.limits.blocked_records)
        self._replayed = replay(self._folder / "journal", boot_id)
        self._journal = Journal(self._folder / "journal", boot_id)
        self._way = way_of_dns(self._routes, capture=settings.dns.capture)
        layout = self._layout()
        self.installation = Installation(
            self._kernel, layout, self._folder / "structure", guards=self._able.owns
        )
        self._bridging = Bridging(self._kernel, layout)
        self.authority = Authority(self.ledger, self._journal, self._kernel.commit_grants, _limits(settings))
        self._join(settings, boot_id)

    def _join(self, settings: Settings, boot_id: str) -> None:
        flows = Conntrack()
        self.reconciler = Reconciler(
            kernel=self._kernel,
            installation=self.installation,
            bridging=self._bridging,
            flows=flows,
            host=self._routes,
            ledger=self.ledger,
            journal=self._journal,
            authority=self.authority,
            records=self._records,
            fixed=_fixed(settings, boot_id),
            on_revoke=cast("OnRevoke", settings.enforcement.on_revoke),
            off_loop=self._off_loop,
            now=now,
            published=self._published,
            admitted=self._admitted,
        )
        self.node = Node(
            settings=settings,
            version=release(),
            ledger=self.ledger,
            blocked=self._blocked,
            authority=self.authority,
            reconciler=self.reconciler,
            records=self._records,
            openings=Openings(self._folder / "break-glass", self._records),
            addresses=self._routes.addresses,
            off_loop=self._off_loop,
            later=self._reactor.callLater,
            now=now,
            pending=lambda: self.hub.pending,
        )
        self.node.repairs = lambda: self.installation.repairs
        self._look_after(settings, flows)
        self._open_doors(settings)

    def _look_after(self, settings: Settings, flows: Conntrack) -> None:
        """Make what keeps it all as it should be."""
        self._collection = Collection(
            kernel=self._kernel,
            flows=flows,
            ledger=self.ledger,
            off_loop=self._off_loop,
            next_turn=lambda call: self._reactor.callLater(0, call),
            now=now,
        )
        self.proving = Proving(
            kernel=self._kernel,
            asking=Questions(),
            ways=self._routes,
            records=self._records,
            admitted=lambda: [account.identity for account in self.ledger.accounts.values()],
            awaited=lambda: len(self.node.unadmitted),
            untracked_by=lambda: self.watch.untracking(),  # noqa: PLW0108 - made later
            now=now,
            later=self._reactor.callLater,
            changed=lambda: self.watch.check(),  # noqa: PLW0108 - made later
        )
        self.watch = Watch(
            reactor=self._reactor,
            settings=settings,
            records=self._records,
            sockets=self._sockets,
            kernel=self._kernel,
            routes=self._routes,
            way=self._way,
            installation=self.installation,
            bridging=self._bridging,
            proving=self.proving,
            reconciler=self.reconciler,
            node=self.node,
            tell_enforced=lambda uids: self.hub.tell_enforced(uids),  # noqa: PLW0108 - made later
            lay_out=self._lay_out,
            failed=self._failed,
        )

    def _open_doors(self, settings: Settings) -> None:
        """Join what others speak to: the authority socket, and the source that speaks to us."""
        self.hub = link.LinkHub(
            reactor=self._reactor,
            authority=self.authority,
            reports=self.node,
            records=self._records,
            uids=frozenset((self._uid,)),
            sockets=self._sockets,
            version=release(),
            granted=self._write_journal,
            turn_done=self._turn_done,
        )
        self.source = self._source(settings)
        self.removal = removal_of(
            settings, self._folder, self._records, asked=self._reactor.stop, seen=self.node.source_seen
        )
        self.node.source_counts = lambda: self.source.counts
        self.reports = open_reports(
            self._reactor,
            settings,
            self.node,
            blocked=self._blocked,
            records=self._records,
            snapshot=lambda: self.reconciler.snapshot,
            failed=self._failed,
            version=release(),
        )
        self._share(settings)

    def _share(self, settings: Settings) -> None:
        """Join shared state, where there is any."""
        self.sharing = open_sharing(
            self._reactor,
            settings,
            self.ledger,
            blocked=self._blocked,
            records=self._records,
            in_force=lambda: self._settings,
            snapshot=lambda: self.reconciler.snapshot,
            status=self.node.status,
            look_again=self._look_again,
            asked=self.hub.came,
            failed=self._failed,
        )
        if self.sharing is None:
            return
        self.hub.elsewhere = self.sharing.remote
        self.node.shared = self.sharing

    def _source(self, settings: Settings) -> Source:
        return open_source(
            self._reactor,
            self._threads,
            settings,
            boot_id=self.reconciler.fixed.boot_id,
            version=release(),
            failed=self._failed,
        )

    def _layout(self) -> Layout:
        by = self._way.capture_by
        to = rewrite_to(self._routes.addresses()) if by == "rewrite" else ()
        return layout_of(self._settings, self._uid, self._dns_port(), capture_by=by, rewrite_to=to)

    def _dns_port(self) -> int:
        captured = self._sockets.get("udp4") or self._sockets.get("udp6")
        return int(captured.getsockname()[1]) if captured is not None else DEFAULT_DNS_PORT

    # --- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take over what is there, listen, read the source; what follows happens on the loop."""
        self._threads.start()
        self.reconciler.begin(self._replayed)
        self._journal.open(
            self._replayed.generation, self._replayed.admitted, replayed_answers(self._replayed.answers)
        )
        self.node.begin(self._replayed.generation)
        self.watch.start()
        every(self._reactor, COLLECT_EVERY_S, self._collection.begin, self._failed)
        link.listen(self._reactor, self._folder, self.hub, self._uid)
        inspection = Inspection(
            self._settings.node,
            self.ledger,
            self._blocked,
            lambda: self.reconciler.snapshot,
            self.node.status,
            elsewhere=self.sharing.view if self.sharing is not None else None,
            knows_all=lambda: self.sharing is not None or self._settings.policy.source == "files",
        )
        later = self._reactor.callLater
        askers = inspect.InspectFactory(inspection, now, later, inspect.Turns(now, later))
        inspect.listen(self._reactor, self._folder, askers)
        if self._settings.metrics.listen:
            asked = self._settings.metrics
            numbers, missing = self.node.metrics.registry, lambda: self.node.missing
            pages = web.site(numbers, missing, token_file=asked.token_file, reactor=self._reactor)
            web.Door(self._reactor, asked, pages, self._records).open()
        if self.sharing is not None:
            self.sharing.start()
            every(self._reactor, self.sharing.tick_every_s, self.sharing.tick, self._failed)
        if self.reports is not None:
            self.reports.start()
            every(self._reactor, self.reports.look_every_s, self.reports.look, self._failed)
        self.source.start(self.removal.look)

    def close(self) -> None:
        """Let go of everything; the kernel keeps what is open, the journal says why."""
        self.source.stop()
        self.proving.close()
        if self.reports is not None:
            self.reports.stop()
        if self.sharing is not None:
            self.sharing.stop()
        self.hub.stop()
        try:
            self._journal.close()
        except OSError as error:
            self._records.tell("journal.failed", "error", reason=str(error))
        self._threads.stop()

    def reload(self, settings: Settings) -> None:
        """Bring new settings into force as far as a reload can."""
        old, self._settings = self._settings, settings
        self.node.settings = settings
        self.authority.limits = _limits(settings)
        self.reconciler.on_revoke = cast("OnRevoke", settings.enforcement.on_revoke)
        self.reconciler.fixed = _fixed(settings, self.reconciler.fixed.boot_id)
        self._lay_out()
        if is_same_place(settings, old):
            self.source.look()
        else:
            self._change_source(settings)
        self.node.renew()
        self.reconciler.host_changed()

    def _change_source(self, settings: Settings) -> None:
        """Follow another source; one that cannot be opened leaves the old one."""
        try:
            source = self._source(settings)
        except AccessError as error:
            self.node.configuration_problems += (f"policy.kubernetes is not reloaded: {error}",)
            return
        self.source.stop()
        self.source = source
        self.source.start(self.removal.look)

    def _lay_out(self) -> None:
        """Bring what the structure depends on into force, if it has changed."""
        layout = self._layout()
        self._bridging.change(layout)
        if self.installation.change(layout):
            self.watch.compare()

    # --- what happens ----------------------------------------------------------------------------

    def _off_loop(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        started = deferToThreadPool(self._reactor, self._threads, work)
        started.addCallback(done)
        started.addErrback(self._failed)

    def _published(self, snapshot: Snapshot) -> None:
        self._write_journal()
        self.node.unpublished = self.hub.publish(snapshot.world)
        self.watch.published()
        self._reactor.callLater(0, pauses.settle)
        self._pods_changed()

    def _admitted(self) -> None:
        self._write_journal()
        self.hub.admitted()
        self._pods_changed()

    def _pods_changed(self) -> None:
        self.proving.pods_changed()
        if self.sharing is not None:
            self.sharing.remote.pods_changed()

    def _look_again(self) -> None:
        self.source.look()
        self.reconciler.host_changed()

    def _turn_done(self) -> None:
        if self._journal.wants_compaction:
            self._journal.begin_compaction(*known_answers(self.ledger))
        self._journal.compact_step(COMPACTION_LINES)

    def _write_journal(self) -> None:
        try:
            self._journal.flush()
        except OSError as error:
            self._records.tell("journal.failed", "error", reason=f"{error.strerror}; no grant outlives us")


def _limits(settings: Settings) -> GrantLimits:
    limits = settings.limits
    return GrantLimits(
        settings.dns.max_ttl_s, settings.enforcement.grace_s, limits.grants_per_pod, limits.grants
    )


def _fixed(settings: Settings, boot_id: str) -> Fixed:
    upstreams = upstream_endpoints(settings, host_upstreams())
    return Fixed(settings.node, boot_id, upstreams, listen_endpoints(settings), settings.dns.peers)
