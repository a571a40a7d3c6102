"""Which pods' packets are known to meet this node's netfilter, from what was asked and what was seen.

Pure. Owns each address's proof and when it is asked for again. Never sends or reads anything
(``enforcer.proving``), and decides nothing about packets. Invariant: nothing counts as proof but a packet
of this very pod, seen by the forward hook since the pod was admitted.

An eBPF program or a filter of tc can take a pod's packets from its interface to another, past all
netfilter; a synthetic packet of the node would not notice. So every pod is asked for a packet to the
outside, now and then and whenever the host's routing may have changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from enforcer.identity import Identity

AGAIN_S = 30.0
"""A proof as old is asked for again."""
TRIES = 5
"""Unanswered questions after which something is concluded."""
REST_S = 5.0
"""Nobody whose answer was seen is asked again sooner, however often the host changes."""
WAITS_S = (0.3, 0.3, 0.6, 1.0, 1.5, 3.0, 5.0, 10.0, 20.0, 30.0)
"""From one question to the next, the longer the more were not answered."""
HEARD_WITHIN_S = 1.2
"""So soon after a question a packet seen is its answer."""
KEPT_S = 600.0
"""A pod that never answers, but whose own traffic was seen, counts as proved for so long."""
UNTRACKED_S = 60.0
NAMED = 3
"""So many pods are named in a sentence."""

State = Literal["pending", "proved", "past", "silent", "untracked", "no way out"]
"""``past``: it answers the node and not the witness; ``no way out``: the node has no route by which its
packets could leave."""

_WORST: tuple[State, ...] = ("past", "untracked", "silent", "pending", "proved", "no way out")
_RANK = {state: rank for rank, state in enumerate(_WORST)}


class Seen(NamedTuple):
    """What the kernel remembers: seconds since it met a packet of an address, and since one untracked."""

    met: Mapping[bytes, float]
    untracked: Mapping[bytes, float]


class _Proof:
    """What is known of one address; instants are monotonic seconds."""

    __slots__ = ("asked", "asked_at", "controlled", "identity", "met_at", "replied", "since", "untracked_at")

    def __init__(self, identity: Identity, now: float) -> None:
        self.identity = identity
        self.since = now
        self.met_at = float("-inf")
        self.untracked_at = float("-inf")
        self.asked = 0
        """Questions since it was met last."""
        self.asked_at = float("-inf")
        self.controlled = False
        """It has answered the node since."""
        self.replied = False
        """It has answered the witness once."""

    def is_concluded(self, now: float) -> bool:
        return self.asked > TRIES or (self.asked == TRIES and now - self.asked_at >= HEARD_WITHIN_S)

    def state(self, now: float) -> State:
        if now - self.untracked_at < UNTRACKED_S:
            return "untracked"
        was_met = self.met_at > float("-inf")
        if not self.is_concluded(now):
            return "proved" if was_met else "pending"
        if self.controlled and (self.replied or not was_met):
            return "past"
        return "proved" if now - self.met_at < KEPT_S else "silent"


class Proofs:
    """The proofs of every admitted address."""

    def __init__(self) -> None:
        self._proofs: dict[bytes, _Proof] = {}
        self._renewed_at = float("-inf")
        self._looked_at = float("-inf")
        self.closed: frozenset[int] = frozenset()
        """Families (4, 6) in which the node has no way to the outside."""

    def keep(self, identities: Iterable[Identity], now: float) -> None:
        """Know who is admitted now; another pod, or the same by another interface, begins anew."""
        old, self._proofs = self._proofs, {}
        for each in identities:
            known = old.get(each.source)
            is_same = known is not None and known.identity == each
            self._proofs[each.source] = known if known and is_same else _Proof(each, now)

    def doubt(self, now: float) -> None:
        """Note that the host may lead packets otherwise from now on: everything is asked again."""
        self._renewed_at = now

    def wants_look(self, now: float) -> bool:
        """Say whether the kernel may know something that is waited for."""
        ago = now - self._looked_at
        for proof in self._proofs.values():
            if proof.asked and (now - proof.asked_at < HEARD_WITHIN_S or ago >= 2.0):
                return True
        return bool(self._proofs) and ago >= 5.0

    def look(self, seen: Seen, now: float) -> None:
        """Take what the kernel remembers now."""
        self._looked_at = now
        for source, proof in self._proofs.items():
            at = now - seen.met.get(source, float("inf"))
            if at > proof.since and at > proof.met_at + 0.01:
                proof.replied |= bool(proof.asked) and -0.05 < at - proof.asked_at < HEARD_WITHIN_S
                proof.met_at, proof.asked, proof.controlled = at, 0, False
            at = now - seen.untracked.get(source, float("inf"))
            if at > proof.since:
                proof.untracked_at = at

    def due(self, now: float, most: int) -> list[bytes]:
        """Return whom to ask now, at most so many, those who wait longest first."""
        due = []
        for source, proof in self._proofs.items():
            if _version(source) in self.closed:
                continue
            is_old = now - proof.met_at >= AGAIN_S or proof.met_at <= self._renewed_at
            wait_s = WAITS_S[min(proof.asked, len(WAITS_S) - 1)] if proof.asked else REST_S
            if proof.asked_at < self._renewed_at:
                wait_s = min(wait_s, REST_S)
            if is_old and now - proof.asked_at >= wait_s:
                due.append((proof.asked_at, source))
        return [source for _, source in sorted(due)[:most]]

    def asked(self, source: bytes, now: float) -> int:
        """Note that it was asked; return how often it was since it was seen last."""
        proof = self._proofs[source]
        proof.asked, proof.asked_at = proof.asked + 1, now
        return proof.asked

    def answered(self, source: bytes) -> None:
        """Note that it answers the node itself."""
        if source in self._proofs:
            self._proofs[source].controlled = True

    def state(self, source: bytes, now: float) -> State:
        """Say what is known of one address that was given to ``keep``."""
        return "no way out" if _version(source) in self.closed else self._proofs[source].state(now)

    def pods(self, now: float) -> dict[str, tuple[State, Identity]]:
        """Return by uid what is known of each pod: the worst of its addresses, and which that is."""
        found: dict[str, tuple[State, Identity]] = {}
        for source, proof in self._proofs.items():
            state, identity = self.state(source, now), proof.identity
            known = found.get(identity.uid)
            if known is None or _RANK[state] < _RANK[known[0]]:
                found[identity.uid] = (state, identity)
        return found


class Findings(NamedTuple):
    """What follows: uids of the proved pods; what keeps the node from enforcing; what else is to be said."""

    proved: frozenset[str] = frozenset()
    doubts: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def findings(
    pods: Mapping[str, tuple[State, Identity]],
    filters: Mapping[str, tuple[str, ...]],
    untracked_by: Iterable[str],
) -> Findings:
    """Word what is known. ``filters``: what of tc is on an interface; ``untracked_by``: chains with NOTRACK.

    A pod that answers nobody keeps the node from enforcing only where there is no pod that is proved:
    else one pod could have the whole node call itself not ready.
    """
    by_state: dict[State, list[Identity]] = {}
    for state, identity in sorted(pods.values(), key=lambda each: each[1].key):
        by_state.setdefault(state, []).append(identity)
    doubts: list[str] = []
    problems: list[str] = []
    if past := by_state.get("past"):
        on = sorted({each for identity in past for each in filters.get(identity.interface, ())})
        by = f" ({', '.join(on[:NAMED])})" if on else ""
        doubts.append(
            f"packets of {_named(past)} do not meet this node's forward hook, so nothing is enforced on"
            f" them: eBPF host routing or a filter of tc{by} takes them past it, or a network policy keeps"
            " them from answering; docs/compatibility.md says what to set"
        )
    if loose := by_state.get("untracked"):
        chains = ", ".join(untracked_by) or "a rule that nf_tables does not list (iptables-legacy, eBPF)"
        doubts.append(
            f"packets of {_named(loose)} come without connection tracking, by {chains}: answers cannot be"
            " told from what is sent, and are dropped; narrow that NOTRACK to what is no pod's"
        )
    if silent := by_state.get("silent"):
        said = f"whether packets of {_named(silent)} meet this node's netfilter is not known: nothing answers"
        is_alone = not by_state.get("proved") and not by_state.get("pending")
        (doubts if is_alone else problems).append(said)
    if shut := by_state.get("no way out"):
        problems.append(
            f"whether packets of {_named(shut)} meet this node's netfilter is not known: the node has no"
            " default route by which they could leave"
        )
    proved = frozenset(uid for uid, (state, _) in pods.items() if state == "proved")
    return Findings(proved, tuple(doubts), tuple(problems))


def _named(pods: list[Identity]) -> str:
    said = ", ".join(f"{each.key} ({each.interface})" for each in pods[:NAMED])
    more = f" and {len(pods) - NAMED} more" if len(pods) > NAMED else ""
    return f"pod{'s' if len(pods) > 1 else ''} {said}{more}"


def _version(source: bytes) -> int:
    return 4 if len(source) == 4 else 6
