"""Our tables in the kernel: structure by libnftables, elements by netlink, both acknowledged.

The one door to libnftables. Owns the sockets, the guard table's life (it goes with this object) and
the monitor. Never decides what should be there. Invariant: a call that returned was acknowledged
by the kernel; one that raised changed nothing.
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import os
import struct
from collections.abc import Sequence
from typing import Literal, NamedTuple

import nftables

from enforcer import bridge_batch, foreign, transaction
from enforcer.bridge_sets import Turn
from enforcer.elements import Change, Element, InstalledElement, Remove, Renew
from enforcer.layout import BRIDGE_TABLE, GUARD_TABLE, TABLE
from enforcer.netlink import (
    NETLINK_NETFILTER,
    NLMSG_ERROR,
    Message,
    NetlinkRefused,
    NetlinkSocket,
    attributes,
    refusal,
)
from enforcer.ways import Ended, Grant, changes_of

_GROUP_NFTABLES = 7
_MONITOR_BYTES = 8 << 20
_DUMP_BYTES = 4 << 20

Event = Literal["gone", "changed", "guard gone", "offload", "lost"]
"""What the monitor saw: our table deleted, or it or the bridges' changed by another; the guard deleted;
somebody's flowtable come or gone; or notifications lost (ENOBUFS: reconcile now)."""


class KernelRejected(OSError):
    """The kernel refused a transaction; nothing of it was done.

    ``errno`` is the kernel's (ENFILE: a set is full, expired elements counted; ENOENT: deleted
    something that is not there, or the table is gone; EEXIST: overlap in an interval set).
    ``index`` is the change it points at, -1 if none.
    """

    def __init__(self, number: int, index: int = -1, words: str = "") -> None:
        """``words`` are the kernel's or libnftables' own."""
        super().__init__(number, words or os.strerror(number))
        self.index = index


class Capabilities(NamedTuple):
    """What this kernel does, found by trying. ``renews``: an element's expiration can be set anew.
    ``owns``: a table can be tied to the socket that made it (no guard without)."""

    renews: bool
    owns: bool


