"""The bridge: compares its two sides whenever one has changed, and writes the difference.

Owns the order of things: when to list again, what to write when, what to tell. Blocks; lives in one thread.
Never reads a pod. Invariants: nothing is written before both sides are known; a write is made from the
version that was compared; a lost side changes nothing on the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol, get_args

from enforcer.kube.answers import ApiLost, ApiRefused, Json
from enforcer.kube.client import Api, at
from enforcer.obot.absence import Absences
from enforcer.obot.difference import Action, Change, Differences, differences, hash_of
from enforcer.obot.numbers import Numbers
from enforcer.obot.pace import FORGIVEN_S, Pace
from enforcer.obot.sides import Bell, ClusterSide, Heard, ObotSide, kept
from enforcer.obot.translation import Shape, Wishes, wishes
from enforcer.records import Records

GATHER_S: Final = 0.3
"""LISTs that the storage's watch asks for are at least so far apart."""
IDLE_S: Final = 60.0
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
CONTESTED: Final = 4
"""So many writes of one content in a row: somebody else writes too."""
MAX_TOLD: Final = 50


class Again(Protocol):
    """What lists Obot's storage."""

    def again(self) -> None:
        """List it now."""


def collection(namespace: str) -> str:
    """Return the path of a namespace's FirewallPolicies."""
    return at("apis", "networking.aviatrix.com", "v1alpha1", "namespaces", namespace, "firewallpolicies")


