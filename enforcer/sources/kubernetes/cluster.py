"""The cluster as far as it is known here: what is followed, what was heard, and how sure that is.

Owns the store and its lock, and which collections are followed. Called by the reflectors' threads, and
by the source's own. Invariants: only what is followed now writes the store; where more must be asked for
(pods of other nodes, endpoints of Services) there is no new state until that was listed too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from enforcer.kube.answers import Kind
from enforcer.kube.client import Api
from enforcer.sources.kubernetes.follow import Followed
from enforcer.sources.kubernetes.kinds import (
    ALWAYS,
    FIREWALL_POLICIES,
    PODS,
    SERVICES,
    SLICES,
    WEBGROUP_POLICIES,
    Collection,
    Cut,
)
from enforcer.sources.kubernetes.store import Store, selector_of
from policy.manifest import FileRead, Governed

QUIET_S: Final = 0.003
"""A change is told once nothing more came for so long…"""
BURST_S: Final = 0.025
"""…or after so long, whatever comes."""
_TELLING = (FIREWALL_POLICIES.kind, WEBGROUP_POLICIES.kind, SERVICES.kind)
"""Kinds that say what else must be asked for."""


class Place(NamedTuple):
    """What is asked for, as settings say."""

    node: str
    governed: Governed
    dns_servers: frozenset[str] = frozenset()
    """Addresses of the cluster's DNS servers."""
    every_node: bool = False
    """Whether pods of other nodes ask here (shared state)."""


class News(NamedTuple):
    """What is known now. ``reads`` is None where no object changed, or not all is listed yet."""

    reads: list[FileRead] | None
    names_pods: bool
    is_fresh: bool
    """Whether pods are heard now: what is said of them still holds."""
    problems: tuple[str, ...]
    since: float
    """When the first change came that was not told before."""


