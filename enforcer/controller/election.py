"""The Lease in the API: one step of looking, taking, keeping.

Owns the requests. Blocks. Decides nothing: ``lease`` does. Invariant: the Lease is only written as it was
read; of two that write at once one is refused.
"""

from __future__ import annotations

from typing import Protocol

from enforcer.controller.lease import Json, Watcher
from enforcer.kube.answers import ApiLost, ApiRefused
from enforcer.kube.client import at
from policy.runtime.clock import now, wall_now

_API = "coordination.k8s.io/v1"


class Door(Protocol):
    """What of ``enforcer.kube.client.Api`` is used here."""

    def get(self, path: str, **query: str) -> Json:
        """Return one object."""

    def create(self, path: str, body: Json, **query: str) -> Json:
        """Create one object."""

    def replace(self, path: str, body: Json, **query: str) -> Json:
        """Replace one object."""


class Election:
    """One replica's part in it."""

    def __init__(self, door: Door, namespace: str, name: str, identity: str) -> None:
        self.watcher = Watcher(identity)
        self._door = door
        self._namespace = namespace
        self._name = name
        self._collection = at("apis", *_API.split("/"), "namespaces", namespace, "leases")
        self.trouble = ""
        """Why the Lease cannot be read or written, or ""."""

    def step(self) -> None:
        """Look at the Lease, and take or keep it where that is right. Never raises for the API's sake."""
        asked_at = now()
        try:
            self._step(asked_at)
            self.trouble = ""
        except ApiRefused as refused:
            if refused.status != 409:
                self.trouble = f"the lease {self._namespace}/{self._name}: {refused}"
            self.watcher.lost(now())
        except ApiLost as lost:
            self.trouble = str(lost)
            self.watcher.lost(now())

    def _step(self, asked_at: float) -> None:
        lease = self._read()
        spec = self.watcher.wanted(lease, asked_at, _micro(wall_now()))
        if spec is None:
            return
        if lease is None:
            metadata = {"name": self._name, "namespace": self._namespace}
            body = {"apiVersion": _API, "kind": "Lease", "metadata": metadata, "spec": spec}
            self._door.create(self._collection, body)
        else:
            self._door.replace(f"{self._collection}{at(self._name)}", lease | {"spec": spec})
        self.watcher.wrote(asked_at)

    def _read(self) -> Json | None:
        try:
            return self._door.get(f"{self._collection}{at(self._name)}")
        except ApiRefused as refused:
            if refused.status != 404:
                raise
            return None

    def release(self) -> None:
        """Give the Lease up, so that another replica need not wait. Never raises for the API's sake."""
        if not self.watcher.is_leading:
            return
        try:
            lease = self._read()
            spec = self.watcher.released(lease) if lease is not None else None
            if lease is not None and spec is not None:
                self._door.replace(f"{self._collection}{at(self._name)}", lease | {"spec": spec})
        except (ApiRefused, ApiLost) as error:
            self.trouble = str(error)


def _micro(at_time: str) -> str:
    """Return an RFC 3339 time with six digits after the point, which MicroTime wants."""
    head, _, rest = at_time.rstrip("Z").partition(".")
    return f"{head}.{rest[:6]:0<6}Z"
