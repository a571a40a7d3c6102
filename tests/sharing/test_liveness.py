"""Who lives: by heartbeats that go on."""

from __future__ import annotations

from enforcer.sharing.cluster.liveness import MAX_NODES, SILENT_S, Liveness
from enforcer.sharing.records.formats import NodeRecord
from tests.sharing.others import FACTS


def heartbeat(beat: int, session: str = "one", node: str = "node-b") -> NodeRecord:
    """A heartbeat."""
    return NodeRecord(node, session, beat, "c", "", FACTS)


def test_a_heartbeat_has_to_go_on() -> None:
    """The first shows that a node lives; the same again, only for so long."""
    known = Liveness()
    assert known.is_alive(heartbeat(5), 0.0)
    assert known.is_alive(heartbeat(5), SILENT_S)
    assert not known.is_alive(heartbeat(5), SILENT_S + 0.1)
    assert known.is_alive(heartbeat(6), 100.0)


def test_an_older_heartbeat_is_none() -> None:
    """Nor does it make the next one count less."""
    known = Liveness()
    known.is_alive(heartbeat(5), 0.0)
    assert not known.is_alive(heartbeat(4), 0.1)
    assert known.is_alive(heartbeat(5), 0.2)


def test_an_ended_session_stays_ended() -> None:
    """A restart begins a new one, whose numbers start again."""
    known = Liveness()
    known.is_alive(heartbeat(50), 0.0)
    assert known.is_alive(heartbeat(1, "two"), 1.0)
    assert not known.is_alive(heartbeat(51), 2.0)
    assert known.is_alive(heartbeat(2, "two"), 3.0)


def test_what_is_remembered_is_bounded() -> None:
    """The node heard of longest ago is forgotten, not the others."""
    known = Liveness()
    known.is_alive(heartbeat(5, node="first"), 0.0)
    for number in range(MAX_NODES):
        known.is_alive(heartbeat(5, node=f"n{number}"), 1.0)
    assert known.is_alive(heartbeat(4, node="first"), 2.0)
    assert not known.is_alive(heartbeat(4, node=f"n{MAX_NODES - 1}"), 2.0)
