"""What the resolver's core tells its adapters to do, as values.

Owns the vocabulary between the sans-I/O core and the sockets. Never acts. Invariant: an effect
holds everything its adapter needs, so that adapters decide nothing.
"""

from __future__ import annotations

from typing import Literal

from policy.authority import GrantRequested, LookupRecord

Group = Literal["outside", "cluster"]


class Client:
    """Where a query came from and where its reply goes.

    ``source`` and ``aimed`` are packed addresses (4 or 16 octets): the client's own and the one it
    aimed at. ``via`` is the listener's socket index (UDP) or the connection's id (TCP).
    """

    __slots__ = ("aimed", "port", "source", "transport", "via")

    def __init__(
        self, source: bytes, port: int, aimed: bytes, transport: Literal["udp", "tcp"], via: int
    ) -> None:
        self.source = source
        self.port = port
        self.aimed = aimed
        self.transport = transport
        self.via = via

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Client) and self._all() == other._all()

    def __hash__(self) -> int:
        return hash(self._all())

    def __repr__(self) -> str:
        return f"Client{self._all()!r}"

    def _all(self) -> tuple[bytes, int, bytes, str, int]:
        return self.source, self.port, self.aimed, self.transport, self.via


class Reply:
    """Send ``wire`` to the client: already fits a UDP datagram; without TCP's length prefix."""

    __slots__ = ("client", "wire")

    def __init__(self, client: Client, wire: bytes) -> None:
        self.client = client
        self.wire = wire


class AskUpstream:
    """Ask a group of upstreams a question built afresh; answer by ``id`` until ``deadline_at``.

    ``name`` is in wire form, lower case, with the root label.
    """

    __slots__ = ("deadline_at", "do", "group", "id", "name", "qtype")

    def __init__(
        self, ident: int, name: bytes, qtype: int, do: bool, group: Group, *, deadline_at: float
    ) -> None:
        self.id = ident
        self.name = name
        self.qtype = qtype
        self.do = do
        self.group = group
        self.deadline_at = deadline_at


class AskGrants:
    """Send the request to the authority."""

    __slots__ = ("request",)

    def __init__(self, request: GrantRequested) -> None:
        self.request = request


class Record:
    """Tell the authority of a lookup that operators want to see."""

    __slots__ = ("record",)

    def __init__(self, record: LookupRecord) -> None:
        self.record = record


Effect = Reply | AskUpstream | AskGrants | Record
