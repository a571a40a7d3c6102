"""Whom the authority socket speaks with beside its resolvers: other nodes, and who takes reports.

Owns what each is asked, not who it is. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from enforcer.authority import Decided
from policy.authority import CountersReported, GrantAnswered, GrantRequested, LookupsRecorded
from policy.pods import Pod


class Elsewhere(Protocol):
    """The other nodes: what is asked of them, and what they ask."""

    def is_elsewhere(self, pod: Pod) -> bool:
        """Say whether another node has the pod."""

    def ask(self, request: GrantRequested, pod: Pod, done: Callable[[GrantAnswered], None]) -> None:
        """Ask the pod's node; ``done`` is called once, perhaps before this returns."""

    @property
    def waiting(self) -> int:
        """How many requests of other nodes wait for a turn."""

    @property
    def is_owing(self) -> bool:
        """Say whether more was opened for other nodes than they may have: none is looked at now."""

    @property
    def pending(self) -> int:
        """How many requests to other nodes are not answered yet."""

    def take(self, most: int, addresses: int) -> list[GrantRequested]:
        """Return requests of other nodes, at most so many, of about so many addresses."""

    def answered(self, decided: Sequence[Decided]) -> None:
        """Tell other nodes what became of their requests."""


class Reports(Protocol):
    """Who takes what the resolver tells beside its requests."""

    def lookups_recorded(self, message: LookupsRecorded) -> None:
        """Take a batch of lookup records."""

    def counters_reported(self, message: CountersReported) -> None:
        """Take a second's growth of the resolver's counters."""
