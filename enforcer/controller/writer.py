"""The requests by which the controller writes, and what their refusals mean.

Owns paths and verbs. Blocks. Decides nothing. Invariant: nothing is overwritten that has changed since it
was read, and nothing is written to a policy that has another uid than the one it was decided for.
"""

from __future__ import annotations

from typing import Literal, Protocol

from enforcer.controller.board import Write
from enforcer.controller.statuses import PLURALS, POLICY_API, STATUS_API, Json
from enforcer.kube.answers import ApiRefused
from enforcer.kube.client import at

FIELD_MANAGER = "nameward-controller"


class Door(Protocol):
    """What of ``enforcer.kube.client.Api`` is used here."""

    def get(self, path: str, **query: str) -> Json:
        """Return one object."""

    def create(self, path: str, body: Json, **query: str) -> Json:
        """Create one object."""

    def replace(self, path: str, body: Json, **query: str) -> Json:
        """Replace one object."""

    def patch(self, path: str, body: Json, kind: Literal["apply"], **query: str) -> Json:
        """Bring one object to this state."""

    def delete(self, path: str, options: Json | None = None, **query: str) -> None:
        """Delete one object."""


def send(door: Door, write: Write) -> None:
    """Send one request. Raises ``ApiRefused``, ``ApiLost``."""
    group, version = (POLICY_API if write.act == "mirror" else STATUS_API).split("/")
    plural = PLURALS[write.key.kind] if write.act == "mirror" and write.key else "policystatuses"
    collection = at("apis", group, version, "namespaces", write.namespace, plural)
    one = f"{collection}{at(write.name)}"
    if write.act == "create":
        door.create(collection, write.body, fieldManager=FIELD_MANAGER)
    elif write.act == "replace":
        door.replace(one, write.body, fieldManager=FIELD_MANAGER)
    elif write.act == "mirror":
        door.patch(f"{one}/status", write.body, "apply", fieldManager=FIELD_MANAGER, force="true")
    else:
        _delete(door, one, write.uid)


def _delete(door: Door, path: str, uid: str) -> None:
    try:
        door.delete(path, {"preconditions": {"uid": uid}} if uid else None)
    except ApiRefused as refused:
        if refused.status not in {404, 409}:
            raise


def definition_path(kind: str) -> str:
    """Return the path of the CustomResourceDefinition of a kind of policies."""
    name = f"{PLURALS[kind]}.{POLICY_API.partition('/')[0]}"
    return at("apis", "apiextensions.k8s.io", "v1", "customresourcedefinitions", name)
