"""What a decision says: verdicts, permits and boxes as values.

Owns their shapes. Never decides. Invariant: each names the policy and the rule behind it and, if
it opens nothing, a reason that a person understands.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

Verdict = Literal["permit", "deny"]


class Permit(NamedTuple):
    """One permitted interval of one address.

    ``protocol`` is tcp, udp, icmp, or any (all protocols, all ports); ports are 0 to 65535 for
    any port, for icmp and for any. ``policy`` is ``namespace/name``, or ``ceiling``.
    """

    protocol: str
    first: int
    last: int
    policy: str
    rule: str

    def has(self, protocol: str, port: int | None) -> bool:
        """Say whether a port (None: some port) of a protocol is permitted."""
        if self.protocol == "any":
            return True
        if self.protocol != protocol:
            return False
        return protocol == "icmp" or port is None or self.first <= port <= self.last


class AddressAccess(NamedTuple):
    """What one pod may do with one address of one name; without permits: why not."""

    permits: tuple[Permit, ...]
    reason: str
    policy: str
    rule: str


class StaticBox(NamedTuple):
    """Addresses and ports that are permitted without DNS; disjoint among one pod's."""

    first: bytes
    last: bytes
    protocol: str
    first_port: int
    last_port: int
    policy: str
    rule: str


class Watched(NamedTuple):
    """What a rule with ``watch: true`` would have decided."""

    policy: str
    rule: str
    verdict: Verdict


class Decision(msgspec.Struct, frozen=True):
    """The outcome of ``Snapshot.decide``. ``nearest`` is the closest pattern that did not match.

    ``explicit``: a deny (or the ceiling) stands behind it, not only that nothing permits it.
    """

    verdict: Verdict
    policy: str
    rule: str
    reason: str
    nearest: str | None = None
    explicit: bool = False

    @property
    def permitted(self) -> bool:
        """Say whether the verdict is permit."""
        return self.verdict == "permit"
