"""Other nodes of the cluster: what they would have written to a real Redis, true or not."""

from __future__ import annotations

import time
from typing import Any

import redis

from enforcer.demo.stores import Store
from enforcer.sharing.records.formats import (
    BlockedRecord,
    GrantRecord,
    NodeFacts,
    NodeRecord,
    PodRecord,
    SharedUpstream,
)
from enforcer.sharing.records.keys import Keys
from enforcer.sharing.records.reasons import SharedReason
from enforcer.sharing.records.roll import seen_octets
from enforcer.sharing.records.seal import VERSION, Keyring, seal

KEYRING = Keyring(b"the key of the cluster")
HERE = Keys("default", "node-a")
FACTS = NodeFacts(
    version="0.1.0",
    generation=7,
    policy_hash="ab12",
    pods=3,
    grants=11,
    started_at="2026-11-22T09:00:00.000Z",
    enforcing=True,
    policies=2,
    rejected_policies=0,
    pending=0,
    last_realized_at="2026-11-22T10:00:00.000Z",
    problems=(),
    upstreams=(SharedUpstream("1.1.1.1", True, 12.5),),  # noqa: FBT003
)


class OtherNode:
    """Writes the records of one node, sealed unless told otherwise."""

    def __init__(self, store: Store, name: str, session: str = "0123abcd") -> None:
        self.redis = redis.Redis(unix_socket_path=str(store.path))
        self.name = name
        self.session = session
        self.keys = HERE.of(name)
        self.seq = 0

    def sign(self, before_s: float = 0.0) -> OtherNode:
        """Enter itself into the roll, as if seen so long ago."""
        seen = int((time.time() - before_s) * 1000)  # noqa: TID251 - Redis's clock, here the host's
        entry = seen_octets(KEYRING, self.keys.nodes, self.name.encode(), seen)
        self.redis.hset(self.keys.nodes, self.name.encode(), entry)  # type: ignore[arg-type]
        return self

    def beat(self, number: int = 1, facts: NodeFacts = FACTS, **changed: bytes) -> OtherNode:
        """Sign the roll and write a heartbeat."""
        record = NodeRecord(self.name, self.session, number, "0011223344556677", "", facts)
        self.put(self.keys.heartbeat, record.fields(), 10_000, **changed)
        return self.sign()

    def grant(
        self,
        pod: str = "b-0",
        pod_ip: str = "10.0.1.5",
        address: str = "203.0.113.7",
        *,
        name: str = "api.example.com",
        left_ms: int = 60_000,
        more: tuple[SharedReason, ...] = (),
        **changed: bytes,
    ) -> bytes:
        """Write one grant; returns its key."""
        reasons = (SharedReason(name, "mcp/web", "allow", left_ms / 1000), *more)
        record = GrantRecord(
            pod_ip, address, "tcp", "443", "mcp", pod, f"u-{pod}", self.name, reasons, 0, 7,
            "2026-11-22T10:00:00.000Z", self.session,
        )  # fmt: skip
        wrap = "[%s]" if ":" in pod_ip else "%s"
        key = self.keys.own + f"grant:{wrap % pod_ip}:{wrap % address}:tcp:443".encode()
        self.put(key, record.fields(), left_ms, **changed)
        return key

    def pod(self, pod: str, pod_ip: str, policies: tuple[str, ...] = ("mcp/web",)) -> None:
        """Write where a pod is."""
        record = PodRecord(pod_ip, "mcp", pod, f"u-{pod}", self.name, ("mcp/web/db",), policies, self.session)
        wrap = "[%s]" if ":" in pod_ip else "%s"
        self.put(self.keys.own + b"pod:" + (wrap % pod_ip).encode(), record.fields(), 600_000)

    def refuse(
        self, name: str, pod: str = "b-0", at: str = "*", seq: int | None = None, **changed: bytes
    ) -> bytes:
        """Add a refusal to the node's stream; returns the entry's id."""
        self.seq += 1
        record = BlockedRecord(
            "lookup", self.name, "mcp", pod, "10.0.1.5", name, "A", "", None, "", f"no rule permits {name}",
            "", "", "2026-11-22T10:00:00.000Z", 2, self.session, self.seq if seq is None else seq,
        )  # fmt: skip
        fields = self._sealed(self.keys.blocked, record.fields(), **changed)
        return self.redis.xadd(self.keys.blocked, fields, id=at)  # type: ignore[arg-type,return-value]

    def put(self, key: bytes, fields: dict[bytes, bytes], left_ms: int, **changed: bytes) -> None:
        """Write a hash; ``changed`` is written over what was sealed."""
        with self.redis.pipeline(transaction=True) as pipe:
            pipe.delete(key)
            pipe.hset(key, mapping=self._sealed(key, fields, **changed))  # type: ignore[arg-type]
            pipe.pexpire(key, left_ms)
            pipe.execute()

    def _sealed(self, key: bytes, fields: dict[bytes, bytes], **changed: bytes) -> dict[bytes, bytes]:
        whole = {**fields, b"v": VERSION}
        whole[b"mac"] = seal(KEYRING, key, whole)
        return {**whole, **{name.encode(): value for name, value in changed.items()}}

    def resealed(self, key: bytes, **fields: Any) -> None:
        """Change fields of a hash as a node that has the key could: with a right seal."""
        whole: dict[bytes, bytes] = self.redis.hgetall(key)  # type: ignore[assignment]
        whole |= {name.encode(): value for name, value in fields.items()}
        whole[b"mac"] = seal(KEYRING, key, whole)
        self.redis.hset(key, mapping=whole)  # type: ignore[arg-type]
