"""Which nodes live: by heartbeats that go on, not by records that merely stand there.

Pure; ``now`` is an argument. Owns what was last heard of each node. Invariants: a heartbeat counts once
(who writes an old one again brings no node back); memory is bounded, whatever Redis says.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from enforcer.sharing.records.formats import NodeRecord

SILENT_S = 10.0
"""A heartbeat that has not gone on for this long is none."""
MAX_NODES = 4096
_ENDED_SESSIONS = 8


class _Heard:
    __slots__ = ("at", "beat", "ended", "session")

    def __init__(self, session: str, beat: int, at: float) -> None:
        self.session = session
        self.beat = beat
        self.at = at
        self.ended: deque[str] = deque(maxlen=_ENDED_SESSIONS)


class Liveness:
    """What was heard of other nodes, by this process."""

    def __init__(self) -> None:
        self._heard: OrderedDict[str, _Heard] = OrderedDict()

    def is_alive(self, record: NodeRecord, now: float) -> bool:
        """Say whether a heartbeat (sealed, and in Redis now) shows that its node lives.

        One that is heard for the first time does; after that it has to go on.
        """
        heard = self._heard.get(record.node)
        if heard is None:
            self._heard[record.node] = _Heard(record.session, record.beat, now)
            if len(self._heard) > MAX_NODES:
                self._heard.popitem(last=False)
            return True
        self._heard.move_to_end(record.node)
        if record.session != heard.session:
            if record.session in heard.ended:
                return False
            heard.ended.append(heard.session)
            heard.session, heard.beat, heard.at = record.session, record.beat, now
        elif record.beat > heard.beat:
            heard.beat, heard.at = record.beat, now
        elif record.beat < heard.beat:
            return False
        return now - heard.at <= SILENT_S
