"""Writes what a node reports to the Kubernetes API, in a thread of its own.

Owns that thread and the order of requests. Decides nothing: ``node_status`` and ``events`` say what and when.
Invariants: one request at a time; whatever the API server does, nothing else on the node waits for it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import Literal, Protocol
from urllib.parse import quote

from twisted.python.failure import Failure

from enforcer.blocked import BlockedRecords
from enforcer.kube.answers import ApiLost, ApiRefused, Json
from enforcer.metrics import Series
from enforcer.records import Records
from enforcer.reports.events import Due, PodEvents
from enforcer.reports.node_status import Facts, Pace, is_as_written, object_of, status_of
from policy.pods import Pod
from policy.runtime.clock import MonotonicReactor, now, wall_now, wall_seconds

LOOK_S = 1.0
MAX_WAITING = 100
MAX_TRIES = 5
_HOPELESS = {400, 403, 404, 422}
"""The namespace or the pod has gone, or Events are not ours to write: asking again does not help."""
FIELD_MANAGER = "nameward-agent"


class Door(Protocol):
    """What of ``enforcer.kube.client.Api`` is used here."""

    def get(self, path: str, **query: str) -> Json:
        """Return one object."""

    def create(self, path: str, body: Json, **query: str) -> Json:
        """Create one object."""

    def patch(self, path: str, body: Json, kind: Literal["apply"], **query: str) -> Json:
        """Create an object or bring it to this state."""


class Told(Protocol):
    """Where the node says what it reports."""

    def facts(self, unsaid: tuple[str, ...]) -> Facts | None:
        """Return what is to be reported now, without these problems; None: nothing yet."""

    def pod(self, key: str) -> Pod | None:
        """Return the pod of this node with that ``namespace/name``."""


class Writer:
    """The requests. Each blocks; raises ``ApiRefused`` where the API server says no, or ``ApiLost``."""

    def __init__(self, door: Door, node: str) -> None:
        self._door = door
        self._node = node
        self._at = f"/apis/nameward.dev/v1alpha1/nodestatuses/{quote(node, safe='')}"
        self._uid = ""
        self._written: Json | None = None

    def write(self, facts: Facts, updated_at: str) -> None:
        """Store the facts."""
        self._uid = self._uid or self._uid_now()
        written = object_of(self._node, self._uid, status_of(facts, updated_at))
        self._door.patch(self._at, written, "apply", fieldManager=FIELD_MANAGER, force="true")
        self._written = written

    def is_there(self) -> bool:
        """Say whether what was written is stored, and the Node is the same one still."""
        uid, self._uid = self._uid, self._uid_now()
        if self._written is None or uid != self._uid:
            return False
        try:
            return is_as_written(self._door.get(self._at), self._written)
        except ApiRefused as refused:
            if refused.status != 404:
                raise
        return False

    def create(self, due: Due) -> bool:
        """Create an Event; False if there is one of its name already."""
        try:
            self._door.create(
                f"/apis/events.k8s.io/v1/namespaces/{quote(due.namespace, safe='')}/events", due.event
            )
        except ApiRefused as refused:
            if refused.status != 409:
                raise
            return False
        return True

    def _uid_now(self) -> str:
        metadata = self._door.get(f"/api/v1/nodes/{quote(self._node, safe='')}").get("metadata")
        uid = metadata.get("uid") if isinstance(metadata, dict) else None
        if not isinstance(uid, str) or not uid:
            raise ApiLost(f"the Node {self._node} has no uid")
        return uid


Refusal = ApiRefused | ApiLost
End = bool | Refusal | None
"""What a request came to; None: it was done."""
Work = Callable[[], bool | None]
Done = Callable[[End], None]


class Reports:
    """Looks now and then whether there is something to write; writes one thing at a time."""

    look_every_s = LOOK_S

    def __init__(
        self,
        *,
        reactor: MonotonicReactor,
        door: Door,
        node: str,
        told: Told,
        blocked: BlockedRecords,
        records: Records,
        events_per_hour: int,
        failed: Callable[[Failure], object],
        seconds: Callable[[], float] = now,
    ) -> None:
        """``seconds`` is the clock of the refusals (monotonic)."""
        self._reactor = reactor
        self._writer = Writer(door, node)
        self._told = told
        self._records = records
        self._failed = failed
        self._seconds = seconds
        self._pace = Pace(node)
        self._events = PodEvents(node, events_per_hour)
        self._unlisten = blocked.listen(self._events.take)
        self._orders: SimpleQueue[tuple[Work, Done] | None] = SimpleQueue()
        self._is_busy = self._is_stopped = False
        self._waiting: deque[Due] = deque()
        self._tries = 0
        self._events_at = float("-inf")
        self._trouble = ""
        self.outcomes = {"written": 0, "known": 0, "failed": 0}

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the reports, a sentence."""
        return (self._trouble,) if self._trouble else ()

    @property
    def counts(self) -> Mapping[Series, float]:
        """Events: ``written``, ``known`` (it was there), ``failed``, ``suppressed`` (beyond a bound)."""
        outcomes = {**self.outcomes, "suppressed": self._events.suppressed}
        return {("nameward_events_total", (outcome,)): count for outcome, count in outcomes.items()}

    def start(self) -> None:
        """Begin; ``look`` is to be called every ``look_every_s``."""
        threading.Thread(target=self._run, name="reports", daemon=True).start()

    def stop(self) -> None:
        """Write no more. Does not wait: what is under way ends by itself, or with the process."""
        if not self._is_stopped:
            self._is_stopped = True
            self._unlisten()
            self._orders.put(None)

    def look(self) -> None:
        """Write what is due, if nothing is being written."""
        moment = self._seconds()
        for due in self._events.due(self._told.pod, moment, wall_seconds()):
            if len(self._waiting) < MAX_WAITING:
                self._waiting.append(due)
        if self._is_busy or self._is_stopped:
            return
        facts = self._told.facts(self.problems)
        if facts is not None and self._pace.is_due(facts, moment):
            updated_at = wall_now()
            self._order(lambda: self._writer.write(facts, updated_at), lambda end: self._wrote(facts, end))
        elif facts is not None and self._pace.is_check_due(moment):
            self._order(self._writer.is_there, lambda end: self._checked(facts, end))
        elif self._waiting and moment >= self._events_at:
            due = self._waiting[0]
            self._order(lambda: self._writer.create(due), self._created)

    def _wrote(self, facts: Facts, end: End) -> None:
        if isinstance(end, ApiRefused | ApiLost):
            self._pace.failed(self._seconds(), _at_least_s(end))
            self._tell("this node's NodeStatus cannot be written", end)
        else:
            self._pace.written(facts, self._seconds())
            self._trouble = ""

    def _checked(self, facts: Facts, end: End) -> None:
        if isinstance(end, ApiRefused | ApiLost):
            self._pace.failed(self._seconds(), _at_least_s(end))
        elif end:
            self._pace.written(facts, self._seconds())
        else:
            self._pace.lost(self._seconds())

    def _created(self, end: End) -> None:
        self._tries += 1
        is_hopeless = isinstance(end, ApiRefused) and end.status in _HOPELESS
        if not isinstance(end, ApiRefused | ApiLost):
            self.outcomes["written" if end else "known"] += 1
        elif is_hopeless or self._tries >= MAX_TRIES:
            self.outcomes["failed"] += 1
            self._records.tell("event.failed", "debug", reason=str(end))
        else:
            self._events_at = self._seconds() + max(2.0**self._tries, _at_least_s(end))
            return
        self._waiting.popleft()
        self._tries = 0

    def _tell(self, what: str, end: Refusal) -> None:
        trouble = f"{what}: {end}"
        if trouble != self._trouble:
            self._records.tell("report.failed", "warning", reason=trouble)
        self._trouble = trouble

    # --- the thread ------------------------------------------------------------------------------

    def _order(self, work: Work, done: Done) -> None:
        self._is_busy = True
        self._orders.put((work, done))

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            work, done = order
            end: End
            try:
                end = work()
            except (ApiRefused, ApiLost) as refusal:
                end = refusal
            except BaseException:  # noqa: BLE001 - a bug: the process ends with it, as everywhere
                self._reactor.callFromThread(self._failed, Failure())
                return
            self._reactor.callFromThread(self._ended, done, end)

    def _ended(self, done: Done, end: End) -> None:
        self._is_busy = False
        if not self._is_stopped:
            done(end)


def _at_least_s(end: Refusal) -> float:
    return (end.retry_after_s or 0.0) if isinstance(end, ApiRefused) else 0.0
