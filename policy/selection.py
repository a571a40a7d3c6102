"""Which pods a selector picks: by labels, by the Service in front of them.

Owns the roster of pods and Services and the index from a pod to the rules that apply to it.
Never looks at what the rules do. Invariant: a rule applies to pods of its own namespace only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from policy.pods import Labels, Pod, Service, labels_match
from policy.rules import Policy

RuleId = tuple[int, int]
"""Index of a policy and of a rule in it."""


class Roster:
    """The pods and Services of one world."""

    __slots__ = ("_behind", "_by_namespace", "_services", "pods", "services")

    def __init__(self, pods: Sequence[Pod], services: Sequence[Service]) -> None:
        self.pods = pods
        self.services = services
        self._services = {(service.namespace, service.name): service for service in services}
        self._by_namespace: defaultdict[str, list[Pod]] = defaultdict(list)
        for pod in pods:
            self._by_namespace[pod.namespace].append(pod)
        self._behind: dict[tuple[str, str], list[Pod]] = {}

    def has_service(self, namespace: str, name: str) -> bool:
        """Say whether the Service exists."""
        return (namespace, name) in self._services

    def pods_behind(self, namespace: str, name: str) -> list[Pod]:
        """Return the pods behind a Service: by its selector or, without one, by its endpoints.

        With namespace "" the Services of that name in all namespaces.
        """
        if not namespace:
            return [
                pod
                for service in self.services
                if service.name == name
                for pod in self.pods_behind(service.namespace, name)
            ]
        found = self._behind.get((namespace, name))
        if found is None:
            service = self._services.get((namespace, name))
            pods = self._by_namespace.get(namespace, []) if service is not None else []
            found = self._behind[namespace, name] = [
                pod for pod in pods if service and is_behind(service, pod)
            ]
        return found


def is_behind(service: Service, pod: Pod) -> bool:
    """Say whether a pod is behind a Service. An empty selector selects nothing, as in Kubernetes."""
    if pod.namespace != service.namespace:
        return False
    if service.selector:
        return labels_match(service.selector, pod.labels)
    return not set(service.addresses).isdisjoint(pod.addresses)


class _Labelled(NamedTuple):
    labels: Labels
    rule: RuleId


class RuleIndex:
    """From a pod to the rules that apply to it, at the cost of its labels and of those rules."""

    __slots__ = ("_all", "_by_label", "_by_pod", "missing")

    def __init__(self, policies: Iterable[Policy], roster: Roster) -> None:
        self._all: defaultdict[str, list[RuleId]] = defaultdict(list)
        self._by_label: defaultdict[tuple[str, str, str], list[_Labelled]] = defaultdict(list)
        self._by_pod: defaultdict[tuple[str, str], list[RuleId]] = defaultdict(list)
        self.missing: set[RuleId] = set()
        """Rules whose Service does not exist: an unresolvable reference, so not understood."""
        for number, policy in enumerate(policies):
            for position, rule in enumerate(policy.rules):
                self._add(
                    policy.namespace,
                    rule.selector.match_labels,
                    rule.selector.service,
                    (number, position),
                    roster,
                )

    def _add(
        self, namespace: str, labels: Labels | None, service: str | None, rule: RuleId, roster: Roster
    ) -> None:
        if labels:
            first = min(labels.items())
            self._by_label[namespace, *first].append(_Labelled(labels, rule))
        elif not service:
            self._all[namespace].append(rule)
        elif roster.has_service(namespace, service):
            for pod in roster.pods_behind(namespace, service):
                self._by_pod[namespace, pod.name].append(rule)
        else:
            self.missing.add(rule)
            self._all[namespace].append(rule)

    def rules_of(self, pod: Pod) -> tuple[RuleId, ...]:
        """Return the rules that apply to the pod, in the order of policies and of their rules."""
        found = list(self._all.get(pod.namespace, ()))
        for key, value in pod.labels.items():
            for labels, rule in self._by_label.get((pod.namespace, key, value), ()):
                if labels_match(labels, pod.labels):
                    found.append(rule)
        found += self._by_pod.get((pod.namespace, pod.name), ())
        return tuple(sorted(found))
