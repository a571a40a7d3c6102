"""The proofs on this node: who asks the pods, reads what the kernel saw of them, and tells what follows.

Owns the questions that are open. Decides nothing (``enforcer.proofs``). Invariant: whatever a pod
answers or does not, no rule changes by it: only what is said of the node and of the pod.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Literal, Protocol

from enforcer.doors import KernelDoor
from enforcer.identity import Identity
from enforcer.kernel import KernelRejected
from enforcer.proofs import NAMED, Findings, Proofs, Seen, State, findings
from enforcer.records import Records
from enforcer.witness import REMEMBERED_S

TICK_S = 0.25
QUESTIONS_A_TICK = 32
SOON_S = 0.02
"""Until who was admitted is asked: kernels count in ticks of 10 ms, and what they met before is no answer."""
FOUND_OUT_S = 10.0
"""So long a node that begins, and one that admits nobody, may take to find out."""
CONTROL_FROM = 3
"""From this unanswered question on, the node asks for itself as well."""


class OpenQuestion(Protocol):
    """What the node asked for itself (``probe.Control``)."""

    def is_answered(self) -> bool:
        """Say whether there is an answer by now."""

    def close(self) -> None:
        """Ask no more."""


class Asking(Protocol):
    """How pods are asked (``enforcer.probe``); ``OSError``: this one cannot be asked now."""

    def ask(self, pod: bytes, *, by: Literal["tcp", "udp"]) -> None:
        """Have the pod answer to the outside."""

    def control(self, pod: bytes) -> OpenQuestion:
        """Have the pod answer the node."""


class Ways(Protocol):
    """What the host says (``enforcer.routes.Routes``)."""

    def closed_families(self) -> frozenset[int]:
        """Return the families (4, 6) in which there is no way to the outside."""

    def filters(self, interface: str) -> tuple[str, ...]:
        """Return what of tc is on an interface."""


class Proving:
    """One node's proofs, kept up to date by ``tick``."""

    def __init__(
        self,
        *,
        kernel: KernelDoor,
        asking: Asking,
        ways: Ways,
        records: Records,
        admitted: Callable[[], Iterable[Identity]],
        awaited: Callable[[], int],
        untracked_by: Callable[[], Iterable[str]],
        now: Callable[[], float],
        later: Callable[[float, Callable[[], None]], object],
        changed: Callable[[], None],
    ) -> None:
        """``later`` has the loop make a call after so many seconds."""
        self._kernel = kernel
        self._asking = asking
        self._ways = ways
        self._records = records
        self._admitted = admitted
        self._awaited = awaited
        self._untracked_by = untracked_by
        self._now = now
        self._later = later
        self._changed = changed
        self._proofs = Proofs()
        self._controls: dict[bytes, OpenQuestion] = {}
        self._began_at = now()
        self._alone_since = float("inf")
        self._is_stale = True
        self._states: dict[str, State] = {}
        self.is_required = True
        """What is not proved keeps the node from enforcing; else it is a problem that is said."""
        self.findings = Findings()

    def pods_changed(self) -> None:
        """Look again who is admitted; who is new is asked soon: a node that starts waits for it."""
        now = self._now()
        self._proofs.keep(self._admitted(), now)
        self._conclude(now)
        if self._proofs.due(now, 1):
            self._later(SOON_S, self.tick)

    def host_changed(self) -> None:
        """Ask again: the host may lead packets otherwise now."""
        self._proofs.doubt(self._now())
        self._is_stale = True

    def ways_changed(self) -> None:
        """Look again in which families there is a way to the outside."""
        self._is_stale = True

    def close(self) -> None:
        """Ask nobody any more."""
        for control in self._controls.values():
            control.close()
        self._controls.clear()

    def tick(self) -> None:
        """Ask whom it is time to ask, read what is waited for, and say what follows."""
        now = self._now()
        if self._is_stale:
            self._is_stale = False
            self._proofs.closed = self._ways.closed_families()
        for source, control in list(self._controls.items()):
            if control.is_answered():
                self._proofs.answered(source)
                self._controls.pop(source).close()
        for source in self._proofs.due(now, QUESTIONS_A_TICK):
            self._ask(source, now)
        now = self._now()
        if self._proofs.wants_look(now):  # most answers are there already: a veth is a function call
            self._look(now)
            self._conclude(now)

    @property
    def enforced(self) -> frozenset[str]:
        """Uids of the pods of which it is known, or nobody wants to know, that policy is enforced on them."""
        if self.is_required:
            return self.findings.proved
        return frozenset(identity.uid for identity in self._admitted())

    @property
    def doubts(self) -> tuple[str, ...]:
        """What keeps the node from enforcing; where nobody is proved, that of pods that are not admitted."""
        if not self.is_required:
            return ()
        if self.findings.doubts or self.findings.proved:
            self._alone_since = float("inf")
            return self.findings.doubts
        now, awaited = self._now(), self._awaited()
        self._alone_since = min(self._alone_since, now) if awaited and not self._states else float("inf")
        is_pending = bool(awaited) or "pending" in self._states.values()
        if is_pending and now - self._began_at < FOUND_OUT_S:
            return ("it is being found out whether pods' packets meet this node's netfilter",)
        if now - self._alone_since >= FOUND_OUT_S:
            return (
                f"none of this node's {awaited} governed pods is admitted, so it is not known of any that its"
                " packets meet this node's netfilter",
            )
        return ()

    @property
    def problems(self) -> tuple[str, ...]:
        """What is said beside."""
        found = self.findings
        return found.problems if self.is_required else (*found.doubts, *found.problems)

    def _look(self, now: float) -> None:
        try:
            seen = Seen(self._ages("met4", "met6"), self._ages("untracked4", "untracked6"))
        except KernelRejected:
            return  # the table is gone: that is seen and said elsewhere
        self._proofs.look(seen, now)

    def _ages(self, *names: str) -> dict[bytes, float]:
        return {
            each.key: REMEMBERED_S - (each.expires_ms or 0) / 1000
            for name in names
            for each in self._kernel.elements(name)
        }

    def _ask(self, source: bytes, now: float) -> None:
        asked = self._proofs.asked(source, now)
        if source in self._controls:
            self._controls.pop(source).close()
        with suppress(OSError):  # others' rules forbid it, the pod is just going: what is seen counts
            self._asking.ask(source, by="tcp" if asked % 2 else "udp")
        if asked >= CONTROL_FROM:
            with suppress(OSError):
                self._controls[source] = self._asking.control(source)

    def _conclude(self, now: float) -> None:
        pods = self._proofs.pods(now)
        states = {uid: state for uid, (state, _) in pods.items()}
        if states == self._states:
            return
        self._states = states
        chains = self._untracked_by() if "untracked" in states.values() else ()
        found = findings(pods, self._culprits(pods), chains)
        if found == self.findings:
            return
        before, self.findings = self.findings, found
        for said in found.doubts:
            if said not in before.doubts:
                self._records.tell("pods.unproved", "error", reason=said)
        if before.doubts and not found.doubts:
            self._records.tell("pods.proved")
        self._changed()

    def _culprits(self, pods: Mapping[str, tuple[str, Identity]]) -> dict[str, tuple[str, ...]]:
        past = sorted(identity.interface for state, identity in pods.values() if state == "past")
        return {interface: self._ways.filters(interface) for interface in past[:NAMED]}