class Bridge:
    """See the module. ``turn`` does what is due; ``run`` does so until ``stop``."""

    def __init__(
        self,
        *,
        api: Api,
        obot: ObotSide,
        cluster: ClusterSide,
        lister: Again,
        bell: Bell,
        shape: Shape,
        succeeded: Sequence[str],
        records: Records,
        now: Callable[[], float],
    ) -> None:
        self._api = api
        self._path = collection(shape.namespace)
        self._obot = obot
        self._cluster = cluster
        self._lister = lister
        self._bell = bell
        self._shape = shape
        self._succeeded = tuple(succeeded)
        self._records = records
        self._now = now
        self._heard = Heard(None, 0, float("-inf"))
        self._wishes: Wishes | None = None
        self._differences = Differences([], [], [])
        self._absences = Absences()
        self._pace = Pace()
        self._served: dict[str, tuple[int, Json]] = {}
        self._refusals: dict[str, str] = {}
        self._contested: dict[str, tuple[float, str]] = {}
        self._lost = ""
        self._failures = 0
        self._resume_at = self._asked_at = float("-inf")
        self._told: frozenset[str] = frozenset()
        self._writes = Counter({(each, said): 0 for each in get_args(Action) for said in ("done", "refused")})
        self._is_stopped = False

    # --- life ------------------------------------------------------------------------------------

    def run(self) -> None:
        """Take turns until ``stop``."""
        while not self._is_stopped:
            self._bell.wait(self.turn())

    def stop(self) -> None:
        """End after the write that runs."""
        self._is_stopped = True
        self._bell.ring()

    def turn(self) -> float:
        """Do what is due; return after how many seconds the next turn should come."""
        now = self._now()
        live = self._cluster.live()
        heard = self._obot.heard
        if live is not None and heard.sources is not None:
            self._compare(heard, live, now)
            self._write(now)
        self._ask(now)
        self._tell()
        return max(self._next_at(now) - self._now(), 0.0)

    # --- comparing -------------------------------------------------------------------------------

    def _compare(self, heard: Heard, live: dict[str, Json], now: float) -> None:
        is_new = heard.lists != self._heard.lists
        if is_new or self._wishes is None:
            self._wishes = wishes(heard.sources or (), self._shape)
        wanted = self._wishes
        self._differences = differences(wanted, live, self._served, self._shape.managed_by, self._succeeded)
        if is_new:
            present = frozenset(wanted.policies) | wanted.kept
            self._absences.listed(present, self._differences.orphans, now)
            self._heard = heard
        gone = self._absences.gone()
        for name in self._differences.orphans:
            if name in gone:
                have = live[name]
                self._differences.changes.append(Change("delete", name, have, hash_of(have["metadata"])))
        names = frozenset(change.name for change in self._differences.changes)
        self._refusals = {name: said for name, said in self._refusals.items() if name in names}
        self._contested = {name: told for name, told in self._contested.items() if told[0] > now}
        self._pace.keep(frozenset(wanted.policies) | live.keys())
        self._served = {name: made for name, made in self._served.items() if name in wanted.policies}

    # --- writing ---------------------------------------------------------------------------------

    def _write(self, now: float) -> None:
        if now < self._resume_at:
            return
        for change in list(self._differences.changes):
            if self._is_stopped:
                return
            if self._pace.due_at(change.name, change.content) > self._now():
                continue
            try:
                self._make(change)
            except ApiLost as lost:
                self._lost = f"the cluster's API: {lost}"
                pause_s = min(FIRST_PAUSE_S * 2.0 ** min(self._failures, 16), LONGEST_PAUSE_S)
                self._failures += 1
                self._resume_at = self._now() + pause_s
                return
            self._lost, self._failures = "", 0

    def _make(self, change: Change) -> None:
        """Write one object. Raises ``ApiLost``."""
        self._pace.writes(change.name, change.content, self._now())
        try:
            outcome = self._sent(change)
        except ApiRefused as refused:
            if not _is_outdated(change, refused):
                self._refusals[change.name] = f"FirewallPolicy {change.name} was refused: {refused}"
            self._writes[change.action, "refused"] += 1
            return
        in_a_row = self._pace.wrote(change.name)
        self._differences.changes.remove(change)
        self._refusals.pop(change.name, None)
        self._writes[change.action, "done"] += 1
        fields = {"action": change.action, "policy": f"{self._shape.namespace}/{change.name}"}
        self._records.tell("bridge.wrote", fields=fields)
        if outcome is not None and outcome["spec"] != change.body["spec"]:
            self._served[change.name] = (change.content, outcome["spec"])
        if in_a_row >= CONTESTED:
            self._contested[change.name] = (
                self._now() + FORGIVEN_S,
                f"FirewallPolicy {change.name} was written {in_a_row} times in a row:"
                " somebody else changes it back; is there another provider or a webhook?",
            )

    def _sent(self, change: Change) -> Json | None:
        """Write it, take what the API server made of it, and return that."""
        path = f"{self._path}{at(change.name)}"
        if change.action == "delete":
            metadata = change.body["metadata"]
            same = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
            self._api.delete(path, {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": same})
            self._cluster.drop(change.name)
            return None
        if change.action == "create":
            answered = self._api.create(self._path, change.body)
        else:
            answered = self._api.replace(path, change.body)
        self._cluster.put(answered)
        return kept(answered)

    # --- asking and telling ----------------------------------------------------------------------

    def _ask(self, now: float) -> None:
        """Have Obot's storage listed again, if its watch rang or an absence can be settled by it."""
        settles_at = self._absences.next_at()
        is_due = self._obot.is_outdated or (settles_at is not None and settles_at <= now)
        if is_due and not self._obot.problem and now >= self._asked_at + GATHER_S:
            self._asked_at = now
            self._lister.again()

    def _next_at(self, now: float) -> float:
        due = [now + IDLE_S]
        if self._obot.is_outdated and not self._obot.problem:
            due.append(self._asked_at + GATHER_S)
        settles_at = self._absences.next_at()
        if settles_at is not None and not self._obot.problem:
            due.append(max(settles_at, self._asked_at + GATHER_S))
        due += [
            max(self._pace.due_at(change.name, change.content), self._resume_at)
            for change in self._differences.changes
        ]
        return min(due)

    @property
    def problems(self) -> list[str]:
        """What is wrong now, a sentence each."""
        said = [self._obot.problem, self._cluster.problem, self._lost, *self._differences.blocked]
        said += [*self._refusals.values(), *(told[1] for told in self._contested.values())]
        said += self._wishes.refused if self._wishes is not None else ()
        return [sentence for sentence in said if sentence]

    def _tell(self) -> None:
        left_out = [
            sentence
            for wanted in (self._wishes.policies.values() if self._wishes is not None else ())
            for sentence in wanted.said
        ]
        said = frozenset(self.problems) | frozenset(left_out)
        for sentence in sorted(said - self._told)[:MAX_TOLD]:
            self._records.tell("bridge.problem", "warning", reason=sentence)
        for sentence in sorted(self._told - said)[:MAX_TOLD]:
            self._records.tell("bridge.problem_over", reason=sentence)
        self._told = said

    def numbers(self) -> Numbers:
        """Look at it, from any thread."""
        wanted, heard = self._wishes, self._obot.heard
        policies = wanted.policies if wanted is not None else {}
        waiting = {change.name for change in self._differences.changes}
        return Numbers(
            sources=len(heard.sources or ()),
            policies=len(policies.keys() - waiting) - len(self._differences.blocked),
            refused=len(wanted.refused) if wanted is not None else 0,
            left_out=sum(1 for each in policies.values() if each.said),
            problems=len(self.problems),
            storage_up=heard.sources is not None and not self._obot.problem,
            cluster_up=self._cluster.live() is not None and not self._cluster.problem,
            listed_ago_s=None if heard.sources is None else self._now() - heard.at,
            writes=Counter(self._writes),
        )


def _is_outdated(change: Change, refused: ApiRefused) -> bool:
    """Say whether it is no longer as it was compared: the cluster's side will say how it is."""
    return refused.status == 409 or (refused.status == 404 and change.action != "create")