class Kernel:
    """The real kernel. One thread only; ``elements`` and ``fingerprint`` may take milliseconds.

    ``table`` and ``guard_table`` are replaced by tests and by ``probe`` alone.
    """

    def __init__(self, table: str = TABLE, guard_table: str = GUARD_TABLE) -> None:
        """OSError if netlink is not permitted here (CAP_NET_ADMIN) or not there."""
        self._table = table
        self._guard_table = guard_table
        self._socket = NetlinkSocket(NETLINK_NETFILTER, receive_bytes=_DUMP_BYTES)
        self._nft = nftables.Nftables()
        self._guard: nftables.Nftables | None = None
        self._monitor: NetlinkSocket | None = None
        self._own_process = 0
        self._renews = False

    def close(self) -> None:
        """Close all sockets; the guard table goes, the policy table stays."""
        self._socket.close()
        self._guard = None
        if self._monitor is not None:
            self._monitor.close()

    def commit(self, changes: Sequence[Change]) -> None:
        """Make all changes in one transaction and return after the kernel's acknowledgement.

        KernelRejected: none was made. Nothing to do is no transaction.
        """
        if not changes:
            return
        first = self._socket.next_seq(2 * len(changes) + 4)
        sent = transaction.batch(self._table, changes, first, renews=self._renews)
        self._exchange(sent)

    def commit_grants(self, grants: Sequence[Grant]) -> None:
        """As ``commit`` of ``ways.changes_of(grants)``, at half its cost; a refusal names no change."""
        if not self._renews and any(is_prolonged for *_, is_prolonged in grants):
            self.commit(changes_of(grants))
        elif grants:
            first = self._socket.next_seq(2 * len(grants) + 4)
            self._exchange(transaction.grants(self._table, grants, first))

    def commit_ends(self, ended: Sequence[Ended]) -> None:
        """As ``commit`` of the absence of these live elements; a refusal names no change."""
        if ended:
            first = self._socket.next_seq(4 * len(ended) + 4)
            self._exchange(transaction.ends(self._table, ended, first))

    def commit_bridge(self, turns: Sequence[Turn]) -> None:
        """As ``commit`` for the sets of the table in the bridge family; a refusal names no change."""
        if turns:
            first = self._socket.next_seq(bridge_batch.messages_of(turns))
            self._exchange(bridge_batch.batch(turns, first))

    def _exchange(self, sent: transaction.Batch) -> None:
        self._socket.send(sent.data)
        worst: NetlinkRefused | None = None
        while (found := self._socket.receive_answers(sent.last_seq)) is not None:
            answers = [
                each
                for each in found
                if each.type == NLMSG_ERROR and sent.first_seq <= each.seq <= sent.last_seq + 1
            ]
            worst = next(filter(None, (worst, *map(refusal, answers))), None)
            if any(each.seq in (sent.first_seq, sent.last_seq) for each in answers):
                break
        if worst is not None:
            index = transaction.refused_change(sent, worst.seq, worst.offset)
            raise KernelRejected(worst.errno or errno.EIO, index, worst.strerror or "")

    def install(self, text: str) -> None:
        """Run nft text (``ruleset.structure``, ``bridge.bridge_table``) as one transaction.

        KernelRejected with nft's words.
        """
        _run(self._nft, text)

    def install_guard(self, text: str) -> None:
        """Run ``ruleset.guard`` in a context that stays open: the table lives as long as this object."""
        if self._guard is None:
            self._guard = nftables.Nftables()
        _run(self._guard, text)

    def remove(self) -> tuple[str, ...]:
        """Delete our tables in one transaction; name those that were there.

        KernelRejected: none was deleted (a guard that another process owns cannot be).
        """
        self._guard = None
        found = [
            f"{family} {name}"
            for family, name, digest in (
                ("inet", self._table, self.fingerprint()),
                ("inet", self._guard_table, self.guard_fingerprint()),
                ("bridge", BRIDGE_TABLE, self.bridge_fingerprint()),
            )
            if digest
        ]
        if found:
            _run(self._nft, "\n".join(f"delete table {each}" for each in found))
        return tuple(found)

    def commit_guard(self, changes: Sequence[Change]) -> None:
        """Change sets of the guard table (``elements.GUARD_SETS``); only its owner can."""
        if self._guard is None:
            raise KernelRejected(errno.ENOENT, words="the guard table is not installed")
        if changes:
            _run(self._guard, "\n".join(_command(self._guard_table, change) for change in changes))

    def fingerprint(self) -> str:
        """Digest of the policy table's structure as the kernel holds it: hooks, rules, sets, no elements.

        ``""`` if the table is gone. Equal only to one taken since the last ``install``, never to
        anything made from our own text: the kernel numbers anonymous sets as it likes.
        """
        return self._digest(self._table)

    def guard_fingerprint(self) -> str:
        """As ``fingerprint`` for the guard table."""
        return self._digest(self._guard_table)

    def bridge_fingerprint(self) -> str:
        """As ``fingerprint`` for the table in the bridge family."""
        return self._digest(BRIDGE_TABLE, transaction.NFPROTO_BRIDGE)

    def _digest(self, table: str, family: int = transaction.NFPROTO_INET) -> str:
        digest = hashlib.sha256()
        for kind, kept in transaction.STRUCTURE_QUERIES:
            header = transaction.table_header(table, family)
            found = self._socket.dump(transaction.SUBSYSTEM << 8 | kind, header)
            parts = list(transaction.structure_parts(table, kind, kept, found, family))
            if kind == transaction.GETTABLE and not parts:
                return ""
            for part in parts:
                digest.update(part)
        return digest.hexdigest()

    def elements(self, name: str) -> list[InstalledElement]:
        """Read a set of the policy table; KernelRejected ENOENT if it is not there."""
        try:
            found = self._socket.dump(
                transaction.SUBSYSTEM << 8 | transaction.GETSETELEM,
                transaction.list_header(self._table, name),
            )
        except NetlinkRefused as refused:
            raise KernelRejected(refused.errno or errno.EIO, words=refused.strerror or "") from refused
        return list(transaction.installed(name, found))

    def counters(self) -> dict[str, tuple[int, int]]:
        """Read the named counters (``ruleset.COUNTERS``): name → (packets, octets); {} without table."""
        kind = transaction.SUBSYSTEM << 8 | transaction.GETOBJ
        return transaction.counters(self._socket.dump(kind, transaction.counters_query(self._table)))

    def foreign(self) -> foreign.Foreign:
        """Look at what others' tables do to packets past ours."""
        system, every = transaction.SUBSYSTEM << 8, struct.pack(">BBH", 0, 0, 0)
        offloads = foreign.flowtables(self._socket.dump(system | foreign.GETFLOWTABLE, every))
        chains = self._socket.dump(system | transaction.GETCHAIN, every)
        rules: list[Message] = []
        for table in foreign.raw_tables(chains, (self._table, self._guard_table)):
            header = transaction.table_header(table.name, table.family)
            rules += self._socket.dump(system | transaction.GETRULE, header)
        return foreign.Foreign(offloads, foreign.untracked(rules))

    def monitor_fd(self) -> int:
        """Descriptor that becomes readable when somebody else changed nftables; opens the monitor."""
        if self._monitor is None:
            self._monitor = NetlinkSocket(NETLINK_NETFILTER, (_GROUP_NFTABLES,), receive_bytes=_MONITOR_BYTES)
            self._monitor.ignore_portid(self._socket.portid)
            self._own_process = self._called() or os.getpid()
        return self._monitor.fileno()

    def _called(self) -> int:
        """Find out by which number the kernel's notices call this process: not getpid() in a container.

        Makes and deletes a table of that name in one transaction, and reads who is said to have done it.
        """
        name = f"nameward_probe_{self._socket.portid}"
        listener = NetlinkSocket(NETLINK_NETFILTER, (_GROUP_NFTABLES,), receive_bytes=_DUMP_BYTES)
        try:
            _run(self._nft, f"add table inet {name}\ndelete table inet {name}")
            is_ours = False
            while batch := listener.receive_pending():
                for notice in batch:
                    if notice.type & 0xFF == transaction.NEWGEN:
                        if is_ours:
                            return _process(notice)
                    else:
                        is_ours = _table_of(notice) == name
        except OSError:
            return 0  # too much happens, or no table can be made: what follows is then taken for another's
        finally:
            listener.close()
        return 0

    def drain_events(self) -> set[Event]:
        """Read what the monitor holds, without waiting. What this process did is left out."""
        seen: set[Event] = set()
        if self._monitor is None:
            return seen
        pending: set[Event] = set()
        while True:
            try:
                batch = self._monitor.receive_pending()
            except OSError as lost:
                if lost.errno != errno.ENOBUFS:
                    raise
                seen.add("lost")
                continue
            if batch is None:
                return seen | pending
            for notice in batch:
                if notice.type & 0xFF != transaction.NEWGEN:
                    pending |= self._event(notice)
                    continue
                if _process(notice) != self._own_process:
                    seen |= pending
                pending = set()

    def _event(self, notice: Message) -> set[Event]:
        kind = notice.type & 0xFF
        if kind in {foreign.NEWFLOWTABLE, foreign.DELFLOWTABLE}:
            return {"offload"}
        table = _table_of(notice)
        if notice.payload[0] == transaction.NFPROTO_BRIDGE:
            return {"changed"} if table == BRIDGE_TABLE else set()
        if notice.payload[:1] != bytes((transaction.NFPROTO_INET,)) or table not in (
            self._table,
            self._guard_table,
        ):
            return set()
        if kind == transaction.DELTABLE:
            return {"gone"} if table == self._table else {"guard gone"}
        return {"changed"} if table == self._table else set()

    def believe(self, able: Capabilities) -> None:
        """Take over what an earlier ``probe`` of this kernel found."""
        self._renews = able.renews

    def probe(self) -> Capabilities:
        """Find out what this kernel does, in a throw-away table of our own; remembered for ``commit``.

        KernelRejected if it cannot do the least: tables, timeouts, concatenations.
        """
        name = f"nameward_probe_{os.getpid()}"
        trial = Kernel(table=name)
        trial._renews = True
        try:
            trial.install(_TRIAL.replace("TABLE", name))
            key = struct.pack(">IHxx", 0xC0000201, 1)
            element = Element("t", key, timeout_ms=600_000)
            trial.commit([Renew(element, expires_ms=60_000)])
            trial.commit([Renew(element)])
            left = [found.expires_ms for found in trial.elements("t")]
            renews = bool(left and left[0] is not None and left[0] > 300_000)
        finally:
            trial._nft.cmd(f"delete table inet {name}")
            trial.close()
        owner = nftables.Nftables()
        owns = owner.cmd(f"table inet {name} {{ flags owner; }}")[0] == 0
        if owns:
            owner.cmd(f"delete table inet {name}")
        self._renews = renews
        return Capabilities(renews=renews, owns=owns)


