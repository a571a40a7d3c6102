"""What the enforcer's brain asks of the kernel: the shapes of its doors.

Owns no behaviour. ``enforcer.kernel``, ``routes`` and ``conntrack`` are the real ones, tests pass fakes
that satisfy the same contract tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from enforcer.bridge import Bridge
from enforcer.bridge_sets import Turn
from enforcer.elements import Change, InstalledElement
from enforcer.ways import Ended

FlowTuple = tuple[bytes, bytes, str, int]
"""Pod address, destination, protocol (by name, or its number), port (0: none)."""


class KernelDoor(Protocol):
    """Tables and elements; see ``enforcer.kernel.Kernel``."""

    def commit(self, changes: Sequence[Change]) -> None:
        """Make all changes or raise ``KernelRejected``."""

    def commit_ends(self, ended: Sequence[Ended]) -> None:
        """Make sure that these live elements are gone, or raise ``KernelRejected``."""

    def commit_bridge(self, turns: Sequence[Turn]) -> None:
        """Change the sets of the table between a bridge's ports, or raise ``KernelRejected``."""

    def install(self, text: str) -> None:
        """Replace the policy table, or the one between a bridge's ports."""

    def install_guard(self, text: str) -> None:
        """Make the guard table, to live as long as this process."""

    def commit_guard(self, changes: Sequence[Change]) -> None:
        """Change the guard's sets."""

    def fingerprint(self) -> str:
        """Digest of the policy table's structure; "" without it."""

    def guard_fingerprint(self) -> str:
        """Digest of the guard's structure; "" without it."""

    def bridge_fingerprint(self) -> str:
        """Digest of the bridge table's structure; "" without it."""

    def elements(self, name: str) -> list[InstalledElement]:
        """Read one set."""


class FlowsDoor(Protocol):
    """Connection tracking; every call may be made in a thread."""

    def delete_flows(self, addresses: Iterable[bytes]) -> int:
        """Delete what conntrack holds for these pod addresses."""

    def used(self, candidates: Iterable[tuple[bytes, bytes]]) -> set[FlowTuple]:
        """Return the flows between these pairs of pod address and destination."""


class HostDoor(Protocol):
    """The host's interfaces and routes."""

    def pod_interfaces(self, addresses: Iterable[bytes]) -> Mapping[bytes, str]:
        """Return the interface that leads to each address, where one does."""

    def bridges(self) -> Iterable[Bridge]:
        """Return the bridges, and what is behind their ports."""

    def uplinks(self) -> Iterable[str]:
        """Return the interfaces that carry a default route."""


class OffLoop(Protocol):
    """Does work in a thread, and what follows on the loop; one error there ends the process."""

    def __call__(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Start ``work``; call ``done`` with its result."""
