"""Refusals as they come: denied packets from the kernel, blocked lookups from the resolver.

Owns what is made of each: a reason, a record, a count, a log line now and then. Believes the resolver
nothing that the snapshot can say itself. Invariant: whatever arrives, memory is bounded and a loop turn
takes at most ``PACKETS_A_TURN`` packets.
"""

from __future__ import annotations

from collections.abc import Callable

from enforcer.blocked import BlockedRecords, Refused
from enforcer.ledger import Ledger
from enforcer.log_budget import LogBudget
from enforcer.nflog import DeniedPacket
from enforcer.reasons import CLASSES, Tuple, why
from enforcer.records import Level, Records
from policy.addresses import from_packed
from policy.authority import LookupRecord, LookupsRecorded
from policy.pods import Pod
from policy.snapshot import Snapshot

PACKETS_A_TURN = 256
USUAL_A_SECOND = 20
MAX_TEXT_CHARS = 1024
MAX_AGE_S = 3600.0
_MAX_COUNT = 1_000_000


class Refusals:
    """Turns refusals into records."""

    def __init__(
        self,
        ledger: Ledger,
        blocked: BlockedRecords,
        records: Records,
        snapshot: Callable[[], Snapshot | None],
        now: Callable[[], float],
        *,
        budget: LogBudget | None = None,
    ) -> None:
        """``budget`` bounds what is logged; what is recorded is bounded by ``blocked`` itself."""
        self._ledger = ledger
        self._blocked = blocked
        self._records = records
        self._snapshot = snapshot
        self._now = now
        self.budget = budget or LogBudget(USUAL_A_SECOND)
        self.packets: dict[str, int] = dict.fromkeys(CLASSES, 0)

    def packets_denied(self, packets: list[DeniedPacket]) -> None:
        """Record packets that the ruleset logged."""
        now = self._now()
        for packet in packets:
            self._packet_denied(packet, now)

    def _packet_denied(self, packet: DeniedPacket, now: float) -> None:
        snapshot = self._snapshot()
        wanted = Tuple(packet.source, packet.destination, packet.protocol, packet.port or 0)
        account = self._ledger.accounts.get(packet.source)
        reason_class, reason, name, policy, rule = why(packet.prefix, wanted, snapshot, account, now)
        self.packets[reason_class] += 1
        pod, source = self._doer(packet, snapshot)
        refused = Refused(
            kind="packet",
            namespace=pod.namespace if pod else "",
            pod=pod.name if pod else "",
            pod_ip=from_packed(source) if source else "",
            name=name,
            qtype="",
            address=from_packed(packet.destination),
            protocol=packet.protocol,
            port=packet.port,
            policy=policy,
            rule=rule,
            reason=reason,
            reason_class=reason_class,
            times=1,
            at=now,
        )
        is_told = self._tell("packet.denied", "info", refused, interface=packet.interface)
        if is_told and pod is not None and snapshot is not None and packet.prefix != "forged":
            asked = (name or None, packet.destination, packet.protocol, packet.port)
            for watched in snapshot.watched(pod, *asked):
                if self._may_log(refused):
                    fields = {**_fields(refused), "watched": " ".join(watched)}
                    self._records.tell("packet.watched", fields=fields)

    def _doer(self, packet: DeniedPacket, snapshot: Snapshot | None) -> tuple[Pod | None, bytes]:
        """Return whose packet it was and the address to name him by; b"" where it was no pod's.

        A forged source says nothing, the interface that it came in by does, if it is one pod's.
        """
        if snapshot is None or packet.prefix == "fence":
            return None, b"" if packet.prefix == "fence" else packet.source
        if packet.prefix != "forged":
            return snapshot.pod_at(packet.source), packet.source
        sources = [
            s for s, each in self._ledger.accounts.items() if each.identity.interface == packet.interface
        ]
        pods = {pod.key: pod for source in sources if (pod := snapshot.pod_at(source)) is not None}
        if len(pods) != 1:
            return None, b""
        size = len(packet.source)
        return next(iter(pods.values())), min(sources, key=lambda source: (len(source) != size, source))

    def lookups_recorded(self, message: LookupsRecorded) -> None:
        """Record what the resolver refused; search-list expansions are told of at debug level only."""
        now = self._now()
        for record in message.records[:PACKETS_A_TURN]:
            self._lookup_recorded(record, now)

    def _lookup_recorded(self, record: LookupRecord, now: float) -> None:
        snapshot = self._snapshot()
        known = snapshot.pod(f"{record.namespace}/{record.pod}") if snapshot else None
        refused = Refused(
            kind="lookup",
            namespace=known.namespace if known else "",
            pod=known.name if known else "",
            pod_ip=record.pod_ip[:64],
            name=record.name[:MAX_TEXT_CHARS],
            qtype=record.qtype[:16],
            address="",
            protocol="",
            port=None,
            policy=record.policy[:MAX_TEXT_CHARS],
            rule=record.rule[:MAX_TEXT_CHARS],
            reason=record.reason[:MAX_TEXT_CHARS],
            reason_class=record.verdict,
            times=min(max(record.count, 1), _MAX_COUNT),
            at=now - (min(record.age_s, MAX_AGE_S) if record.age_s > 0 else 0.0),  # NaN is not more than 0
        )
        if record.verdict == "search":
            if self._records.is_told("debug") and self._may_log(refused):
                self._records.tell("lookup.search", "debug", fields=_fields(refused))
        elif record.verdict == "watched":
            if self._records.is_told("info") and self._may_log(refused):
                self._records.tell("lookup.watched", "info", fields=_fields(refused))
        else:
            self._tell("limit.reached" if record.verdict == "limit" else "lookup.blocked", "info", refused)

    def _tell(self, event: str, level: Level, refused: Refused, **more: object) -> bool:
        count = self._blocked.add(refused)
        is_told = bool(count) and self._records.is_told(level) and self._may_log(refused)
        if is_told:
            self._records.tell(event, level, fields={**_fields(refused), "count": count, **more})
        return is_told

    def _may_log(self, refused: Refused) -> bool:
        """Use up one record of the pod's, and say now and then how many are missing."""
        now = self._now()
        may = self.budget.take(f"{refused.namespace}/{refused.pod}", now)
        missing = self.budget.unsaid(now)
        if missing:
            why = "log.refusalsPerSecond; see nameward blocked"
            self._records.tell("log.suppressed", "warning", fields={"count": missing}, reason=why)
        return may


def _fields(refused: Refused) -> dict[str, object]:
    fields = {
        "namespace": refused.namespace,
        "pod": refused.pod,
        "podIP": refused.pod_ip,
        "name": refused.name,
        "qtype": refused.qtype,
        "address": refused.address,
        "protocol": refused.protocol,
        "port": refused.port,
        "policy": refused.policy,
        "rule": refused.rule,
        "reason": refused.reason,
    }
    return {key: value for key, value in fields.items() if value not in {"", None}}
