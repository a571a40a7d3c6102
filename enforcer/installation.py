"""What is installed: the tables, the node's sets, and how they are brought back.

Owns the knowledge of what the kernel holds beside grants, which changes only after its ACK, and
the structure's fingerprint. Never decides what is wanted. Invariant: while elements are being
refilled the kernel is not ``settled``: it drops what it would otherwise reset.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import msgspec

from enforcer.doors import KernelDoor
from enforcer.elements import (
    GRANT_SETS,
    GUARD_SETS,
    NODE_SETS,
    Add,
    Change,
    Element,
    interface_key,
    live_twin,
    settled,
)
from enforcer.identity import comment
from enforcer.ledger import ElementKey, Ledger, latest_reason
from enforcer.plan import Desired, absence, as_installed, node_plan
from enforcer.ruleset import TABLE, Layout, guard, structure

PIECE = 20_000
"""Changes in one transaction of a refill."""


class _Built(msgspec.Struct, frozen=True):
    """What ``structure`` text was installed, and how the kernel lists it."""

    text: str
    fingerprint: str


class Installation:
    """The tables of this node in one kernel."""

    def __init__(self, kernel: KernelDoor, layout: Layout, remembered: Path, *, guards: bool) -> None:
        self._kernel = kernel
        self._structure = structure(layout)
        self._guard = guard(layout)
        self._guards = guards
        self._remembered = remembered
        self._fingerprint = ""
        self._guard_fingerprint = ""
        self.node: Desired = {}
        self._guarded: Desired = {}
        self.is_settled = False
        self.repairs = 0

    def begin(self) -> bool:
        """Take over tables that an earlier enforcer built alike. False: there are none such."""
        said = hashlib.sha256(self._structure.encode()).hexdigest()
        try:
            built = msgspec.json.decode(self._remembered.read_bytes(), type=_Built)
        except (OSError, msgspec.MsgspecError):
            return False
        if built.text != said or built.fingerprint != self._kernel.fingerprint():
            return False
        self._fingerprint = built.fingerprint
        self.node = self._read_node()
        self.is_settled = bool(self._kernel.elements("settled"))
        return True

    @property
    def is_there(self) -> bool:
        """Say whether some policy table is in the kernel, ours of today or not."""
        return bool(self._kernel.fingerprint())

    @property
    def bridges(self) -> frozenset[str]:
        """Name the bridges that the policy table takes for pods'."""
        return frozenset(key.rstrip(b"\0").decode() for key in self.node.get("bridges", {}))

    def build(self, uplinks: Iterable[str]) -> None:
        """Install the structure; every set but that of uplinks is empty afterwards.

        Without it a veth that is the node's own uplink would be taken for a pod's, and the node would
        hear nobody until the first snapshot. ``KernelRejected``: nothing happened.
        """
        known = sorted(name for name in uplinks if re.fullmatch(r"[\w.@:-]{1,15}", name, re.ASCII))
        said = ", ".join(f'"{name}"' for name in known)
        filled = f"add element inet {TABLE} uplinks {{ {said} }}\n" if known else ""
        self._kernel.install(self._structure + filled)
        keys = {interface_key(name): Element("uplinks", interface_key(name)) for name in known}
        self.node, self.is_settled = {"uplinks": keys}, False
        self._fingerprint = self._kernel.fingerprint()
        built = _Built(hashlib.sha256(self._structure.encode()).hexdigest(), self._fingerprint)
        self._remembered.write_bytes(msgspec.json.encode(built))

    def commit(self, desired: Desired, taken: Iterable[ElementKey], changes: Sequence[Change]) -> None:
        """Make the node's sets ``desired``, take grants away and change others, in one transaction."""
        plan = [*node_plan(desired, self.node), *absence(taken), *changes]
        self._kernel.commit(plan)
        self.node = desired
        self._guard_sets()

    def settle(self) -> None:
        """Let refusals be told to their senders: everything that is open was put in."""
        if not self.is_settled:
            self._kernel.commit([Add(element) for element in settled()])
            self.is_settled = True

    def refill(self, desired: Desired, ledger: Ledger, now: float) -> None:
        """Fill the empty sets of a structure just built, in pieces, and settle."""
        self.commit(desired, (), ())
        elements = _refill(ledger, now)
        while piece := list(islice(elements, PIECE)):
            self._kernel.commit([Add(element) for element in piece])
        self.settle()

    def read_again(self) -> None:
        """Believe the kernel about the node's sets (somebody may have changed them)."""
        self.node = self._read_node()
        self.is_settled = bool(self._kernel.elements("settled"))

    def repair_grants(self, ledger: Ledger, now: float) -> int:
        """Put back grants that somebody took, take away what somebody put. Returns how many."""
        wanted = {(each.set, each.key): each for each in _refill(ledger, now)}
        foreign: list[ElementKey] = []
        for name in (*GRANT_SETS, *map(live_twin, GRANT_SETS)):
            foreign += [
                (name, there.key, b"")
                for there in self._kernel.elements(name)
                if wanted.pop((name, there.key), None) is None
            ]
        changes: list[Change] = [*absence(foreign), *(Add(element) for element in wanted.values())]
        self._kernel.commit(changes)
        return len(foreign) + len(wanted)

    @property
    def doubts(self) -> list[str]:
        """Say what is not as it should be; empty: structure, guard and switch stand."""
        found = []
        if not self.is_built:
            found.append("the policy table is not in the kernel as it was built")
        if not self.is_guarded:
            found.append("the guard table is gone")
        if not self.is_settled:
            found.append("the kernel's sets are being filled")
        return found

    def change(self, layout: Layout) -> bool:
        """Take another layout; True: the tables have to be built anew (``Reconciler.repair`` does)."""
        built, guarded = structure(layout), guard(layout)
        if (built, guarded) == (self._structure, self._guard):
            return False
        self._structure, self._guard = built, guarded
        self._fingerprint = self._guard_fingerprint = ""
        return True

    @property
    def is_built(self) -> bool:
        """Say whether the policy table is as it was built."""
        return bool(self._fingerprint) and self._kernel.fingerprint() == self._fingerprint

    @property
    def is_guarded(self) -> bool:
        """Say whether the guard stands, where this kernel can have one."""
        if not self._guards:
            return True
        return bool(self._guard_fingerprint) and self._kernel.guard_fingerprint() == self._guard_fingerprint

    def raise_guard(self) -> None:
        """Make the guard table anew and fill its sets."""
        if not self._guards:
            return
        self._kernel.install_guard(self._guard)
        self._guarded = {}
        self._guard_fingerprint = self._kernel.guard_fingerprint()
        self._guard_sets()

    def _guard_sets(self) -> None:
        if not self._guard_fingerprint:
            return
        wanted = {name: self.node.get(name, {}) for name in GUARD_SETS}
        self._kernel.commit_guard(node_plan(wanted, self._guarded))
        self._guarded = wanted

    def _read_node(self) -> dict[str, dict[bytes, Element]]:
        return {name: as_installed(name, self._kernel.elements(name)) for name in NODE_SETS}


def _refill(ledger: Ledger, now: float) -> Iterator[Element]:
    """Return every element that the ledger's holdings stand for."""
    for account in ledger.accounts.values():
        for holding in account.holdings():
            reason = latest_reason(holding.reasons)
            said = comment(account.tag, reason.policy, reason.rule, reason.name)
            name, key, end = holding.key
            yield Element(live_twin(name), key, end, 0, said)
            if holding.until > now:
                yield Element(name, key, end, int((holding.until - now) * 1000) + 1, said)
