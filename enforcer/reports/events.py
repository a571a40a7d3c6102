"""Events at pods whose traffic is refused: few enough that no pod can fill etcd.

Pure. Owns which refusals become an Event, when, and its words. Events are only created, never updated: each
is named after its pod, reason and hour, so that a restart repeats none. Invariants: one for each pod and
reason in ``GATHER_S`` and then ever more seldom; ``PER_POD`` of one pod and so many of the node in an hour.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from enforcer.blocked import Refused
from policy.manifest_findings import printable
from policy.pods import Pod

GATHER_S = 10.0
"""What a pod tries at first is in one Event."""
HOUR_S = 3600.0
GROWTH = 3.0
LONGEST_QUIET_S = 24 * HOUR_S
PER_POD = 4
NAMES_SHOWN = 5
NAMES_KEPT = 32
MAX_SUBJECTS = 4096
MAX_NOTE_CHARS = 1000
_MAX_NAME_CHARS = 80
_MAX_WHY_CHARS = 400

REASONS: Mapping[str, tuple[str, str]] = {
    "blocked": ("LookupRefused", "lookups of"),
    "limit": ("LookupLimit", "lookups at a limit:"),
    "forged-source": ("SourceForged", "packets with another's address to"),
    "dns-elsewhere": ("DNSBypassed", "packets to other DNS servers:"),
    "port-not-permitted": ("PortRefused", "packets to ports that are not permitted:"),
    "grant-expired": ("PermissionExpired", "packets to addresses looked up too long ago:"),
    "grant-revoked": ("PermissionWithdrawn", "packets that are not permitted any more:"),
    "address-class": ("AddressGuarded", "packets to guarded addresses:"),
    "deny-rule": ("DeniedByRule", "packets that a rule denies:"),
    "never-resolved": ("AddressNotLookedUp", "packets to addresses without a permitted lookup:"),
}
"""From a refusal's class to the reason of its Event and the beginning of its note; others have none."""

Json = dict[str, Any]


class Due(NamedTuple):
    """One Event to create, in that namespace."""

    namespace: str
    event: Json


class _Subject:
    """One pod and reason: what was gathered since its last Event."""

    __slots__ = ("count", "first_at", "latest", "quiet_s", "quiet_until", "uid", "whats")

    def __init__(self, uid: str) -> None:
        self.uid = uid
        self.quiet_s = HOUR_S
        self.quiet_until = float("-inf")
        self.clear()

    def clear(self) -> None:
        self.first_at = float("inf")
        self.count = 0
        self.whats: Counter[str] = Counter()
        self.latest: Refused | None = None


class PodEvents:
    """Gathers refusals (``take``) and says which Events are due; ``per_hour`` of the whole node at most."""

    def __init__(self, node: str, per_hour: int) -> None:
        self._node = node
        self.per_hour = per_hour
        self._subjects: dict[tuple[str, str], _Subject] = {}
        self._hour = -1
        self._spent: Counter[str] = Counter()
        self.suppressed = 0
        """Events that were due and were beyond a bound."""

    def take(self, refused: Refused) -> None:
        """Gather one refusal."""
        if not refused.pod or refused.reason_class not in REASONS or not self.per_hour:
            return
        key = (f"{refused.namespace}/{refused.pod}", refused.reason_class)
        subject = self._subjects.get(key)
        if subject is None:
            if len(self._subjects) >= MAX_SUBJECTS:
                return
            subject = self._subjects[key] = _Subject("")
        subject.first_at = min(subject.first_at, refused.at)
        subject.count += refused.times
        subject.latest = refused
        what = refused.name or _place(refused)
        if what in subject.whats or len(subject.whats) < NAMES_KEPT:
            subject.whats[what] += refused.times

    def due(self, pod_of: Callable[[str], Pod | None], now: float, wall: float) -> list[Due]:
        """Return the Events to create now. ``wall``: seconds since 1970; ``pod_of``: the pod of a key."""
        hour = int(wall // HOUR_S)
        if hour != self._hour:
            self._hour = hour
            self._spent.clear()
        found: list[Due] = []
        for (pod_key, reason_class), subject in list(self._subjects.items()):
            pod = pod_of(pod_key)
            if pod is None or (subject.uid and subject.uid != pod.uid):
                del self._subjects[pod_key, reason_class]  # another pod may have its name next
                continue
            subject.uid = pod.uid
            latest = subject.latest
            if latest is None or now < subject.first_at + GATHER_S or now < subject.quiet_until:
                continue
            if self._spent.total() >= self.per_hour or self._spent[pod_key] >= PER_POD:
                self.suppressed += 1
                subject.clear()
                subject.quiet_until = now + HOUR_S - wall % HOUR_S
                continue
            self._spent[pod_key] += 1
            found.append(Due(pod.namespace, _event(self._node, pod, subject, latest, wall)))
            subject.clear()
            subject.quiet_until = now + subject.quiet_s
            subject.quiet_s = min(subject.quiet_s * GROWTH, LONGEST_QUIET_S)
        return found


def _place(refused: Refused) -> str:
    port = "" if refused.port is None else f"/{refused.port}"
    return f"{refused.address} {refused.protocol}{port}".strip()


def _event(node: str, pod: Pod, subject: _Subject, latest: Refused, wall: float) -> Json:
    reason, words = REASONS[latest.reason_class]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": _name(pod, latest.reason_class, wall), "namespace": pod.namespace},
        "eventTime": _micro_time(wall),
        "reportingController": "nameward.dev/agent",
        "reportingInstance": node[:128],
        "action": "Refused",
        "reason": reason,
        "type": "Warning",
        "regarding": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
        },
        "note": _note(words, subject, latest),
    }


def _note(words: str, subject: _Subject, latest: Refused) -> str:
    top = subject.whats.most_common(NAMES_SHOWN)
    shown = [f"{_cut(what, _MAX_NAME_CHARS)} ({count})" for what, count in top]
    more = len(subject.whats) - len(top)
    if more > 0:
        shown.append("others" if len(subject.whats) >= NAMES_KEPT else f"{more} more")
    listed = shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
    why = _cut(latest.reason, _MAX_WHY_CHARS)
    return f"Nameward refused {words} {listed}. Why: {why}"[:MAX_NOTE_CHARS]


def _cut(text: str, at_most: int) -> str:
    plain = printable(text)
    return plain if len(plain) <= at_most else plain[: at_most - 3] + "..."


def _name(pod: Pod, reason_class: str, wall: float) -> str:
    """Return the same name for the same pod, reason and hour, whoever writes it."""
    hour = int(wall // HOUR_S)
    digest = hashlib.blake2b(f"{pod.uid} {reason_class} {hour}".encode(), digest_size=8)
    return f"{pod.name[:200].rstrip('-.')}.{digest.hexdigest()}"


def _micro_time(wall: float) -> str:
    seconds = datetime.fromtimestamp(wall, UTC)
    return seconds.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
