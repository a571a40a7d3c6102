"""All that the controller knows, and what follows for the objects of the API.

Pure. Owns what was heard of policies, namespaces, Services, nodes and stored statuses. Never asks or writes.
Invariants: nothing is said before what it depends on was listed completely; what is stored as it should be
is not written again; only statuses whose policy has been gone for a while are removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple

from enforcer.controller.conditions import by_type, conditions, timed
from enforcer.controller.fleet import Fleet, NodeCut
from enforcer.controller.pace import GAP_S, REPAIR_S, SOON_S, Pace
from enforcer.controller.statuses import (
    Json,
    Mirrored,
    StatusCut,
    is_as_stored,
    is_mirrored,
    mirror_of,
    name_of,
    object_of,
    status_of,
)
from enforcer.controller.verdicts import Judge, Key, Verdict
from enforcer.sources.kubernetes.kinds import Cut
from enforcer.sources.kubernetes.store import Store
from policy.manifest import Governed

SETTLE_S: Final = 0.1
"""Objects are read together once nothing more came for so long…"""
AT_MOST_EVERY_S: Final = 1.0
"""…but not more often than this."""
ABSENT_S: Final = 10.0
"""A kind that the API server does not serve counts as empty after so long."""
ORPHAN_S: Final = 30.0
POLICIES: Final = ("FirewallPolicy", "WebgroupPolicy")
NEEDED: Final = ("Namespace", "Service")
OPTIONAL: Final = (*POLICIES, "NodeStatus", "PolicyStatus")

_NO_DNS: Final = frozenset[str]()


class Write(NamedTuple):
    """One request: a PolicyStatus to create, replace or delete, or a policy's status to apply."""

    act: Literal["create", "replace", "delete", "mirror"]
    key: Key | None
    namespace: str
    name: str
    body: Json
    uid: str = ""
    """Of the object that is deleted."""


class Said(NamedTuple):
    """What was last written of a policy, and where."""

    uid: str
    status: Json
    fields: frozenset[str] | None
    has_object: bool


