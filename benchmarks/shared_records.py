"""The records of simulated nodes: what each enforcer of a large cluster writes, octet for octet.

Owns names as Obot's provider makes them, and the commands of a node's life: everything again, a new
grant, a renewal, a heartbeat, a refusal. Uses the enforcer's own formats and seal; talks to nobody.
"""

from __future__ import annotations

from collections.abc import Iterator

from enforcer.sharing.publishing.grants import WALKED
from enforcer.sharing.records.formats import BlockedRecord, GrantRecord, NodeFacts, NodeRecord, PodRecord
from enforcer.sharing.records.keys import Keys
from enforcer.sharing.records.reasons import SharedReason
from enforcer.sharing.records.resp import hset, packed, pexpire, unlink, xadd
from enforcer.sharing.records.seal import VERSION, Keyring, seal

RING = Keyring(b"a key of the simulation only")
GRANT_MS, POD_MS, NODE_MS = 3_600_000, 3_600_000, 10_000
"""Longer than a node's own two and ten minutes: nothing is to end while a million are written."""
BLOCKED_ENTRIES = 10_000
OWN = (b"realizedAt", b"reasons", b"reasons2", b"mac")
"""What is not the same in all records of a pod."""
AT, UID, SESSION = "2026-11-22T12:00:00.123Z", "6f1c2a3b-1234-4abc-8def-0123456789ab", "a1b2c3d4"


def sealed(key: bytes, fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Return a record as a node writes it."""
    record = fields | {b"v": VERSION}
    record[b"mac"] = seal(RING, key, record)
    return record


class SimulatedNode:
    """One node with so many pods, each with so many live grants."""

    def __init__(self, number: int, pods: int, grants: int) -> None:
        self.name = f"node-{number:03d}"
        self.keys = Keys("prod", self.name)
        self._number, self.pods, self._grants = number, pods, grants
        self.grants = pods * grants

    def _address(self, pod: int) -> str:
        return f"10.{self._number >> 6}.{(self._number & 63) * 4 + (pod >> 7)}.{(pod & 127) + 2}"

    def _server(self, pod: int) -> str:
        return f"ms1{self._number:03d}{pod:02x}"

    def _pod(self, pod: int) -> str:
        return f"{self._server(pod)}-6c9f7d5b8-{pod:05d}"

    def grant_key(self, index: int) -> bytes:
        """Return the key of the node's ``index``-th grant; beyond ``grants`` they are further ones."""
        address = self._address(index % self.grants // self._grants).encode()
        destination = index >> 16 & 255, index >> 8 & 255, index & 255
        return self.keys.own + b"grant:%b:203.%d.%d.%d:tcp:443" % (address, *destination)

    def _record(self, index: int) -> tuple[bytes, dict[bytes, bytes]]:
        pod = index % self.grants // self._grants
        policy = f"obot-mcp/obot-mnp-{self._server(pod)}-fw"
        reason = SharedReason(f"api{index % 97}.example.com", policy, "allow-approved-egress", 119.9)
        key = self.grant_key(index)
        record = GrantRecord(
            pod_ip=self._address(pod), address="", protocol="tcp", port="443", namespace="obot-mcp",
            pod=self._pod(pod), uid=UID, node=self.name, reasons=(reason,), more=0, generation=42,
            realized_at=AT, session=SESSION,
        )  # fmt: skip
        return key, sealed(key, record.fields())

    def opened(self, index: int) -> tuple[bytes, ...]:
        """Return what is written for a new grant."""
        key, fields = self._record(index)
        return hset(key, fields), pexpire(key, GRANT_MS)

    def replaced(self, indexes: range) -> Iterator[bytes]:
        """Yield what is written for grants of a transaction when everything is, whatever may lie there."""
        model, written = b"", -1
        for index in indexes:
            key, fields = self._record(index)
            pod = index // self._grants
            if pod != written:
                model, written = key, pod
                yield from (unlink(key), hset(key, fields), pexpire(key, GRANT_MS))
            else:
                own = {name: fields[name] for name in OWN}
                yield from (packed(b"COPY", model, key, b"REPLACE"), hset(key, own), pexpire(key, GRANT_MS))

    def renewed(self, index: int) -> bytes:
        """Return what is written when a grant is prolonged."""
        return pexpire(self.grant_key(index), GRANT_MS)

    def placed(self, pod: int) -> tuple[bytes, ...]:
        """Return what is written for a pod."""
        address = self._address(pod)
        key = self.keys.own + b"pod:" + address.encode()
        policies = (f"obot-mcp/obot-mnp-{self._server(pod)}-fw",)
        record = PodRecord(address, "obot-mcp", self._pod(pod), UID, self.name, ("mcp",), policies, SESSION)
        return unlink(key), hset(key, sealed(key, record.fields())), pexpire(key, POD_MS)

    def heartbeat(self, beat: int) -> tuple[bytes, ...]:
        """Return what is written each second."""
        facts = NodeFacts(
            version="0.1.0", generation=42, policy_hash="0123456789abcdef", pods=self.pods,
            grants=self.grants, started_at=AT, enforcing=True, policies=self.pods, rejected_policies=0,
            pending=0, last_realized_at=AT, problems=(), upstreams=(),
        )  # fmt: skip
        key = self.keys.heartbeat
        fields = sealed(key, NodeRecord(self.name, SESSION, beat, f"{beat:016x}", AT, facts).fields())
        seen = packed(
            b"HSET", self.keys.nodes, self.name.encode(), b"seen=1795386231545 mac=" + fields[b"mac"]
        )
        return hset(key, fields), pexpire(key, NODE_MS), seen

    def refusal(self, number: int) -> bytes:
        """Return what is written for a blocked lookup."""
        name = f"drop{number}.example.net"
        pod = number % self.pods
        record = BlockedRecord(
            kind="lookup", node=self.name, namespace="obot-mcp", pod=self._pod(pod),
            pod_ip=self._address(pod), name=name, qtype="A", address="", port=None, protocol="",
            reason=f"no rule permits {name} for obot-mcp/{self._pod(pod)}", policy="", rule="", at=AT,
            times=1, session=SESSION, seq=number,
        )  # fmt: skip
        return xadd(self.keys.blocked, sealed(self.keys.blocked, record.fields()), BLOCKED_ENTRIES)

    def resync(self) -> Iterator[bytes]:
        """Yield everything that the node writes into an empty Redis."""
        yield from self.heartbeat(1)
        for pod in range(self.pods):
            yield from self.placed(pod)
        for start in range(0, self.grants, WALKED):
            yield from self.replaced(range(start, min(start + WALKED, self.grants)))
