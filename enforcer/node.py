"""One node's enforcer, wired: source → world → snapshot → reconciler → resolver, and what is read of it.

Owns the flow between the parts and what ``status`` says; each part's rules are its own. Invariant:
whatever fails here opens nothing: the last snapshot that the kernel has acknowledged stays in force.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal, Protocol

from enforcer.authority import Authority
from enforcer.blocked import BlockedRecords
from enforcer.break_glass import Openings, said_open
from enforcer.desired import local_pods, unadmitted
from enforcer.doors import OffLoop
from enforcer.inspection import Row
from enforcer.ledger import Ledger
from enforcer.log_budget import LogBudget
from enforcer.metrics import Metrics, Series
from enforcer.reconciler import Reconciler
from enforcer.records import Records
from enforcer.refusals import Refusals
from enforcer.sources import Seen
from enforcer.worlds import is_same, world_of
from policy.addresses import to_packed
from policy.authority import CountersReported, LookupsRecorded, UpstreamState
from policy.boxes import MAX_BOXES
from policy.break_glass import BreakGlass
from policy.compilation import Memory
from policy.manifest import Finding, Loaded, governs
from policy.pods import Pod
from policy.runtime.clock import wall_now, wall_seconds
from policy.runtime.settings import Settings
from policy.snapshot import Snapshot, compile_snapshot

MAX_UPSTREAMS = 64
RETRY_S = 1.0
COUNTING_SHARE = 1000
"""The heartbeat asks every second: counting grants is at most so small a part of the time."""


class Later(Protocol):
    """Calls a function on the loop after so many seconds."""

    def __call__(self, delay_s: float, call: Callable[[], None], /) -> object:
        """Arrange it."""


class Shared(Protocol):
    """What this node shares with others, as far as it shows (``enforcer.sharing``)."""

    @property
    def state(self) -> Literal["off", "up", "lost"]:
        """Say whether there is a shared state, and whether it is reachable now."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with it, each a sentence that says what to do."""

    @property
    def counts(self) -> Mapping[Series, float]:
        """Its counters (``policy.runtime.metrics``), without ``nameward_redis_up``."""


class Alone:
    """Nothing is shared."""

    state: Literal["off", "up", "lost"] = "off"
    problems: tuple[str, ...] = ()
    counts: Mapping[Series, float] = {}


class Reported(Protocol):
    """What this node writes to an API server, as far as it shows (``enforcer.reports``)."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with it, a sentence."""

    @property
    def counts(self) -> Mapping[Series, float]:
        """Its counters."""


class Unreported:
    """There is no API server."""

    problems: tuple[str, ...] = ()
    counts: Mapping[Series, float] = {}


