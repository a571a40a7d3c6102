"""One node's resolver, wired: the core, and around it sockets, upstreams, link and time.

Owns the way of each effect to its adapter and of each event to the core. Decides nothing. Invariants:
after every event the core's effects are carried out at once, in order; the replies to what one read
brought leave after it, and before the loop sleeps the alarm knows the next deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.base import DelayedCall
from twisted.python.failure import Failure

from policy.authority import GrantAnswered, Hello
from policy.compilation import Memory
from policy.runtime import pauses
from policy.runtime.clock import MonotonicReactor
from policy.runtime.kinds import parse_upstream
from policy.runtime.metrics import series_key
from policy.runtime.resolvconf import host_search_domains, host_upstreams
from policy.runtime.sections import Settings
from policy.snapshot import compile_snapshot
from policy.world import World
from resolver.alarm import Alarm
from resolver.core import Core
from resolver.core_settings import CoreSettings
from resolver.doors import Doors
from resolver.effects import AskGrants, AskUpstream, Client, Effect, Reply
from resolver.intake import Intake
from resolver.link import Link
from resolver.log import Log
from resolver.reports import Recording, counters_report
from resolver.stream_listener import StreamListener
from resolver.upstream_io import KernelBits, UpstreamIO
from resolver.upstreams import Forwarding

if TYPE_CHECKING:
    from policy.runtime.kinds import Upstream


FLUSH_S = 0.1
REPORT_S = 1.0
DRAIN_S = 1.0
_DRAIN_STEP_S = 0.02


def core_settings(settings: Settings) -> CoreSettings:
    """Return what the core needs of the node's settings."""
    dns, limits = settings.dns, settings.limits
    return CoreSettings(
        max_ttl_s=int(dns.max_ttl_s),
        grace_s=settings.enforcement.grace_s,
        hold_timeout_s=dns.hold_timeout_s,
        deadline_s=dns.deadline_s,
        queries_per_second=limits.queries_per_second,
        queries_in_flight=limits.queries_in_flight,
        distinct_names=limits.distinct_names.count,
        distinct_names_period_s=limits.distinct_names.period_s,
        cache_entries=limits.cache_entries,
        query_types=dns.query_types,
        blocked_reply=dns.blocked_reply,  # type: ignore[arg-type]
        tunnel_action=dns.tunnel_action,  # type: ignore[arg-type]
        cluster_dns=bool(dns.cluster_upstreams),
        search_domains=dns.search_domains or host_search_domains(),
        pod_cidrs=settings.enforcement.pod_cidrs,
    )


def upstream_groups(settings: Settings) -> dict[str, tuple[Upstream, ...]]:
    """Return whom to ask for names outside and inside the cluster."""
    outside = settings.dns.upstreams or host_upstreams()
    return {
        "outside": tuple(parse_upstream(one) for one in outside),
        "cluster": tuple(parse_upstream(one) for one in settings.dns.cluster_upstreams),
    }


