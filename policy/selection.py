"""Which pods a selector picks: by labels, by the Service in front of them.

Owns the roster of pods and Services and the index from a pod to the rules that apply to it.
Never looks at what the rules do. Invariant: a rule applies to pods of its own namespace only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from policy.pods import Labels, Pod, Service, labels_match
from policy.rules import Policy, Selector

Owner = TypeVar("Owner")


class Roster:
    """The pods and Services of one world."""

    __slots__ = ("_behind", "_by_label", "_by_namespace", "_services", "pods", "services")

    def __init__(self, pods: Sequence[Pod], services: Sequence[Service]) -> None:
        self.pods = pods
        self.services = services
        self._services = {(service.namespace, service.name): service for service in services}
        self._by_namespace: defaultdict[str, list[Pod]] = defaultdict(list)
        for pod in pods:
            self._by_namespace[pod.namespace].append(pod)
        self._behind: dict[tuple[str, str], list[Pod]] = {}
        self._by_label: dict[str, dict[tuple[str, str], list[Pod]]] = {}

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

    def pods_perhaps(self, namespace: str, selector: Selector) -> Sequence[Pod]:
        """Return pods of a namespace among which are all that a selector picks."""
        if selector.match_labels:
            return self._labelled(namespace).get(min(selector.match_labels.items()), ())
        return self._by_namespace.get(namespace, ())

    def _labelled(self, namespace: str) -> dict[tuple[str, str], list[Pod]]:
        found = self._by_label.get(namespace)
        if found is None:
            found = self._by_label[namespace] = {}
            for pod in self._by_namespace.get(namespace, ()):
                for label in pod.labels.items():
                    found.setdefault(label, []).append(pod)
        return found


def is_behind(service: Service, pod: Pod) -> bool:
    """Say whether a pod is behind a Service. An empty selector selects nothing, as in Kubernetes."""
    if pod.namespace != service.namespace:
        return False
    if service.selector:
        return labels_match(service.selector, pod.labels)
    return not set(service.addresses).isdisjoint(pod.addresses)


Ruled = tuple[Owner, int]
"""A rule: what stands for its policy, and its position there."""


class RuleIndex(Generic[Owner]):
    """From a pod to the rules that apply to it, at the cost of its labels and of those rules.

    An owner is what stands for a policy; a rule is its owner and its position in the policy.
    """

    __slots__ = ("_all", "_by_label", "_by_pod")

    def __init__(self) -> None:
        self._all: defaultdict[str, dict[Ruled[Owner], None]] = defaultdict(dict)
        self._by_label: defaultdict[tuple[str, str, str], dict[Ruled[Owner], Labels]] = defaultdict(dict)
        self._by_pod: defaultdict[tuple[str, str], dict[Ruled[Owner], None]] = defaultdict(dict)

    def add(self, owner: Owner, policy: Policy, roster: Roster) -> frozenset[int]:
        """Add a policy's rules. Returns those whose Service does not exist: they are not understood."""
        missing = set()
        namespace = policy.namespace
        for position, rule in enumerate(policy.rules):
            labels, service = rule.selector.match_labels, rule.selector.service
            if labels:
                self._by_label[namespace, *min(labels.items())][owner, position] = labels
            elif not service:
                self._all[namespace][owner, position] = None
            elif roster.has_service(namespace, service):
                for pod in roster.pods_behind(namespace, service):
                    self._by_pod[namespace, pod.name][owner, position] = None
            else:
                missing.add(position)
                self._all[namespace][owner, position] = None
        return frozenset(missing)

    def remove(self, owner: Owner, policy: Policy, roster: Roster) -> None:
        """Take a policy's rules away again; the roster is the one they were added with."""
        namespace = policy.namespace
        for position, rule in enumerate(policy.rules):
            labels, service = rule.selector.match_labels, rule.selector.service
            if labels:
                place = (namespace, *min(labels.items()))
                _take(self._by_label, place, (owner, position))
            elif service and roster.has_service(namespace, service):
                for pod in roster.pods_behind(namespace, service):
                    _take(self._by_pod, (namespace, pod.name), (owner, position))
            else:
                _take(self._all, namespace, (owner, position))

    def rules_of(self, pod: Pod) -> list[Ruled[Owner]]:
        """Return the rules that apply to the pod, in no order."""
        found = list(self._all.get(pod.namespace, ()))
        for key, value in pod.labels.items():
            for rule, labels in self._by_label.get((pod.namespace, key, value), _NONE).items():
                if labels_match(labels, pod.labels):
                    found.append(rule)
        found += self._by_pod.get((pod.namespace, pod.name), ())
        return found


_NONE: Mapping[Any, Any] = {}
_Place = TypeVar("_Place")


def _take(index: dict[_Place, dict[Ruled[Owner], Any]], place: _Place, rule: Ruled[Owner]) -> None:
    """Take a rule out of an index, and its place if nothing is left there."""
    there = index[place]
    there.pop(rule, None)
    if not there:
        del index[place]
