"""One collection as it is followed: the reflector and what it has said so far.

Owns the way from a reflector's thread into the store. Never reads an object. Invariant: only the one
that is followed now writes the store; one that was replaced is not heard any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from enforcer.kube.answers import Kind
from enforcer.kube.client import Api
from enforcer.kube.reflector import Reflector
from enforcer.sources.kubernetes.kinds import Collection, Cut


class Hearer(Protocol):
    """Who is told what a collection's server says; on the reflector's thread."""

    def listed(self, followed: Followed, cuts: list[Cut]) -> None:
        """Hear of a complete list."""

    def changed(self, followed: Followed, kind: Kind, cut: Cut) -> None:
        """Hear of one change."""

    def troubled(self, followed: Followed, sentence: str) -> None:
        """Hear what is wrong, or "" once nothing is."""

    def died(self) -> None:
        """Hear that a thread ended by a mistake of ours."""


class Followed:
    """A collection with a query, followed until ``stop``. See ``enforcer.kube.reflector.Sink``."""

    def __init__(self, api: Api, collection: Collection, query: Mapping[str, str], hearer: Hearer) -> None:
        self.collection = collection
        self.query = dict(query)
        self._hearer = hearer
        self.trouble_now = ""
        self.is_listed = False
        self.reflector = Reflector[Cut](
            api,
            collection.path,
            self,
            keep=collection.cut,
            query=query,
            name=f"watch-{collection.kind}",
            died=hearer.died,
        )

    def start(self) -> None:
        """Begin."""
        self.reflector.start()

    def stop(self) -> None:
        """End, without waiting."""
        self.reflector.stop()

    def replaced(self, items: list[Cut], /) -> None:
        """See ``Sink``."""
        self._hearer.listed(self, items)

    def changed(self, kind: Kind, item: Cut, /) -> None:
        """See ``Sink``."""
        self._hearer.changed(self, kind, item)

    def trouble(self, sentence: str | None, /) -> None:
        """See ``Sink``."""
        self._hearer.troubled(self, sentence or "")
