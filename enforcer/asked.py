"""What a person asks of a node, and what other nodes may add to the answer: the words of both.

Values only. Owns the request line's fields, the order of rows, and the seam behind which the other
nodes stand (``enforcer.sharing.cluster.view``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

Row = dict[str, Any]


class Request(msgspec.Struct, frozen=True, rename="camel"):
    """One request line. ``protocol`` "" and ``port`` None ask for any; ``since_s`` 0 for all times.

    ``node`` "" asks for the whole cluster where its state is shared, else for this node; ``local`` asks for
    nothing but this node's memory.
    """

    command: str
    namespace: str = ""
    pod: str = ""
    name: str = ""
    node: str = ""
    address: str = ""
    protocol: str = ""
    port: int | None = None
    since_s: float = msgspec.field(default=0.0, name="sinceSeconds")
    raw: bool = False
    follow: bool = False
    local: bool = False


class RequestError(Exception):
    """The request cannot be answered; the text is one sentence for the one who asked."""


class Found(NamedTuple):
    """What the other nodes' records say.

    Each of ``parts`` is in order (``order``); ``lost`` names the nodes without a heartbeat. ``refusal``: why
    there can be no rows.
    """

    parts: tuple[list[Row], ...] = ()
    warnings: tuple[str, ...] = ()
    lost: frozenset[str] = frozenset()
    refusal: str = ""


class Elsewhere(Protocol):
    """The other nodes, as far as their state is shared."""

    def find(
        self, request: Request, addresses: Sequence[str], done: Callable[[Found], None]
    ) -> Callable[[], None]:
        """Give ``done`` what is found, now or later, once. Never raises, never waits.

        ``addresses``: of the pod that is asked for, where they are known. The returned function says that
        the answer is not wanted any more, or has been used up: it must be called.
        """

    def follow(
        self, request: Request, take: Callable[[Row], None], warn: Callable[[str], None]
    ) -> Callable[[], None]:
        """Give ``take`` every refusal from now on; the returned function ends that."""


_ORDER = {
    "blocked": ("node", "lastSeen", "namespace", "pod", "name", "address"),
    "inventory": ("kind", "namespace", "pod", "policies"),
}
_USUAL = ("node", "namespace", "pod", "podIP", "name", "address", "protocol", "port")


def order(command: str) -> Callable[[Row], tuple[str, ...]]:
    """Return the key by which the rows of a command are sorted."""
    fields = _ORDER.get(command, _USUAL)
    return lambda row: tuple(str(row.get(field, "")) for field in fields)