_TRIAL = """table inet TABLE {
  set t { type ipv4_addr . inet_service; flags timeout; size 8; }
  chain c { meta iifkind "veth" ct original ip daddr 192.0.2.1 notrack; }
}
"""


def _run(nft: nftables.Nftables, text: str) -> None:
    rc, _, words = nft.cmd(text)
    if rc != 0:
        number = next((n for n in _WORDED if os.strerror(n) in words), errno.EINVAL)
        raise KernelRejected(number, words=words.strip())


_WORDED = (errno.EPERM, errno.ENOENT, errno.EBUSY, errno.EEXIST, errno.ENFILE, errno.ENOMEM, errno.EOPNOTSUPP)


def _command(table: str, change: Change) -> str:
    """Word a change to one of the guard's sets for nft: an interface, an address, or both."""
    name, key = (change.set, change.key) if isinstance(change, Remove) else change.element[:2]
    words = []
    if name in ("uplinks", "podifs", "bridges") or name.startswith("podsrc"):
        interface, key = key[:16].rstrip(b"\0"), key[16:]
        words.append(f'"{interface.decode()}"')
    if key:
        words.append(str(ipaddress.ip_address(key)))
    verb = "delete" if isinstance(change, Remove) else "add"
    return f"{verb} element inet {table} {name} {{ {' . '.join(words)} }}"


def _table_of(notice: Message) -> str:
    """Read the table that it is about: every nf_tables message begins with its name, as attribute 1."""
    return next((v.rstrip(b"\0").decode() for k, v in attributes(notice.payload, 4) if k == 1), "")


def _process(notice: Message) -> int:
    """Read who made a generation (NFTA_GEN_PROC_PID); 0 if it does not say."""
    return next((struct.unpack(">I", v)[0] for k, v in attributes(notice.payload, 4) if k == 2), 0)
