"""Every governed pod against SmartGroups and policies, and the policies that select nobody: as rows.

Owns the words ``covered``, ``default-denied``, ``break-glass``, ``uncontained``, ``selects-nothing`` and
``orphan``. Reads one snapshot, decides nothing. Rows are made one by one as they are taken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

from policy.addresses import to_packed
from policy.break_glass import BREAK_GLASS
from policy.ceiling import CEILING
from policy.compiled import Effect
from policy.destinations import is_wanted
from policy.pods import Pod
from policy.rules import Destination, Policy
from policy.selection import Roster
from policy.snapshot import Snapshot

Row = dict[str, Any]


class Inventory:
    """What one snapshot says of its pods and policies."""

    def __init__(self, snapshot: Snapshot) -> None:
        world = snapshot.world
        self.snapshot = snapshot
        self._opened = {each.namespace: each for each in world.break_glass}
        self._policies = snapshot.policies
        self._roster = Roster(world.pods, world.services)
        self._groups = _Groups(self._policies, self._roster)

    def rows(self, node: str, here: Collection[str], *, knows_all: bool = True) -> Iterator[Row]:
        """Yield all pods of governed namespaces, then the policies without effect.

        ``node``: whose inventory it is; ``here``: keys of the pods that this node's kernel knows.
        ``knows_all``: whether other nodes' pods are known; if not, nobody can say what has no effect.
        """
        governed = (pod for pod in self.snapshot.world.pods if pod.governed)
        for pod in sorted(governed, key=lambda each: (each.namespace, each.name)):
            yield self.pod(pod, pod.node or (node if pod.key in here else ""))
        if knows_all:
            yield from self._without_effect()

    def pod(self, pod: Pod, node: str) -> Row:
        """Return the row of one pod."""
        rules = self.snapshot.rules_for(pod)
        policies = dict.fromkeys(rule.policy for rule in rules if rule.group >= 0)
        if any(rule.effect is Effect.CEILING_GRANT for rule in rules):
            policies[CEILING] = None
        if any(rule.effect is Effect.BREAK_GLASS for rule in rules):
            policies[BREAK_GLASS] = None
        state, reason = self._state(pod, covered=bool(policies))
        return _row(
            "pod",
            pod.namespace,
            pod=pod.name,
            podIPs=list(pod.addresses),
            node=node,
            state=state,
            smartGroups=self._groups.of(pod),
            policies=list(policies),
            reason=reason,
        )

    def _state(self, pod: Pod, *, covered: bool) -> tuple[str, str]:
        if pod.host_network:
            return (
                "uncontained",
                "it uses the node's own network (hostNetwork): no policy reaches its packets",
            )
        if "privileged" in pod.powers:
            return "uncontained", "a container of it is privileged: it can change the node's own rules"
        if pod.powers:
            named = " and ".join(pod.powers)
            return (
                "uncontained",
                f"a container of it has {named}, with which it may get round the node's rules",
            )
        remark = self._remark(pod, covered=covered)
        glass = self._opened.get(pod.namespace)
        if glass is not None:
            because = glass.reason or "no reason was given"
            return "break-glass", remark or f"its namespace is open until {glass.until}: {because}"
        return "covered" if covered else "default-denied", remark

    def _remark(self, pod: Pod, *, covered: bool) -> str:
        if not pod.addresses:
            return "it has no address (not started yet, or ended)"
        claimed = [text for text in pod.addresses if self.snapshot.pod_at(to_packed(text)) is not pod]
        if claimed:
            return f"another pod claims {' and '.join(claimed)} too: nothing is permitted there"
        return "" if covered else "no policy selects it: nothing outside the cluster is permitted"

    def _without_effect(self) -> Iterator[Row]:
        selecting = self._selecting()
        for number, policy in enumerate(self._policies):
            services = {rule.selector.service for rule in policy.rules}
            gone = {
                name for name in services if name and not self._roster.has_service(policy.namespace, name)
            }
            if gone and gone == services:
                names = " and ".join(f"{policy.namespace}/{name}" for name in sorted(gone))
                state, why = "orphan", f"its pods are those of Service {names}, which is gone"
            elif number not in selecting:
                state, why = "selects-nothing", self._why_nobody(policy)
            else:
                continue
            reason = f"{policy.kind}: {why}"
            yield _row("policy", policy.namespace, state=state, policies=[policy.key], reason=reason)

    def _selecting(self) -> set[int]:
        """Return the numbers of the policies that have a rule for a pod they can contain."""
        found: set[int] = set()
        seen: set[int] = set()
        for pod in self.snapshot.world.pods:
            rules = self.snapshot.rules_for(pod)
            if not pod.host_network and id(rules) not in seen:
                seen.add(id(rules))
                found.update(rule.group for rule in rules)
        return found

    def _why_nobody(self, policy: Policy) -> str:
        if not policy.rules:
            return "it has no rules"
        mine = [pod for pod in self.snapshot.world.pods if pod.namespace == policy.namespace]
        if not mine:
            return f"no pod of namespace {policy.namespace} is known here"
        if not any(pod.governed for pod in mine):
            return f"namespace {policy.namespace} is not governed"
        return "it selects no pod that it could contain"


class _Wanted(NamedTuple):
    selector: Destination
    group: str


class _Groups:
    """From a pod to the SmartGroups that pick it, at the cost of its labels and of those groups."""

    def __init__(self, policies: Iterable[Policy], roster: Roster) -> None:
        self._by_label: defaultdict[tuple[str, str], list[_Wanted]] = defaultdict(list)
        self._by_name: defaultdict[str, list[_Wanted]] = defaultdict(list)
        self._by_namespace: defaultdict[str, list[_Wanted]] = defaultdict(list)
        self._behind: defaultdict[str, list[_Wanted]] = defaultdict(list)
        for policy in policies:
            for group in policy.groups:
                for selector in group.destinations:
                    self._add(_Wanted(selector, f"{policy.key}/{group.name}"), roster)

    def _add(self, wanted: _Wanted, roster: Roster) -> None:
        selector = wanted.selector
        if selector.service:
            for pod in roster.pods_behind(selector.namespace, selector.service):
                self._behind[pod.key].append(wanted)
        elif selector.labels:
            self._by_label[min(selector.labels.items())].append(wanted)
        elif selector.pod_name:
            self._by_name[selector.pod_name].append(wanted)
        else:
            self._by_namespace[selector.namespace].append(wanted)

    def of(self, pod: Pod) -> list[str]:
        """Return the groups as ``namespace/policy/group``, sorted."""
        candidates = [*self._behind.get(pod.key, ()), *self._by_name.get(pod.name, ())]
        for label in pod.labels.items():
            candidates += self._by_label.get(label, ())
        for namespace in ("", pod.namespace):
            candidates += self._by_namespace.get(namespace, ())
        return sorted({wanted.group for wanted in candidates if is_wanted(pod, wanted.selector)})


def _row(kind: str, namespace: str, **fields: Any) -> Row:
    empty = {
        "pod": "",
        "podIPs": [],
        "node": "",
        "state": "",
        "smartGroups": [],
        "policies": [],
        "reason": "",
    }
    return {"kind": kind, "namespace": namespace, **empty, **fields, "lost": False}
