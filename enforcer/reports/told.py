"""What of a node goes into its reports.

Pure. Owns which pods and policies are this node's; they are looked up again with each new snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from enforcer.desired import local_pods
from enforcer.reports.node_status import Facts, InForce, facts_of, in_force
from policy.pods import Pod
from policy.snapshot import Snapshot


class NodeTold:
    """Reads a node: ``status`` is the row of ``nameward status``, ``snapshot`` what is in force."""

    def __init__(
        self,
        node: str,
        status: Callable[[], Mapping[str, Any]],
        snapshot: Callable[[], Snapshot | None],
        removed: Callable[[], bool],
    ) -> None:
        self._node = node
        self._status = status
        self._snapshot = snapshot
        self._removed = removed
        self._known: Snapshot | None = None
        self._pods: dict[str, Pod] = {}
        self._policies: list[InForce] = []

    def facts(self, unsaid: tuple[str, ...]) -> Facts | None:
        """Return what is to be reported now, without these problems; None before anything was loaded."""
        self._look()
        removed = self._removed()
        if self._known is None and not removed:
            return None
        policies = () if removed else tuple(self._policies)
        opened = () if removed or self._known is None else self._known.world.break_glass
        return facts_of(
            self._status(),
            policies=policies,
            break_glass=[each.namespace for each in opened],
            removed=removed,
            unsaid=unsaid,
        )

    def pod(self, key: str) -> Pod | None:
        """Return the governed pod of this node with that ``namespace/name``."""
        self._look()
        return self._pods.get(key)

    def _look(self) -> None:
        snapshot = self._snapshot()
        if snapshot is self._known:
            return
        self._known = snapshot
        self._pods, self._policies = {}, []
        if snapshot is not None:
            here = local_pods(snapshot.world, self._node)
            self._pods = {pod.key: pod for pod in here if pod.governed}
            self._policies = in_force(snapshot, self._pods.values())
