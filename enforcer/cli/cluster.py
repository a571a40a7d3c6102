"""What a cluster's API server says, asked once: for ``nameward inventory --cluster``.

Owns which API server is asked and as whom, and what is missing from its answers. Changes nothing there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from enforcer.break_glass import SLACK_S
from enforcer.cli.options import CommandFailure, UsageFailure
from enforcer.cli.output import Row
from enforcer.inventory import Inventory
from enforcer.kube.access import Access, AccessError, from_kubeconfig, in_cluster
from enforcer.kube.answers import ApiLost, ApiRefused
from enforcer.kube.client import Api
from enforcer.sources.kubernetes.kinds import ALWAYS, PODS, SLICES, Collection
from enforcer.sources.kubernetes.store import Store, selector_of
from enforcer.survey import node_of, survey
from enforcer.worlds import world_of
from policy.break_glass import Asked, BreakGlass, read_marks
from policy.manifest import Loaded, assemble
from policy.runtime.clock import wall_seconds
from policy.runtime.kinds import parse_upstream
from policy.runtime.settings import GovernedNamespaces, Settings
from policy.snapshot import compile_snapshot

GOVERNED_LABEL = {"nameward.dev/governed": "true"}
"""What governs where no configuration says otherwise: as in the chart."""
TIMEOUT_S = 30.0

Json = dict[str, Any]
Warn = Callable[[str], None]


def cluster_rows(settings: Settings, kubeconfig: str, context: str, warn: Warn) -> Iterator[Row]:
    """Yield the inventory of the cluster. Raises ``CommandFailure`` where it cannot be read."""
    api = Api(_access(settings, kubeconfig, context), user_agent="nameward-inventory", timeout_s=TIMEOUT_S)
    store = Store()
    try:
        servers = frozenset(parse_upstream(text).address for text in settings.dns.cluster_upstreams)
        for collection in (*ALWAYS, PODS):
            store.replace(collection.kind, _listed(api, collection, {}))
        names = store.endpoints_needed(servers)
        if names:
            store.replace(SLICES.kind, _listed(api, SLICES, selector_of(names)))
        nodes = _named(api, "/api/v1/nodes")
        statuses = _statuses(api, warn)
    except ApiRefused as refused:
        raise CommandFailure(f"the API server refuses: {refused}") from None
    except ApiLost as lost:
        raise CommandFailure(str(lost)) from None
    finally:
        api.close()
    loaded = assemble(store.reads(servers), settings.policy.governed_namespaces)
    opened = _opened(loaded, settings, statuses)
    snapshot = compile_snapshot(world_of(loaded, settings, (), 1, complete=True, break_glass=opened))
    known = {
        name: node_of(nodes.get(name), (statuses or {}).get(name)) for name in {*nodes, *(statuses or ())}
    }
    return survey(Inventory(snapshot), known, is_reported=statuses is not None)


def governed_by_label(settings: Settings) -> Settings:
    """Return the settings with the chart's own choice of namespaces."""
    governed = GovernedNamespaces(match_labels=GOVERNED_LABEL)
    policy = msgspec.structs.replace(settings.policy, governed_namespaces=governed)
    return msgspec.structs.replace(settings, policy=policy)


def _access(settings: Settings, kubeconfig: str, context: str) -> Access:
    """Return the API server that is named, else the configuration's, else the pod's own, else kubectl's."""
    configured = settings.policy.kubernetes
    usual = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0] or str(Path.home() / ".kube" / "config")
    try:
        if kubeconfig:
            return from_kubeconfig(kubeconfig, context)
        if configured.kubeconfig:
            return from_kubeconfig(configured.kubeconfig, context or configured.context)
        if os.environ.get("KUBERNETES_SERVICE_HOST"):
            return in_cluster()
        return from_kubeconfig(usual, context)
    except AccessError as error:
        raise UsageFailure(f"{error}; name another with --kubeconfig") from None


def _listed(api: Api, collection: Collection, query: Mapping[str, str]) -> Iterable[Any]:
    try:
        return api.list_kept(collection.path, collection.cut, **query, resourceVersion="0").items
    except ApiRefused as refused:
        if refused.status == 404:
            raise CommandFailure(
                f"the API server does not serve {collection.kind}: {collection.missing}"
            ) from None
        raise


def _named(api: Api, path: str) -> dict[str, Json]:
    """Return a collection by name: labels and status alone."""

    def keep(item: Json) -> Json:
        metadata = item.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        kept = {field: metadata.get(field) for field in ("name", "labels")}
        return {"metadata": kept, "status": item.get("status") if "nodestatuses" in path else None}

    return {
        str(item["metadata"]["name"]): item for item in api.list_kept(path, keep, resourceVersion="0").items
    }


def _statuses(api: Api, warn: Warn) -> dict[str, Json] | None:
    """Return the NodeStatuses by node; None if they may not be read."""
    try:
        return _named(api, "/apis/nameward.dev/v1alpha1/nodestatuses")
    except ApiRefused as refused:
        if refused.status not in {403, 404}:
            raise
        warn(f"NodeStatuses cannot be read, so it is not known whether nodes enforce: {refused}")
        return None


def _opened(
    loaded: Loaded, settings: Settings, statuses: Mapping[str, Json] | None
) -> tuple[BreakGlass, ...]:
    """Return the namespaces that nodes say are open; where nobody says, those that ask for it now."""
    longest_s, now = settings.policy.break_glass_max_s, wall_seconds()
    asked = [
        each
        for name in sorted(loaded.marks)
        if isinstance(each := read_marks(name, loaded.marks[name]), Asked)
    ]
    if statuses is None:
        return tuple(each.glass for each in asked if 0 < each.until_at - now <= longest_s + SLACK_S)
    said = {name for each in statuses.values() for name in _break_glass(each)}
    return tuple(each.glass for each in asked if each.glass.namespace in said and each.until_at > now)


def _break_glass(status: Json) -> list[str]:
    said = status["status"]
    listed = said.get("breakGlass") if isinstance(said, dict) else None
    return [each for each in listed if isinstance(each, str)] if isinstance(listed, list) else []
