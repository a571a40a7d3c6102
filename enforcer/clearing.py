"""Whose old flows are being deleted: before a pod is admitted, and when it goes.

Owns the walks of conntrack, one at a time and off the loop. What is asked for during a walk is done by the
next one together, and who is coming all the same is not begun again: so pods that come one after
the other do not keep each other waiting. Invariant: ``cleared`` names an address only if a walk for
this identity, begun since it came, has ended well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from enforcer.doors import FlowsDoor, OffLoop
from enforcer.identity import Identity


class Clearing:
    """``cleared`` is called on the loop with who may be admitted, or with what went wrong."""

    def __init__(
        self, flows: FlowsDoor, off_loop: OffLoop, cleared: Callable[[frozenset[bytes], str], None]
    ) -> None:
        self._flows = flows
        self._off_loop = off_loop
        self._cleared = cleared
        self._coming: Mapping[bytes, Identity] = {}
        self._next: set[bytes] = set()
        self._gone: set[bytes] = set()
        self._under_way: set[bytes] | None = None
        """For whom a walk is under way; None: there is none."""

    def follow(self, coming: Mapping[bytes, Identity], gone: Iterable[bytes]) -> None:
        """Take who is coming now, and who went; whoever is not coming any more is forgotten."""
        fresh = {source for source, each in coming.items() if self._coming.get(source) != each}
        self._coming = coming
        self._next = (self._next & coming.keys()) | fresh
        self._gone.update(gone)
        if self._under_way is None:
            self._walk()
        else:
            self._under_way = (self._under_way & coming.keys()) - fresh

    def again(self, sources: Iterable[bytes]) -> None:
        """Begin anew for these, at the next ``follow``: they could not be admitted."""
        self._next.update(self._coming.keys() & set(sources))

    def _walk(self) -> None:
        stale = [*self._next, *self._gone - self._next]
        if not stale:
            return
        self._under_way, self._next, self._gone = self._next, set(), set()
        self._off_loop(lambda: self._trouble_with(stale), self._done)

    def _trouble_with(self, stale: list[bytes]) -> str:
        """Delete what conntrack holds; in a thread. Returns why it could not."""
        try:
            self._flows.delete_flows(stale)
        except OSError as error:
            return f"old connections cannot be deleted ({error.strerror}): is nf_conntrack_netlink loaded?"
        return ""

    def _done(self, trouble: str) -> None:
        done, self._under_way = frozenset(self._under_way or ()), None
        if trouble:
            self.again(done)  # not before somebody tries again
        else:
            self._walk()
        self._cleared(done, trouble)
