"""Objects as the API server would hand them to the controller, and the board that hears of them."""

from __future__ import annotations

from typing import Any

from enforcer.controller.board import Board, Write
from enforcer.controller.fleet import cut_node
from enforcer.controller.statuses import cut_mirrored, cut_status
from enforcer.controller.verdicts import Key
from enforcer.sources.kubernetes.kinds import BY_KIND
from policy.manifest import Governed, GovernedNamespaces

Json = dict[str, Any]
AT = "2026-11-23T00:00:00.000Z"
LATER = "2026-11-23T01:00:00.000Z"
GOVERNED = GovernedNamespaces(match_labels={"nameward.dev/governed": "true"})
BOTH = frozenset({"conditions", "enforcement"})


def policy(name: str = "good", *, uid: str = "", generation: int = 1, **rule: object) -> Json:
    """A FirewallPolicy of one rule in the namespace ``space``."""
    first: Json = {
        "name": "egress",
        "action": "permit",
        "destinationSmartGroups": [{"name": "anywhere"}],
        "webGroups": [{"name": "approved"}],
        "protocol": "tcp",
        "port": 443,
    }
    return {
        "apiVersion": "networking.aviatrix.com/v1alpha1",
        "kind": "FirewallPolicy",
        "metadata": {
            "namespace": "space",
            "name": name,
            "uid": uid or f"uid-{name}",
            "generation": generation,
        },
        "spec": {
            "rules": [first | rule],
            "smartGroups": [{"name": "anywhere", "selectors": [{"cidr": "0.0.0.0/0"}]}],
            "webGroups": [{"name": "approved", "domains": ["api.example.com"]}],
        },
    }


def namespace(name: str = "space", **labels: str) -> Json:
    """A Namespace; governed unless labels are given."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels or {"nameward.dev/governed": "true"}},
    }


def node(name: str, *policies: Json, enforcing: bool = True, pods: int = 1, **status: object) -> Json:
    """A NodeStatus with these policies in force."""
    listed = [
        {
            "kind": each["kind"],
            "namespace": each["metadata"]["namespace"],
            "name": each["metadata"]["name"],
            "uid": each["metadata"]["uid"],
            "generation": each["metadata"]["generation"],
            "pods": pods,
        }
        for each in policies
    ]
    return {"metadata": {"name": name}, "status": {"enforcing": enforcing, "policies": listed} | status}


class Cluster:
    """A board, and an API server of a kind: it stores what the board wants written."""

    def __init__(self, governed: Governed = GOVERNED, *, fields: frozenset[str] = BOTH) -> None:
        self.now = 1000.0
        self.board = Board(governed, self.now)
        self.board.fields_known("FirewallPolicy", fields, self.now)
        self.stored: dict[tuple[str, str], Json] = {}
        self.mirrored: dict[Key, Json] = {}
        self.writes: list[Write] = []
        self._versions = 0

    def lists(self, *policies: Json, namespaces: tuple[Json, ...] = (), nodes: tuple[Json, ...] = ()) -> None:
        """Every kind is listed."""
        self.list_of("Namespace", *(namespaces or (namespace(),)))
        self.list_of("Service")
        self.list_of("FirewallPolicy", *policies)
        self.list_of("WebgroupPolicy")
        self.board.nodes_listed(map(cut_node, nodes), self.now)
        self.board.statuses_listed(map(cut_status, self.stored.values()), self.now)

    def list_of(self, kind: str, *objects: Json) -> None:
        """One kind is listed."""
        self.board.objects_listed(kind, [BY_KIND[kind].cut(each) for each in objects], self.now)
        if kind.endswith("Policy"):
            found = {_key(each): cut_mirrored(each) for each in objects}
            self.board.mirrored_listed(kind, found, self.now)

    def changes(self, changed: Json, *, is_gone: bool = False) -> None:
        """One object changes."""
        kind = changed["kind"]
        self.board.object_changed(kind, BY_KIND[kind].cut(changed), self.now, is_gone=is_gone)
        if kind.endswith("Policy"):
            self.board.mirrored_changed(_key(changed), None if is_gone else cut_mirrored(changed), self.now)

    def reports(self, said: Json, *, is_gone: bool = False) -> None:
        """One node says something."""
        self.board.node_changed(cut_node(said), self.now, is_gone=is_gone)

    def runs(self, seconds: float, *, at: str = AT, takes: bool = True) -> list[Write]:
        """Time passes; what is due is written, and heard again. Returns it."""
        written: list[Write] = []
        end = self.now + seconds
        while True:
            self.board.look(self.now)
            while writes := self.board.due(self.now, at):
                for write in writes:
                    self.board.pace.sent(self.now)
                    written.append(write)
                    if takes:
                        self.takes(write)
                    else:
                        self.board.failed(write, self.now)
            step = max(self.board.next_at(self.now), self.now + 0.01)
            if step > end:
                self.now = end
                self.writes += written
                return written
            self.now = step

    def takes(self, write: Write) -> None:
        """Store what was written, and let the board hear of it."""
        self.board.wrote(write, self.now)
        place = (write.namespace, write.name)
        if write.act == "delete":
            self.board.status_changed(cut_status(self.stored.pop(place)), self.now, is_gone=True)
        elif write.act == "mirror":
            assert write.key is not None
            self.mirrored[write.key] = write.body["status"]
            self.board.mirrored_changed(write.key, cut_mirrored(write.body), self.now)
        else:
            self.stores(write.body)

    def stores(self, body: Json) -> None:
        """A PolicyStatus is stored, by whomever."""
        self._versions += 1
        metadata = body["metadata"] | {"resourceVersion": str(self._versions), "uid": f"s{self._versions}"}
        stored = body | {"metadata": metadata}
        self.stored[metadata["namespace"], metadata["name"]] = stored
        self.board.status_changed(cut_status(stored), self.now, is_gone=False)

    def status(self, name: str = "good") -> Json:
        """The stored status of a policy; conditions by their type."""
        status: Json = self.stored["space", f"firewallpolicy-{name}"]["status"]
        return status | {each["type"]: each for each in status["conditions"]}


def _key(fields: Json) -> Key:
    metadata = fields["metadata"]
    return Key(fields["kind"], metadata["namespace"], metadata["name"])