class Board:
    """See the module; every ``now`` is monotonic, every ``at`` RFC 3339."""

    def __init__(self, governed: Governed, now: float) -> None:
        self._governed = governed
        self._judge = Judge(governed)
        self._store = Store()
        self._verdicts: dict[Key, Verdict] = {}
        self._by_uid: dict[str, Key] = {}
        self._mirrored: dict[Key, Mirrored] = {}
        self._stored: dict[tuple[str, str], StatusCut] = {}
        self._orphans: dict[tuple[str, str], float] = {}
        self._fleet = Fleet()
        self._listed: set[str] = set()
        self._began_at = now
        self._judge_at: float | None = None
        self._judged_at = float("-inf")
        self._said: dict[Key, Said] = {}
        self.pace = Pace(now)
        self.fields: dict[str, frozenset[str]] = {}
        """By kind, which of our fields the policy's own status has a place for."""

    # --- what is heard -----------------------------------------------------------------------------

    def objects_listed(self, kind: str, cuts: Iterable[Cut], now: float) -> None:
        """Hear of all policies, namespaces or Services."""
        self._listed.add(kind)
        if self._store.replace(kind, cuts):
            self._changed(now)

    def object_changed(self, kind: str, cut: Cut, now: float, *, is_gone: bool) -> None:
        """Hear of one of them."""
        if self._store.drop(kind, cut) if is_gone else self._store.put(kind, cut):
            self._changed(now)

    def mirrored_listed(self, kind: str, found: Mapping[Key, Mirrored], now: float) -> None:
        """Hear what stands in the status of all policies of a kind."""
        for key in [key for key in self._mirrored if key.kind == kind and key not in found]:
            del self._mirrored[key]
        for key, mirrored in found.items():
            self.mirrored_changed(key, mirrored, now)

    def mirrored_changed(self, key: Key, mirrored: Mirrored | None, now: float) -> None:
        """Hear what stands in the status of one; None: it has gone."""
        if mirrored is None:
            self._mirrored.pop(key, None)
        elif self._mirrored.get(key) != mirrored:
            self._mirrored[key] = mirrored
            self._mark(key, now)

    def nodes_listed(self, cuts: Iterable[NodeCut], now: float) -> None:
        """Hear of all nodes."""
        self._listed.add("NodeStatus")
        was_empty = not len(self._fleet)
        touched = self._fleet.replace(cuts)
        self._touched(touched if len(self._fleet) and not was_empty else self._by_uid, now)

    def node_changed(self, cut: NodeCut, now: float, *, is_gone: bool) -> None:
        """Hear of one node."""
        count = len(self._fleet)
        touched = self._fleet.drop(cut.name) if is_gone else self._fleet.put(cut)
        is_first_or_last = 0 in {count, len(self._fleet)}
        self._touched(self._by_uid if is_first_or_last else touched, now)

    def statuses_listed(self, cuts: Iterable[StatusCut], now: float) -> None:
        """Hear of all stored PolicyStatus objects."""
        self._listed.add("PolicyStatus")
        self._stored = {(cut.namespace, cut.name): cut for cut in cuts}
        for key in self._verdicts:
            self._mark(key, now)

    def status_changed(self, cut: StatusCut, now: float, *, is_gone: bool) -> None:
        """Hear of one."""
        place = (cut.namespace, cut.name)
        if is_gone:
            self._stored.pop(place, None)
            self._orphans.pop(place, None)
        else:
            self._stored[place] = cut
        key = self._by_uid.get(cut.policy_uid)
        if key is not None:
            self._mark(key, now)

    def fields_known(self, kind: str, fields: frozenset[str], now: float) -> None:
        """Hear which of our fields the definition of a kind has a place for."""
        if self.fields.get(kind) != fields:
            self.fields[kind] = fields
            for key in self._verdicts:
                if key.kind == kind:
                    self._mark(key, now)

    def _changed(self, now: float) -> None:
        self._judge_at = max(now + SETTLE_S, self._judged_at + AT_MOST_EVERY_S)

    def _touched(self, uids: Iterable[str], now: float) -> None:
        for uid in list(uids):
            key = self._by_uid.get(uid)
            if key is not None:
                self._mark(key, now)

    def _mark(self, key: Key, now: float) -> None:
        if key in self._verdicts:
            self.pace.mark(key, now, GAP_S)

    # --- what follows ------------------------------------------------------------------------------

    def is_ready(self, now: float) -> bool:
        """Say whether enough was listed to say anything."""
        missing = [kind for kind in OPTIONAL if kind not in self._listed]
        waited = now >= self._began_at + ABSENT_S
        return all(kind in self._listed for kind in NEEDED) and (waited or not missing)

    def look(self, now: float) -> None:
        """Read what has changed, if that is due. Call before ``due``."""
        if self._judge_at is None or now < self._judge_at or not self.is_ready(now):
            return
        self._judge_at, self._judged_at = None, now
        old, self._verdicts = self._verdicts, self._judge.judge(self._store.reads(_NO_DNS))
        self._by_uid = {verdict.uid: key for key, verdict in self._verdicts.items() if verdict.uid}
        for key in old.keys() - self._verdicts.keys():
            self.pace.forget(key)
            self._said.pop(key, None)
        for key, verdict in self._verdicts.items():
            if verdict != old.get(key):
                self.pace.mark(key, now, SOON_S)

    def due(self, now: float, at: str) -> list[Write]:
        """Return the requests for the next policy of which something is to say; empty: none now.

        Each is answered by ``wrote`` or ``failed``.
        """
        if not self.is_ready(now):
            return []
        while (key := self.pace.take(now)) is not None:
            verdict = self._verdicts.get(key)
            if verdict is None or not verdict.uid:
                continue
            writes, said = self._writes(verdict, at)
            if writes and self._said.get(key) == said and not self.pace.may_repair(key, now):
                self.pace.mark(key, now, REPAIR_S)
                continue
            if writes:
                self._said[key] = said
                return writes
        return self._removals(now)

    def next_at(self, now: float) -> float:
        """Return when to look again."""
        judge_at = self._judge_at if self._judge_at is not None else float("inf")
        if not self.is_ready(now):
            return max(now, self._began_at + ABSENT_S) if judge_at != float("inf") else float("inf")
        return min(judge_at, self.pace.next_at(now), now + ORPHAN_S)

    def _writes(self, verdict: Verdict, at: str) -> tuple[list[Write], Said]:
        """Return what is to be written of a policy now, and what it says."""
        key = verdict.key
        reach = self._fleet.reach(verdict.uid, verdict.generation)
        wanted = conditions(verdict, reach, self._governed)
        stored = self._stored.get((key.namespace, name_of(key)))
        mirrored = self._mirrored.get(key, Mirrored({}, None))
        known = by_type(stored.content["status"]) if stored is not None else mirrored.conditions
        status = status_of(verdict, reach, timed(wanted, known, at))
        writes = []
        if "PolicyStatus" in self._listed:
            body = object_of(verdict, status)
            if stored is None:
                writes.append(Write("create", key, key.namespace, name_of(key), body))
            elif not is_as_stored(body, stored):
                body["metadata"]["resourceVersion"] = stored.version
                writes.append(Write("replace", key, key.namespace, name_of(key), body))
        fields = self.fields.get(key.kind)
        if fields:
            body = mirror_of(verdict, status, fields)
            if not is_mirrored(body, mirrored):
                writes.append(Write("mirror", key, key.namespace, key.name, body))
        return writes, Said(
            verdict.uid, status_of(verdict, reach, wanted), fields, "PolicyStatus" in self._listed
        )

    def _removals(self, now: float) -> list[Write]:
        """Return the removal of one PolicyStatus whose policy has been gone for a while."""
        if not self._listed.issuperset(POLICIES) or self._judge_at is not None:
            return []
        here = {place for place, cut in self._stored.items() if not self._is_about(cut, self._by_uid)}
        self._orphans = {place: self._orphans.get(place, now) for place in here}
        for place, since in self._orphans.items():
            if now >= since + ORPHAN_S and self.pace.may_send(now):
                self._orphans[place] = now
                uid = self._stored[place].uid
                return [Write("delete", None, *place, {}, uid)]
        return []

    @staticmethod
    def _is_about(cut: StatusCut, policies: Mapping[str, Key]) -> bool:
        key = policies.get(cut.policy_uid)
        return key is not None and (key.namespace, name_of(key)) == (cut.namespace, cut.name)

    # --- what came of it ---------------------------------------------------------------------------

    def wrote(self, write: Write, now: float) -> None:
        """The API server took it."""
        if write.key is not None:
            self.pace.written(write.key, now)

    def failed(self, write: Write, now: float) -> None:
        """The API server did not take it."""
        if write.key is not None:
            self._said.pop(write.key, None)
            self.pace.failed(write.key, now)
