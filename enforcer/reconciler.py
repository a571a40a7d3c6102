"""The reconciler: makes the kernel what the snapshot says, and keeps it so.

Owns the order of a change: what is taken away and what is decided again goes to the kernel first, in one
transaction; then the snapshot is in force and published; then the pods that came are admitted, after
what conntrack held for their addresses is gone. Level-triggered: every step starts from the whole
desired state, so that any of them may be repeated. Invariant: nothing here is adopted before the ACK.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from enforcer import adoption, announcements
from enforcer.authority import Authority, admitted_of
from enforcer.bridge import Bridge
from enforcer.bridging import Bridging
from enforcer.clearing import Clearing
from enforcer.desired import Claims, Fixed, Host, claims, desired_elements, identities, known_before
from enforcer.doors import FlowsDoor, HostDoor, KernelDoor, OffLoop
from enforcer.elements import Add, Change, Element
from enforcer.identity import Identity
from enforcer.installation import Installation
from enforcer.journal import Journal, Replayed
from enforcer.kernel import KernelRejected
from enforcer.ledger import ElementKey, Ledger, Past, remember
from enforcer.records import Records
from enforcer.revision import OnRevoke, Revision, close, revise
from policy.snapshot import Snapshot


class Reconciled(NamedTuple):
    """The outcome of a change: whether it is in force, and why not."""

    done: bool
    reason: str = ""


class Reconciler:
    """Brings snapshots into force; see the module. One at a time, on the loop."""

    _deciders: dict[bytes, tuple[object, OnRevoke]]
    """By what everything of an address was decided last."""

    def __init__(
        self,
        *,
        kernel: KernelDoor,
        installation: Installation,
        bridging: Bridging,
        flows: FlowsDoor,
        host: HostDoor,
        ledger: Ledger,
        journal: Journal,
        authority: Authority,
        records: Records,
        fixed: Fixed,
        on_revoke: OnRevoke,
        off_loop: OffLoop,
        now: Callable[[], float],
        published: Callable[[Snapshot], None],
        admitted: Callable[[], None],
    ) -> None:
        self._kernel = kernel
        self._installation = installation
        self._bridging = bridging
        self._host_door = host
        self._ledger = ledger
        self._journal = journal
        self._authority = authority
        self._records = records
        self.fixed = fixed
        self.on_revoke: OnRevoke = on_revoke
        self._now = now
        self._published = published
        self._admitted = admitted
        self._identities: dict[bytes, Identity] = {}
        self._deciders = {}
        self._clearing = Clearing(flows, off_loop, self._cleared)
        self._host = Host({}, ())
        self._interfaces: dict[bytes, str] = {}
        self._around: tuple[tuple[str, ...], tuple[Bridge, ...]] | None = None
        """What the host said since links or routes last changed; but bridges learn addresses without that."""
        self.portless: dict[bytes, str] = {}
        """Addresses that are behind a bridge, at no port that is known."""
        self._replayed: Replayed | None = None
        self.snapshot: Snapshot | None = None
        self.coming: frozenset[bytes] = frozenset()
        self.believes_new = True
        """False while the source cannot be read: who was not admitted before may be another by now."""
        self.trouble = ""
        """Why pods that came are not admitted."""
        self.revoked_count = self.kernel_errors = 0

    # --- start ---------------------------------------------------------------------------------

    def begin(self, replayed: Replayed) -> None:
        """Before anything was loaded: keep what an earlier enforcer left, or close everything.

        ``KernelRejected`` if the kernel cannot do the least.
        """
        self._replayed = replayed
        self._bridging.begin()
        if not self._installation.begin() and not self._installation.is_there:
            self._installation.build(self._host_door.uplinks())
        if self._installation.is_built:
            self._installation.raise_guard()

    # --- snapshot ------------------------------------------------------------------------------

    def apply(self, snapshot: Snapshot) -> Reconciled:
        """Bring a snapshot into force. On refusal of the kernel everything stays as it was."""
        claimed = claims(snapshot, self.fixed.node)
        return self._brought(snapshot, claimed, self._look_at_host(claimed))

    def _brought(self, snapshot: Snapshot, claimed: Claims, host: Host) -> Reconciled:
        try:
            self._apply(snapshot, claimed, host)
        except KernelRejected as refused:
            self.kernel_errors += 1
            self._records.tell("kernel.refused", "error", reason=str(refused))
            return Reconciled(done=False, reason=f"the kernel refused the change: {refused}")
        return Reconciled(done=True)

    def host_changed(self, *, forget: bool = True) -> None:
        """Interfaces or (``forget``) routes changed: look again; whatever follows from it is done."""
        if self.snapshot is None:
            return
        claimed = claims(self.snapshot, self.fixed.node)
        self._interfaces = {} if forget else self._interfaces
        self._around = None
        host = self._look_at_host(claimed)
        if host != self._host:
            self._brought(self.snapshot, claimed, host)
        elif self._replayed is None:
            self._bring_bridges(claimed, host)

    def look_for_ports(self) -> None:
        """Look again while a pod is behind a bridge and nobody knows at which port."""
        if self.portless:
            self.host_changed(forget=False)

    def _bring_bridges(self, claimed: Claims, host: Host, ready: Iterable[str] | None = None) -> None:
        pods = {source: source in claimed.governed for source in claimed.pods}
        try:
            self._bridging.bring(pods, host.ports, ready)
        except KernelRejected as refused:
            self.kernel_errors += 1
            self._records.tell("kernel.refused", "error", reason=str(refused))

    def _look_at_host(self, claimed: Claims) -> Host:
        if self._around is None or self._host.bridges:
            self._around = tuple(sorted(self._host_door.uplinks())), tuple(self._host_door.bridges())
        (uplinks, found), known = self._around, self._interfaces
        known.update(self._host_door.pod_interfaces(each for each in claimed.pods if each not in known))
        interfaces = {source: known[source] for source in claimed.pods if source in known}
        bridges = self._bridging.look(found, uplinks)
        ports = self._bridging.ports(interfaces)
        self.portless = {
            source: name for source, name in interfaces.items() if name in bridges and source not in ports
        }
        return Host(interfaces, uplinks, bridges, {s: p for s, p in ports.items() if s in interfaces})

    def _apply(self, snapshot: Snapshot, claimed: Claims, host: Host) -> None:
        now = self._now()
        self._bring_bridges(claimed, host, self._installation.bridges)
        ports = {source: port for source, port in host.ports.items() if self._bridging.holds(source, port)}
        refused = len(host.ports) - len(ports)
        host = host._replace(ports=ports)
        wanted = identities(claimed, host, self.fixed.boot_id)
        if not self.believes_new:
            replayed = self._replayed.admitted if self._replayed is not None else frozenset()
            wanted = known_before(wanted, self._identities, replayed)
        if self._replayed is not None:
            self._first(snapshot, claimed, host, wanted, now)
        else:
            self._later(snapshot, claimed, host, wanted, now)
        if refused:
            self.trouble = (
                f"{refused} addresses are not admitted: the kernel refused them between the ports of bridges"
                " (kernel.refused in the log says why); tried again"
            )
        self._bring_bridges(claimed, host)

    def _later(
        self,
        snapshot: Snapshot,
        claimed: Claims,
        host: Host,
        wanted: Mapping[bytes, Identity],
        now: float,
    ) -> None:
        """Bring into force what follows the first."""
        coming = frozenset(source for source, each in wanted.items() if self._identities.get(source) != each)
        gone = [each for source, each in self._identities.items() if wanted.get(source) != each]
        revisions = [close(self._ledger.accounts[each.source], now) for each in gone]
        revisions += self._revisions(
            snapshot, {s: each for s, each in wanted.items() if s not in coming}, now
        )
        desired = desired_elements(snapshot, claimed, host, fixed=self.fixed, admitted=wanted, coming=coming)
        taken, changes = _joined(revisions)
        self._installation.commit(desired, taken, changes)
        self._in_force(snapshot, host, revisions, gone, now)
        self._admit(snapshot, claimed, wanted, coming, [each.source for each in gone])

    def _revisions(
        self,
        snapshot: Snapshot,
        staying: Mapping[bytes, Identity],
        now: float,
        replayed: Replayed | None = None,
    ) -> list[Revision]:
        revisions = []
        for source, identity in staying.items():
            account, pod = self._ledger.accounts[source], snapshot.pod(identity.key)
            if pod is not None and self._deciders.get(source) != (snapshot.decider(pod), self.on_revoke):
                answers = replayed.answers.get(account.tag, {}) if replayed else None
                revisions.append(
                    revise(account, pod, snapshot, now=now, on_revoke=self.on_revoke, answers=answers)
                )
        return revisions

    def _in_force(
        self, snapshot: Snapshot, host: Host, revisions: list[Revision], gone: list[Identity], now: float
    ) -> None:
        """Adopt what the kernel acknowledged, then let the snapshot decide and be published."""
        for revision in revisions:
            self._adopt(revision, now)
            identity = revision.account.identity
            if (pod := snapshot.pod(identity.key)) is not None:
                self._deciders[identity.source] = snapshot.decider(pod), self.on_revoke
        for identity in gone:
            self._deciders.pop(identity.source, None)
            self._ledger.close_account(identity.source)
            self._journal.gone(identity.tag())
            self._identities.pop(identity.source, None)
        self._host = host
        self.snapshot = self._authority.snapshot = snapshot
        self._authority.admitted = admitted_of(self._ledger.accounts.values())
        self._journal.published(snapshot.generation)
        self._published(snapshot)
        announcements.revocations(self._records, revisions, snapshot.generation)
        for identity in gone:
            announcements.pod(self._records, "pod.gone", identity)

    def _adopt(self, revision: Revision, now: float) -> None:
        account = revision.account
        self._ledger.replace(account, revision.holdings)
        self.revoked_count += len(revision.revoked)
        for holding, reasons, _ in revision.revoked:
            remember(account, holding.destination, Past(min(reasons), now, revoked=True))
            still = account.held(holding.destination)
            left = {reason.name for each in still for reason in each.reasons}
            names = {reason.name for reason in reasons} - left
            self._journal.revoked(account.tag, holding.destination, sorted(names))

    # --- the first snapshot ----------------------------------------------------------------------

    def _first(
        self,
        snapshot: Snapshot,
        claimed: Claims,
        host: Host,
        wanted: Mapping[bytes, Identity],
        now: float,
    ) -> None:
        """Adopt what an earlier enforcer left, decide all of it again, and settle."""
        replayed = self._replayed
        assert replayed is not None  # noqa: S101 - _apply's condition
        staying = {source: each for source, each in wanted.items() if each.tag() in replayed.admitted}
        for source, identity in staying.items():
            self._ledger.open_account(identity)
            self._identities[source] = identity
        adopted = adoption.Adopted([], [], 0)
        if self._installation.is_there:
            adopted = self._left_behind(replayed, now)
        revisions = self._revisions(snapshot, staying, now, replayed)
        coming = frozenset(source for source in wanted if source not in staying)
        desired = desired_elements(snapshot, claimed, host, fixed=self.fixed, admitted=wanted, coming=coming)
        if self._installation.is_built:
            taken, changes = _joined(revisions)
            halves: list[Change] = [Add(Element(*key)) for key in adopted.halves if key not in set(taken)]
            self._installation.commit(desired, [*adopted.unexplained, *taken], [*halves, *changes])
            self._in_force(snapshot, host, revisions, [], now)
            self._installation.settle()
        else:
            self._installation.build(host.uplinks)
            for revision in revisions:
                self._ledger.replace(revision.account, revision.holdings)
            self._installation.refill(desired, self._ledger, now)
            self._in_force(snapshot, host, revisions, [], now)
            self._installation.raise_guard()
        self._replayed = None
        if adopted.explained or adopted.unexplained:
            fields = {"grants": adopted.explained, "unexplained": len(adopted.unexplained)}
            self._records.tell("enforcer.adopted", fields=fields)
        self._admit(snapshot, claimed, wanted, coming, [])

    def _left_behind(self, replayed: Replayed, now: float) -> adoption.Adopted:
        """Read what is there; sets that an older structure does not have hold nothing."""
        try:
            return adoption.adopt(self._kernel, self._ledger, replayed.answers, now)
        except KernelRejected:
            return adoption.Adopted([], [], 0)

    # --- pods that came --------------------------------------------------------------------------

    def _admit(
        self,
        snapshot: Snapshot,
        claimed: Claims,
        wanted: Mapping[bytes, Identity],
        coming: frozenset[bytes],
        gone: list[bytes],
    ) -> None:
        """Have old flows deleted; then, unless something newer says otherwise, admit who came."""
        self._waiting = snapshot, claimed, wanted
        self.coming = coming
        self.trouble = self.trouble if coming else ""
        self._clearing.follow({source: wanted[source] for source in coming}, gone)

    def _cleared(self, sources: frozenset[bytes], trouble: str) -> None:
        """Admit those whose flows are deleted, and who are coming still."""
        if trouble:
            self.trouble = trouble
            self._records.tell("pods.not_admitted", "error", reason=trouble)
        elif sources:
            self._admitted_now(sources, *self._waiting)

    def retry(self) -> None:
        """Try again to admit those whose admission failed."""
        if self.trouble and self.snapshot is not None:
            self.apply(self.snapshot)

    def _admitted_now(
        self, sources: frozenset[bytes], snapshot: Snapshot, claimed: Claims, wanted: Mapping[bytes, Identity]
    ) -> None:
        coming = self.coming - sources
        desired = desired_elements(
            snapshot, claimed, self._host, fixed=self.fixed, admitted=wanted, coming=coming
        )
        try:
            self._installation.commit(desired, (), ())
        except KernelRejected as refused:
            self.kernel_errors += 1
            self._clearing.again(sources)
            self.trouble = f"the kernel refused to admit pods: {refused}"
            self._records.tell("kernel.refused", "error", reason=str(refused))
            return
        self.coming = coming
        self.trouble = self.trouble if coming else ""
        for source in sources:
            identity = self._identities[source] = wanted[source]
            account = self._ledger.open_account(identity)
            self._journal.admitted(account.tag)
            announcements.pod(self._records, "pod.seen", identity)
        self._authority.admitted = admitted_of(self._ledger.accounts.values())
        self._admitted()

    # --- drift -----------------------------------------------------------------------------------

    def repair(self, *, deep: bool) -> str:
        """Put right what somebody changed, grants too if ``deep``. Returns what was wrong, "" if nothing."""
        snapshot = self.snapshot
        if snapshot is None:
            return ""
        now = self._now()
        wrong: list[str] = []
        claimed = claims(snapshot, self.fixed.node)
        identified = {s: each for s, each in self._identities.items() if s in claimed.pods}
        desired = desired_elements(
            snapshot, claimed, self._host, fixed=self.fixed, admitted=identified, coming=self.coming
        )
        if self._bridging.restore(deep=deep):
            wrong.append("the bridge table was changed or gone")
        if not self._installation.is_guarded:
            wrong.append("the guard table was gone")
            self._installation.raise_guard()
        if not self._installation.is_built:
            wrong.append("the policy table was changed or gone")
            self._installation.build(self._host.uplinks)
            self._installation.refill(desired, self._ledger, now)
        else:
            self._installation.read_again()
            if self._installation.node != desired:
                wrong.append("the node's sets were changed")
                self._installation.commit(desired, (), ())
            if deep and self._installation.repair_grants(self._ledger, now):
                wrong.append("grants were changed")
            self._installation.settle()
        if wrong:
            self._installation.repairs += 1
            self._records.tell("enforcer.repaired", "warning", reason="; ".join(wrong))
        return "; ".join(wrong)


def _joined(revisions: list[Revision]) -> tuple[list[ElementKey], list[Change]]:
    taken = [key for revision in revisions for key in revision.taken]
    return taken, [change for revision in revisions for change in revision.changes]