class Resolver:
    """Runs in the reactor from ``start`` until ``drain`` has called back."""

    def __init__(
        self,
        reactor: MonotonicReactor,
        settings: Settings,
        version: str,
        log: Log,
        broken: Callable[[Failure], None],
        *,
        number: int = 0,
    ) -> None:
        self._reactor = reactor
        self._number = number
        self._log = log
        self._core = Core(core_settings(settings))
        self._recording = Recording()
        self._has_rejected = False
        self._has_world = False
        self._memory = Memory()
        groups = upstream_groups(settings)
        self._forwarding = Forwarding(groups, KernelBits())
        self._upstreams = UpstreamIO(
            reactor, self._forwarding, self._upstream_answered, self._upstream_failed
        )
        core = self._core
        self._intake = Intake(reactor, self._received, core.owner, self._held, core.is_idle)
        self._streams = StreamListener(
            reactor,
            self._intake.received,
            self._closed,
            settings.limits.tcp_connections_per_pod,
            self._core.owner,
            hit=self._core.hit,
            broken=broken,
        )
        self._doors = Doors(
            reactor,
            self._streams,
            hit=core.hit,
            received=self._intake.received,
            owner=core.owner,
            broken=broken,
        )
        self._intake.mute = self._doors.mute
        self._link = Link(reactor, f"{settings.runtime_dir}/authority.sock", version, self, number)
        self._alarm = Alarm(reactor, self._core.next_deadline, self._deadline_passed)
        reactor.leaving.append(self._doors.flush)
        reactor.turn_ends.append(self._alarm.arm)
        self._ticks: dict[str, DelayedCall] = {}
        self._warn_without_upstreams(groups["outside"])

    def start(self) -> None:
        """Connect to the authority; its sockets are read as soon as they come."""
        self._lose_authority()
        self._link.start()
        self._every("flush", FLUSH_S, self._flush)
        self._every("report", REPORT_S, self._report)

    def use(self, settings: Settings) -> None:
        """Go on with other settings, without losing a query."""
        self._has_rejected = False
        groups = upstream_groups(settings)
        self._warn_without_upstreams(groups["outside"])
        self._upstreams.use(groups)
        self._streams.max_per_client = settings.limits.tcp_connections_per_pod
        now = self._reactor.seconds()
        self._do(self._core.settings_changed(core_settings(settings), now), now)

    def why_not_ready(self) -> str:
        """Say what is missing to answer pods' lookups; "" for nothing."""
        if not self._link.is_up:
            return "the enforcer does not answer (is it running, with the same runtimeDir?)"
        return "" if self._has_world else "no policy was loaded yet"

    def settings_rejected(self) -> None:
        """Report that the settings as they are on disk now were refused."""
        self._has_rejected = True

    def drain(self, done: Callable[[], None]) -> None:
        """Take no further query, answer what is under way within ``DRAIN_S``, then call ``done``."""
        self._doors.stop_reading()
        until = self._reactor.seconds() + DRAIN_S

        def look() -> None:
            if (self._core.in_flight or self._intake) and self._reactor.seconds() < until:
                self._reactor.callLater(_DRAIN_STEP_S, look)
                return
            self._flush()
            self._report()
            for tick in self._ticks.values():
                tick.cancel()
            self._reactor.leaving.remove(self._doors.flush)
            self._reactor.turn_ends.remove(self._alarm.arm)
            self._alarm.stop()
            self._link.stop()
            self._upstreams.stop()
            self._reactor.callLater(_DRAIN_STEP_S, finish)  # the last replies and records leave

        def finish() -> None:
            self._doors.close()
            done()

        look()

    def greeted(self, hello: Hello, descriptors: list[int]) -> None:
        """The enforcer is there: read its sockets, ask again for what waits."""
        self._doors.adopt(hello.sockets, descriptors)
        self._log.tell("authority.back", version=hello.version, sockets=self._doors.names)
        now = self._reactor.seconds()
        self._do(self._core.authority_back(now), now)

    def world_published(self, world: World) -> None:
        """Decide by this world from now on; what was released before leaves before."""
        self._doors.flush()
        self._has_world = True
        snapshot = compile_snapshot(world, self._memory)
        self._log.tell("snapshot.loaded", generation=world.generation, problems=snapshot.problems)
        now = self._reactor.seconds()
        self._do(self._core.snapshot_published(snapshot, now), now)
        self._reactor.callLater(0, pauses.settle)

    def grants_answered(self, answer: GrantAnswered) -> None:
        """Hand the outcomes to whoever waits for them."""
        now = self._reactor.seconds()
        self._do(self._core.grants_answered(answer, now), now)

    def pods_enforced(self, uids: tuple[str, ...]) -> None:
        """Know which pods policy is enforced on, for those that ask."""
        self._core.pods_enforced(uids)

    def not_understood(self, reason: str) -> None:
        """Leave the sockets to a resolver that understands the enforcer."""
        if self._doors.names:
            self._log.tell("authority.not_understood", "warning", reason=reason)
            self._doors.give_up()

    def link_lost(self, reason: str) -> None:
        """The enforcer is away: the sockets stay, what needs a grant waits, nothing is answered unheld."""
        self._log.tell("authority.lost", "warning", reason=reason)
        self._lose_authority()

    def _lose_authority(self) -> None:
        now = self._reactor.seconds()
        self._do(self._core.authority_lost(now), now)

    def _received(self, wire: bytes, client: Client, now: float) -> None:
        self._do(self._core.query_received(wire, client, now), now)

    def _held(self) -> int:
        return self._core.held if self._link.is_up else 0

    def _upstream_answered(self, number: int, wire: bytes, now: float) -> None:
        self._do(self._core.upstream_answered(number, wire, now), now)

    def _upstream_failed(self, number: int, ede: int, now: float) -> None:
        self._do(self._core.upstream_failed(number, ede, now), now)

    def _closed(self, via: int, now: float) -> None:
        self._core.connection_closed(via, now)

    def _deadline_passed(self, now: float) -> None:
        self._do(self._core.deadline_passed(now), now)

    def _do(self, effects: list[Effect], now: float) -> None:
        for effect in effects:
            if isinstance(effect, Reply):
                self._doors.reply(effect.wire, effect.client)
            elif isinstance(effect, AskUpstream):
                self._upstreams.ask(effect, now)
            elif isinstance(effect, AskGrants):
                self._link.send(effect.request)
            else:
                self._recording.add(effect.record, now)

    def _every(self, name: str, period_s: float, act: Callable[[], None]) -> None:
        def tick() -> None:
            self._ticks[name] = self._reactor.callLater(period_s, tick)
            act()

        self._ticks[name] = self._reactor.callLater(period_s, tick)

    def _flush(self) -> None:
        for record, seen_at in self._core.take_counted():
            self._recording.add(record, seen_at)
        if self._link.is_up and not self._link.is_behind:
            for message in self._recording.take(self._reactor.seconds()):
                self._link.send(message)

    def _report(self) -> None:
        if self._link.is_up and not self._link.is_behind:
            self._link.send(
                counters_report(
                    self._core.drain(),
                    self._forwarding.healths(),
                    self._forwarding.states(),
                    self._counted_beside(),
                    rejected=self._has_rejected,
                    number=self._number,
                )
            )

    def _counted_beside(self) -> dict[str, float]:
        """Return, and forget, what was counted beside the core since the last report."""
        dropped, self._recording.dropped = self._recording.dropped, 0
        refused, self._streams.refused = self._streams.refused, 0
        full, late = self._intake.take_shed()
        return {
            series_key("nameward_dns_queries_shed_total", reason="full"): float(full),
            series_key("nameward_dns_queries_shed_total", reason="late"): float(late),
            series_key("nameward_dns_queries_shed_total", reason="kernel"): float(self._doors.take_drops()),
            "nameward_lookup_records_dropped_total": float(dropped),
            "nameward_tcp_connections_refused_total": float(refused),
        }

    def _warn_without_upstreams(self, outside: tuple[Upstream, ...]) -> None:
        if not outside:
            self._log.tell(
                "upstreams.none", "error", reason="resolv.conf names none but stubs: set dns.upstreams"
            )
