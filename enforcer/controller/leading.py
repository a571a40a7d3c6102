"""One term of the replica that leads: from what is heard to what is written.

Owns the order of requests, one at a time. Blocks. Decides nothing. Invariant: nothing is sent once the Lease
may be another's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from enforcer.controller.board import POLICIES, Board, Write
from enforcer.controller.hearing import Hearing
from enforcer.controller.schema import mirrored_fields
from enforcer.controller.writer import definition_path, send
from enforcer.kube.answers import ApiLost, ApiRefused
from enforcer.kube.client import Api
from enforcer.records import Records
from policy.manifest import Governed
from policy.runtime.clock import now, wall_now

DEFINITIONS_S: Final = 60.0
"""How often the definitions of the kinds are looked at: another product may replace them."""
_DOUBT_S: Final = 5.0
"""How soon, where a policy's status could not be written."""
_LOST_S: Final = 2.0
_LONGEST_LOST_S: Final = 30.0
_IDLE_S: Final = 1.0


class Term:
    """Begins with ``start``; then ``turn`` again and again; ends with ``stop``."""

    def __init__(self, api: Api, governed: Governed, records: Records, died: Callable[[], None]) -> None:
        self._api = api
        self._records = records
        self._board = Board(governed, now())
        self._hearing = Hearing(api, self._board, died)
        self._definitions_at = now()
        self._lost_s = _LOST_S
        self._told: dict[str, str] = {}
        self.written = 0

    def start(self) -> None:
        """Begin to listen."""
        self._hearing.start()

    def stop(self) -> None:
        """Listen no more."""
        self._hearing.stop()

    def turn(self, until: float, may_write: Callable[[], bool]) -> None:
        """Write what is due, or wait for something to say; returns at ``until`` at the latest."""
        self._look_at_definitions()
        self._tell_troubles()
        with self._hearing.changed:
            self._board.look(now())
            writes = self._board.due(now(), wall_now()) if may_write() else []
            if not writes:
                wake_at = min(until, self._board.next_at(now()), now() + _IDLE_S)
                self._hearing.changed.wait(max(0.01, wake_at - now()))
        for write in writes:
            if may_write():
                self._send(write)
            else:
                self._failed(write)

    def _send(self, write: Write) -> None:
        with self._hearing.changed:
            self._board.pace.sent(now())
        try:
            send(self._api, write)
        except ApiRefused as refused:
            self._refused(write, refused)
            return
        except ApiLost as lost:
            self._failed(write, hold_s=self._lost_s)
            self._lost_s = min(self._lost_s * 2, _LONGEST_LOST_S)
            self._tell("writing", f"the API server does not answer: {lost}")
            return
        self._lost_s = _LOST_S
        self.written += 1
        with self._hearing.changed:
            self._board.wrote(write, now())

    def _refused(self, write: Write, refused: ApiRefused) -> None:
        """Changed or gone since: what is heard next says how. Anything else is worth a record."""
        self._failed(write, hold_s=refused.retry_after_s or 0.0)
        if write.act == "mirror" and refused.status in {404, 422, 500}:
            self._definitions_at = min(self._definitions_at, now() + _DOUBT_S)
        if refused.status not in {404, 409, 429}:
            fields = {"act": write.act, "namespace": write.namespace, "name": write.name}
            self._records.tell("controller.refused", "warning", fields=fields, reason=str(refused))

    def _failed(self, write: Write, hold_s: float = 0.0) -> None:
        with self._hearing.changed:
            self._board.failed(write, now())
            if hold_s:
                self._board.pace.hold(now() + hold_s)

    def _look_at_definitions(self) -> None:
        """Find out which fields of ours the definitions of the kinds have a place for."""
        if now() < self._definitions_at:
            return
        self._definitions_at = now() + DEFINITIONS_S
        for kind in POLICIES:
            try:
                fields = mirrored_fields(self._api.get(definition_path(kind)))
            except ApiRefused as refused:
                if refused.status != 404:
                    self._tell("definitions", str(refused))
                    continue
                fields = frozenset()
            except ApiLost:
                return
            with self._hearing.changed:
                self._board.fields_known(kind, fields, now())

    def _tell_troubles(self) -> None:
        with self._hearing.changed:
            troubles = dict(self._hearing.troubles)
        for kind in [*self._told]:
            if kind not in troubles and kind not in {"writing", "definitions"}:
                del self._told[kind]
        for kind, sentence in troubles.items():
            self._tell(kind, sentence)

    def _tell(self, what: str, sentence: str) -> None:
        """Write a record of trouble, once while it is the same."""
        if self._told.get(what) != sentence:
            self._told[what] = sentence
            self._records.tell("controller.trouble", "warning", reason=sentence)
