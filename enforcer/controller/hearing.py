"""From the reflectors' threads onto the board.

Owns what is followed, and how its objects are cut. Never decides. Invariant: the board is touched under its
lock only.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from enforcer.controller.board import POLICIES, Board
from enforcer.controller.fleet import NodeCut, cut_node
from enforcer.controller.statuses import STATUS_API, Json, Mirrored, StatusCut, cut_mirrored, cut_status
from enforcer.controller.verdicts import Key
from enforcer.kube.answers import Kind
from enforcer.kube.client import Api
from enforcer.kube.reflector import Reflector
from enforcer.sources.kubernetes.kinds import BY_KIND, Cut
from policy.runtime.clock import now

T = TypeVar("T")


class ObjectCut(NamedTuple):
    """A policy, a namespace or a Service, and what of ours stands in its status."""

    cut: Cut
    mirrored: Mirrored | None


class Hearing:
    """Follows everything that the board needs, until ``stop``."""

    def __init__(self, api: Api, board: Board, died: Callable[[], None]) -> None:
        self.changed = threading.Condition()
        """The board's lock; notified when something was heard."""
        self.board = board
        self.troubles: dict[str, str] = {}
        """By kind, why it cannot be heard."""
        objects = (_Objects(self, kind) for kind in (*POLICIES, "Namespace", "Service"))
        statuses = f"/apis/{STATUS_API}/policystatuses"
        nodes = f"/apis/{STATUS_API}/nodestatuses"
        self._reflectors: list[Reflector[ObjectCut] | Reflector[NodeCut] | Reflector[StatusCut]] = [
            *(each.reflector(api, died) for each in objects),
            Reflector[NodeCut](api, nodes, _Nodes(self, "NodeStatus"), keep=cut_node, died=died),
            Reflector[StatusCut](api, statuses, _Statuses(self, "PolicyStatus"), keep=cut_status, died=died),
        ]

    def start(self) -> None:
        """Begin."""
        for each in self._reflectors:
            each.start()

    def stop(self) -> None:
        """End; waits a little for the threads."""
        for each in self._reflectors:
            each.stop()
        for each in self._reflectors:
            each.stop(join_s=5.0)


class _Heard(ABC, Generic[T]):
    """What the sinks share."""

    def __init__(self, hearing: Hearing, kind: str) -> None:
        self._hearing = hearing
        self._kind = kind

    def replaced(self, items: list[T], /) -> None:
        """See ``enforcer.kube.reflector.Sink``."""
        with self._hearing.changed:
            self._listed(self._hearing.board, items)
            self._hearing.changed.notify_all()

    def changed(self, kind: Kind, item: T, /) -> None:
        """See ``Sink``."""
        with self._hearing.changed:
            self._changed(self._hearing.board, item, is_gone=kind == "DELETED")
            self._hearing.changed.notify_all()

    def trouble(self, sentence: str | None, /) -> None:
        """See ``Sink``."""
        with self._hearing.changed:
            if sentence is None:
                self._hearing.troubles.pop(self._kind, None)
            else:
                self._hearing.troubles[self._kind] = sentence
            self._hearing.changed.notify_all()

    @abstractmethod
    def _listed(self, board: Board, items: list[T]) -> None:
        """Put a whole list on the board."""

    @abstractmethod
    def _changed(self, board: Board, item: T, *, is_gone: bool) -> None:
        """Put one change on the board."""


class _Objects(_Heard[ObjectCut]):
    """Policies, namespaces, Services."""

    def reflector(self, api: Api, died: Callable[[], None]) -> Reflector[ObjectCut]:
        """Return the one that follows this kind."""
        return Reflector[ObjectCut](api, BY_KIND[self._kind].path, self, keep=self._cut, died=died)

    def _cut(self, fields: Json) -> ObjectCut:
        is_policy = self._kind in POLICIES
        return ObjectCut(BY_KIND[self._kind].cut(fields), cut_mirrored(fields) if is_policy else None)

    def _listed(self, board: Board, items: list[ObjectCut]) -> None:
        board.objects_listed(self._kind, [item.cut for item in items], now())
        found = {self._key(item): item.mirrored for item in items if item.mirrored is not None}
        board.mirrored_listed(self._kind, found, now())

    def _changed(self, board: Board, item: ObjectCut, *, is_gone: bool) -> None:
        board.object_changed(self._kind, item.cut, now(), is_gone=is_gone)
        if item.mirrored is not None:
            board.mirrored_changed(self._key(item), None if is_gone else item.mirrored, now())

    def _key(self, item: ObjectCut) -> Key:
        namespace, _, name = item.cut.key.partition("/")
        return Key(self._kind, namespace, name)


class _Nodes(_Heard[NodeCut]):
    def _listed(self, board: Board, items: list[NodeCut]) -> None:
        board.nodes_listed(items, now())

    def _changed(self, board: Board, item: NodeCut, *, is_gone: bool) -> None:
        board.node_changed(item, now(), is_gone=is_gone)


class _Statuses(_Heard[StatusCut]):
    def _listed(self, board: Board, items: list[StatusCut]) -> None:
        board.statuses_listed(items, now())

    def _changed(self, board: Board, item: StatusCut, *, is_gone: bool) -> None:
        board.status_changed(item, now(), is_gone=is_gone)