class Cluster:
    """See the module. ``now`` is monotonic; ``died`` is called on a thread that ends by a mistake."""

    def __init__(self, api: Api, place: Place, now: Callable[[], float], died: Callable[[], None]) -> None:
        self._api = api
        self._place = place
        self._now = now
        self.died = died
        self._news = threading.Condition()
        self._store = Store()
        self._followed: dict[str, Followed] = {}
        self._coming: dict[str, Followed] = {}
        """What will replace what is followed, once it is listed."""
        self._from_saved: set[str] = set()
        self._is_changed = False
        self._is_told = True
        self._first_change_at = self._last_change_at = now()
        self._fresh_at = now()
        self._is_stopped = False
        self.failures = 0
        self.saved_at = ""
        """When the copy was made that parts of this come from; "" where none do."""

    # --- life ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to follow."""
        with self._news:
            for collection in ALWAYS:
                self._follow(collection, {})
            self._follow(PODS, self._pod_query(names_pods=False))

    def again(self) -> None:
        """List everything anew."""
        with self._news:
            for followed in self._all():
                followed.reflector.again()

    def stop(self) -> None:
        """Follow no more; whoever waits is woken."""
        with self._news:
            self._is_stopped = True
            for followed in self._all():
                followed.stop()
            self._news.notify_all()

    # --- what is heard (enforcer.sources.kubernetes.follow.Hearer) -------------------------------------

    def listed(self, followed: Followed, cuts: list[Cut]) -> None:
        """See ``Hearer``."""
        kind = followed.collection.kind
        with self._news:
            if self._coming.get(kind) is followed:
                old = self._followed.pop(kind)
                old.stop()
                self._followed[kind] = self._coming.pop(kind)
            elif self._followed.get(kind) is not followed:
                return
            is_first = not followed.is_listed or kind in self._from_saved
            followed.is_listed = True
            self._from_saved.discard(kind)
            if self._store.replace(kind, cuts) or is_first:
                self._changed(kind)

    def changed(self, followed: Followed, change: Kind, cut: Cut) -> None:
        """See ``Hearer``."""
        kind = followed.collection.kind
        with self._news:
            if self._followed.get(kind) is not followed:
                return
            if self._store.drop(kind, cut) if change == "DELETED" else self._store.put(kind, cut):
                self._changed(kind)

    def troubled(self, followed: Followed, sentence: str) -> None:
        """See ``Hearer``."""
        with self._news:
            if sentence:
                self.failures += 1
                self._fresh_at = self._now() if self._is_fresh() else self._fresh_at
            if sentence and followed.reflector.is_missing:
                sentence = (
                    f"the API server knows no {followed.collection.kind}: {followed.collection.missing}"
                )
            if followed.trouble_now != sentence:
                followed.trouble_now = sentence
                for each in self._all() if not sentence else ():
                    each.reflector.hurry()
                self._is_told = False
                self._news.notify_all()

    def _changed(self, kind: str) -> None:
        self._last_change_at = self._now()
        if not self._is_changed:
            self._first_change_at = self._last_change_at
        self._is_changed, self._is_told = True, False
        if kind in _TELLING:
            self._follow_what_follows()
        self._news.notify_all()

    # --- what is read of it ----------------------------------------------------------------------------

    def wait(self, at_most_s: float | None) -> bool:
        """Wait for news, and until they have settled. Returns whether there are any."""
        with self._news:
            self._news.wait_for(lambda: self._is_stopped or not self._is_told, at_most_s)
            while self._is_changed and not self._is_stopped:
                settled_at = min(self._last_change_at + QUIET_S, self._first_change_at + BURST_S)
                rest_s = settled_at - self._now()
                if rest_s <= 0:
                    break
                self._news.wait(rest_s)
            return not self._is_told and not self._is_stopped

    def take(self) -> News:
        """Return what is known, and count it as told."""
        with self._news:
            is_ready = self._is_changed and self._is_complete()
            since = self._first_change_at if is_ready else self._now()
            if is_ready:
                self._is_changed = False
            self._is_told = True
            names_pods = self._store.names_pods
            reads = self._store.reads(self._place.dns_servers) if is_ready else None
            return News(reads, names_pods, self._knows_pods(), self._problems(), since)

    def use_saved(self, objects: Mapping[str, list[Cut]], at: str) -> None:
        """Take a saved copy's objects for what was not listed yet."""
        with self._news:
            for kind, cuts in objects.items():
                followed = self._followed.get(kind)
                if followed is None or not followed.is_listed:
                    self._store.replace(kind, cuts)
                    self._from_saved.add(kind)
            self.saved_at = at
            self._changed(SERVICES.kind)

    def objects(self) -> dict[str, list[Cut]] | None:
        """Return all objects as they are kept, for a copy; None unless the server itself said them all."""
        with self._news:
            return self._store.raws() if self._is_complete() and not self._is_from_saved() else None

    def stale_s(self) -> float:
        """Return for how long not everything was heard, in seconds; 0 while everything is."""
        with self._news:
            return 0.0 if self._is_fresh() else self._now() - self._fresh_at

    @property
    def is_troubled(self) -> bool:
        """Say whether anything that is followed cannot be heard now."""
        with self._news:
            return any(each.trouble_now for each in self._all())

    def silence_s(self) -> float:
        """Return how long ago the server last said anything at all."""
        with self._news:
            return self._now() - max(each.reflector.heard_at for each in self._all())

    def reconnect(self) -> None:
        """Begin every watch anew: the server does not answer."""
        with self._news:
            for followed in self._all():
                followed.reflector.reconnect()

    def _is_complete(self) -> bool:
        return not self._coming and all(
            each.is_listed or kind in self._from_saved for kind, each in self._followed.items()
        )

    def _is_from_saved(self) -> bool:
        return not self._from_saved.isdisjoint(self._followed)

    def _is_fresh(self) -> bool:
        return all(each.is_listed and not each.trouble_now for each in self._all())

    def _knows_pods(self) -> bool:
        pods = [each for each in self._all() if each.collection is PODS]
        return PODS.kind not in self._from_saved and all(
            each.is_listed and not each.trouble_now for each in pods
        )

    def _problems(self) -> tuple[str, ...]:
        said = {each.trouble_now: None for each in self._all() if each.trouble_now}
        if self._is_from_saved():
            said[
                "the API server has not said yet what there is now: what it said until "
                f"{self.saved_at} is enforced, and pods that came since are denied"
            ] = None
        elif said and self._is_complete():
            said["what the API server said last stays in force"] = None
        return tuple(said)

    # --- what is followed ------------------------------------------------------------------------------

    def _all(self) -> list[Followed]:
        return [*self._followed.values(), *self._coming.values()]

    def _follow(self, collection: Collection, query: Mapping[str, str]) -> None:
        followed = Followed(self._api, collection, query, self)
        if collection.kind in self._followed:
            replaced = self._coming.pop(collection.kind, None)
            if replaced is not None:
                replaced.stop()
            self._coming[collection.kind] = followed
        else:
            self._followed[collection.kind] = followed
        followed.start()

    def _pod_query(self, *, names_pods: bool) -> Mapping[str, str]:
        if names_pods or self._place.every_node:
            return {}
        return {"fieldSelector": f"spec.nodeName={self._place.node}"}

    def _follow_what_follows(self) -> None:
        """Ask for what the objects that are known make necessary."""
        pods = self._coming.get(PODS.kind) or self._followed[PODS.kind]
        if pods.query and self._store.names_pods:
            self._follow(PODS, self._pod_query(names_pods=True))
        names = self._store.endpoints_needed(self._place.dns_servers)
        slices = self._coming.get(SLICES.kind) or self._followed.get(SLICES.kind)
        if names and (slices is None or slices.query != selector_of(names)):
            self._follow(SLICES, selector_of(names))
        elif not names and slices is not None:
            for each in (self._followed.pop(SLICES.kind, None), self._coming.pop(SLICES.kind, None)):
                if each is not None:
                    each.stop()
            self._store.replace(SLICES.kind, ())
