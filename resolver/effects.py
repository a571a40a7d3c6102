"""What the resolver's core tells its adapters to do, as values.

Owns the vocabulary between the sans-I/O core and the sockets. Never acts. Invariant: an effect
holds everything its adapter needs, so that adapters decide nothing.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from policy.authority import GrantRequested, LookupRecord

Group = Literal["outside", "cluster"]


class Client(NamedTuple):
    """Where a query came from and where its reply goes.

    ``source`` and ``aimed`` are packed addresses (4 or 16 octets): the client's own and the one it
    aimed at. ``via`` is the listener's socket index (UDP) or the connection's id (TCP).
    """

    source: bytes
    port: int
    aimed: bytes
    transport: Literal["udp", "tcp"]
    via: int


class Reply(NamedTuple):
    """Send ``wire`` to the client: already fits a UDP datagram; without TCP's length prefix."""

    client: Client
    wire: bytes


class AskUpstream(NamedTuple):
    """Ask a group of upstreams a question built afresh; answer by ``id`` until ``deadline_at``.

    ``name`` is in wire form, lower case, with the root label.
    """

    id: int
    name: bytes
    qtype: int
    do: bool
    group: Group
    deadline_at: float


class AskGrants(NamedTuple):
    """Send the request to the authority."""

    request: GrantRequested


class Record(NamedTuple):
    """Tell the authority of a lookup that operators want to see."""

    record: LookupRecord


Effect = Reply | AskUpstream | AskGrants | Record