class Node:
    """The flow from what the source has seen to what is in force."""

    shared: Shared = Alone()
    reports: Reported = Unreported()
    removed: bool = False
    """Whether everything of ours was taken away, because it was uninstalled."""
    doubts: tuple[str, ...] = ("nothing was loaded yet",)
    """What keeps the node from enforcing, by the last self-check."""
    configuration_problems: tuple[str, ...] = ()
    host_problems: tuple[str, ...] = ()
    unpublished: str = ""
    """Why the resolver does not know the policy that is in force."""
    _upstreams: tuple[UpstreamState, ...] = ()
    _resolver_refuses: bool = False
    _seen: Seen | None = None

    def __init__(
        self,
        *,
        settings: Settings,
        version: str,
        ledger: Ledger,
        blocked: BlockedRecords,
        authority: Authority,
        reconciler: Reconciler,
        records: Records,
        openings: Openings,
        addresses: Callable[[], frozenset[bytes]],
        off_loop: OffLoop,
        later: Later,
        now: Callable[[], float],
        pending: Callable[[], int],
    ) -> None:
        self.settings = settings
        self._version = version
        self._ledger = ledger
        self._authority = authority
        self._reconciler = reconciler
        self._records = records
        self.openings = openings
        self._addresses = addresses
        self._off_loop = off_loop
        self._later = later
        self._now = now
        self._pending = pending
        self.refusals = Refusals(
            ledger,
            blocked,
            records,
            lambda: reconciler.snapshot,
            now,
            budget=LogBudget(settings.log.refusals_per_second),
        )
        self.metrics = Metrics(self._numbers)
        self.repairs: Callable[[], int] = lambda: 0
        self.source_counts: Callable[[], Mapping[Series, float]] = dict
        self._generation = 0
        self._memory = Memory()
        self._is_compiling = False
        self._is_stale = False
        self._refused = ""
        self._look_again_at = math.inf
        self._counted = 0
        self._recount_at = float("-inf")

    # --- from the source to the kernel -----------------------------------------------------------

    def begin(self, generation: int) -> None:
        """Number what comes after ``generation``."""
        self._generation = generation

    def source_seen(self, seen: Seen) -> None:
        """Take what the source knows now."""
        told = frozenset(self._seen.loaded.findings) if self._seen is not None else frozenset()
        self._seen = seen
        for finding in seen.loaded.findings:
            if finding.severity == "error" and finding not in told:
                self._records.tell("policy.rejected", "warning", reason=_sentence(finding))
        self.renew()

    def renew(self) -> None:
        """Compile the world anew (source, settings or host changed) and bring it into force."""
        if self._is_compiling:
            self._is_stale = True
            return
        seen = self._seen
        if seen is None or not seen.complete:
            return
        world = world_of(
            seen.loaded,
            self.settings,
            self._addresses(),
            self._generation + 1,
            complete=seen.complete,
            break_glass=self._opened(seen.loaded),
        )
        current = self._reconciler.snapshot
        if current is not None and is_same(current.world, world) and not self._refused:
            self._believe(current, is_fresh=seen.is_fresh)
            return
        self._is_compiling = True
        self._off_loop(
            lambda: compile_snapshot(world, self._memory), lambda snapshot: self._compiled(snapshot, seen)
        )

    def _believe(self, current: Snapshot, *, is_fresh: bool) -> None:
        """Admit whom only a source that can be read may vouch for, once it says the same again."""
        if self._reconciler.believes_new == is_fresh:
            return
        self._reconciler.believes_new = is_fresh
        if is_fresh:
            self._refused = self._reconciler.apply(current).reason
            if self._refused:
                self._later(RETRY_S, self.renew)

    def _opened(self, loaded: Loaded) -> tuple[BreakGlass, ...]:
        """Return what is open by hand now, and look again when that may have changed."""
        policy, now = self.settings.policy, self._now()
        opened = self.openings.look(
            loaded.marks,
            lambda namespace: governs(policy.governed_namespaces, loaded.namespaces, namespace),
            longest_s=policy.break_glass_max_s,
            now=now,
            wall=wall_seconds(),
        )
        next_s = self.openings.next_look_s(now)
        if next_s is not None and now + next_s < self._look_again_at:
            self._look_again_at = now + next_s
            self._later(next_s, self._look_again)
        return opened

    def _look_again(self) -> None:
        self._look_again_at = math.inf
        self.renew()

    def _compiled(self, snapshot: Snapshot, seen: Seen) -> None:
        self._is_compiling = False
        self._generation = snapshot.generation
        self._reconciler.believes_new = seen.is_fresh
        outcome = self._reconciler.apply(snapshot)
        self._refused = outcome.reason
        if outcome.done:
            self.metrics.propagation.observe(self._now() - seen.detected_at)
            world = snapshot.world
            loaded = {
                "generation": snapshot.generation,
                "policies": len(world.policies),
                "pods": len(world.pods),
            }
            self._records.tell("policy.loaded", fields=loaded)
        else:
            self._later(RETRY_S, self.renew)
        if self._is_stale:
            self._is_stale = False
            self.renew()

    # --- from the resolver (enforcer.hearing.Reports) -------------------------------------------------

    def lookups_recorded(self, message: LookupsRecorded) -> None:
        """See ``enforcer.hearing.Reports``."""
        self.refusals.lookups_recorded(message)

    def counters_reported(self, message: CountersReported) -> None:
        """See ``enforcer.hearing.Reports``."""
        self.metrics.report(message)
        self._upstreams = message.upstreams[:MAX_UPSTREAMS]
        self._resolver_refuses = self.metrics.gauge("nameward_settings_rejected") > 0

    # --- what is read of it ------------------------------------------------------------------------

    @property
    def missing(self) -> tuple[str, ...]:
        """What keeps the node from enforcing; empty: it enforces."""
        return (self._refused, *self.doubts) if self._refused else self.doubts

    def status(self) -> Row:
        """Return the row of ``nameward status``."""
        snapshot = self._reconciler.snapshot
        world = snapshot.world if snapshot else None
        return {
            "node": self.settings.node,
            "version": self._version,
            "enforcing": not self.missing,
            "generation": snapshot.generation if snapshot else 0,
            "policyHash": snapshot.policy_hash if snapshot else "",
            "pods": len({account.identity.key for account in self._ledger.accounts.values()}),
            "policies": len(world.policies) if world else 0,
            "rejectedPolicies": sum(not policy.accepted for policy in world.policies) if world else 0,
            "grants": self._open_grants(),
            "pending": self._pending(),
            "redis": self.shared.state,
            "upstreams": [
                {
                    "address": each.address[:300],
                    "healthy": each.healthy,
                    "latencyMs": _number(each.latency_ms),
                }
                for each in self._upstreams
            ],
            "lastRealizedAt": self._last_realized(),
            "problems": list(self._problems(snapshot)),
            "lost": False,
        }

    def _problems(self, snapshot: Snapshot | None) -> tuple[str, ...]:
        seen = self._seen
        said = [
            *self.missing, *self.configuration_problems, *self.host_problems, *self.shared.problems,
            *self.reports.problems,
        ]  # fmt: skip
        if self.unpublished:
            said.append(self.unpublished)
        if self._resolver_refuses:
            said.append("the resolver refused the configuration as it is now, and goes on with the old one")
        if self._reconciler.trouble:
            said.append(self._reconciler.trouble)
        if seen is not None:
            said += seen.problems
            said += self.openings.problems
            said += [_sentence(each) for each in seen.loaded.findings if each.severity == "error"]
        if snapshot is not None:
            said += snapshot.problems
            said += [said_open(glass) for glass in snapshot.world.break_glass]
            said += [
                f"pod {pod.key} is declared and not admitted: {self._missing_way(pod)}"
                for pod in self.unadmitted
            ]
            said += [
                f"pod {pod.key}: its rules without names come to more than {MAX_BOXES} ranges times ports,"
                " so none of them opens anything"
                for pod in local_pods(snapshot.world, self.settings.node)
                if snapshot.opens_too_much(pod)
            ]
        return tuple(dict.fromkeys(said))

    @property
    def unadmitted(self) -> list[Pod]:
        """This node's governed pods that have addresses and are not admitted."""
        snapshot = self._reconciler.snapshot
        if snapshot is None:
            return []
        return unadmitted(snapshot.world, self.settings.node, self._authority.admitted)

    def _missing_way(self, pod: Pod) -> str:
        portless = self._reconciler.portless
        bridges = {portless[to_packed(text)] for text in pod.addresses if to_packed(text) in portless}
        if bridges:
            return f"no port of {' or '.join(sorted(bridges))} says that it has its address, or two do"
        if not self._reconciler.believes_new:
            return "the source cannot be asked now whether the address is still its own"
        return "no interface leads to it"

    def _last_realized(self) -> str | None:
        at = self._authority.last_realized_at
        return None if at == float("-inf") else wall_now(self._now() - at)

    def _open_grants(self) -> int:
        """Count what is open; many take milliseconds, so that the count is then kept for seconds."""
        now = self._now()
        if now >= self._recount_at:
            self._counted = sum(
                term.until > now for account in self._ledger.accounts.values() for term in account.terms()
            )
            self._recount_at = now + (self._now() - now) * COUNTING_SHARE
        return self._counted

    def _numbers(self) -> Mapping[Series, float]:
        reconciler, snapshot = self._reconciler, self._reconciler.snapshot
        numbers: dict[Series, float] = {
            ("nameward_enforcing", ()): not self.missing,
            ("nameward_grants", ()): self._open_grants(),
            ("nameward_policy_generation", ()): snapshot.generation if snapshot else 0,
            ("nameward_revoked_flows_total", ()): reconciler.revoked_count,
            ("nameward_kernel_errors_total", ()): reconciler.kernel_errors + self._authority.kernel_errors,
            ("nameward_ruleset_repairs_total", ()): self.repairs(),
            ("nameward_redis_up", ()): self.shared.state == "up",
            ("nameward_break_glass_namespaces", ()): len(snapshot.world.break_glass) if snapshot else 0,
            ("nameward_log_records_suppressed_total", ()): self.refusals.budget.suppressed,
            **self.shared.counts,
            **self.reports.counts,
            **self.source_counts(),
        }
        for outcome, count in self._authority.outcomes.items():
            numbers["nameward_grants_total", (outcome,)] = count
        for reason_class, count in self.refusals.packets.items():
            numbers["nameward_denied_packets_total", (reason_class,)] = count
        return numbers


def _number(said: float) -> float:
    """Return what a resolver says is a number of milliseconds; NaN, infinity and below nothing are 0."""
    return said if 0 <= said < math.inf else 0.0


def _sentence(finding: Finding) -> str:
    document = f" document {finding.document}" if finding.document else ""  # an object of the API has none
    place = f"{finding.file}{document} {finding.pointer}".rstrip()
    return f"{place}: {finding.message}" + (f"; {finding.fix}" if finding.fix else "")
