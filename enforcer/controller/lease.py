"""Which of several replicas writes: what a Lease says, and what follows.

Pure. Owns the rules of taking and keeping a Lease. Never compares clocks of two machines: how long a holder
has been silent is measured from when its last sign of life was seen here. Invariant: who has not renewed
for ``KEEP_S`` does not write, and nobody takes a Lease before ``LEASE_S`` without a sign.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

Json = dict[str, Any]

LEASE_S: Final = 30
RENEW_S: Final = 8.0
KEEP_S: Final = 20.0
"""``LEASE_S`` less the longest that a request may take, twice."""
RETRY_S: Final = 2.0
LOOK_S: Final = 5.0
"""How often one that waits looks."""


class Sign(NamedTuple):
    """A holder's sign of life."""

    holder: str
    renewed: object
    changes: object


class Watcher:
    """One replica's view of the Lease; every ``now`` is monotonic."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self._sign: Sign | None = None
        self._seen_at = float("-inf")
        self._renewed_at = float("-inf")
        self._retry_at = float("-inf")
        self.is_leading = False

    def may_write(self, now: float) -> bool:
        """Say whether it leads, and has said so recently enough."""
        return self.is_leading and now < self._renewed_at + KEEP_S

    def look_at(self, now: float) -> float:
        """Return when to look at the Lease again."""
        return max(self._renewed_at + RENEW_S, self._retry_at) if self.is_leading else now + LOOK_S

    def wanted(self, lease: Json | None, now: float, at: str) -> Json | None:
        """Return the Lease's ``spec`` to write, or None where another holds it."""
        spec = lease.get("spec") if lease is not None else None
        old: Json = spec if isinstance(spec, dict) else {}
        sign = Sign(str(old.get("holderIdentity") or ""), old.get("renewTime"), old.get("leaseTransitions"))
        if sign != self._sign:
            self._sign, self._seen_at = sign, now
        is_ours = sign.holder == self.identity
        if sign.holder and not is_ours and now < self._seen_at + _seconds(old):
            self.is_leading = False
            return None
        count = sign.changes if type(sign.changes) is int and 0 <= sign.changes < 1 << 30 else 0
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": LEASE_S,
            "acquireTime": old.get("acquireTime") if is_ours and old.get("acquireTime") else at,
            "renewTime": at,
            "leaseTransitions": count if is_ours or not sign.holder else count + 1,
        }

    def wrote(self, asked_at: float) -> None:
        """The Lease was written, by a request that began at ``asked_at``."""
        self.is_leading = True
        self._renewed_at = asked_at

    def lost(self, now: float) -> None:
        """It could not be written: who led may go on until ``KEEP_S`` has passed."""
        self._retry_at = now + RETRY_S
        if now >= self._renewed_at + KEEP_S:
            self.is_leading = False

    def released(self, lease: Json) -> Json | None:
        """Return the ``spec`` by which it gives up the Lease; None if that is not its own."""
        spec = lease.get("spec")
        if not isinstance(spec, dict) or spec.get("holderIdentity") != self.identity:
            return None
        self.is_leading = False
        return spec | {"holderIdentity": "", "leaseDurationSeconds": 1}


def _seconds(spec: Json) -> float:
    """Return how long the holder asked to be trusted; within reason."""
    value = spec.get("leaseDurationSeconds")
    return float(min(max(value, 1), 300)) if type(value) is int else float(LEASE_S)
