"""The table between the ports of pods' bridges, as installed.

Owns ``bridge nameward`` in the kernel and what the host last said about bridges. Never decides who
is a pod. Invariant: a source is let through on its pod's port before the inet table admits it, and
nothing is led to a bridge that the inet table does not know for a pods' bridge. A change of pods or
ports is a change of elements, as large as what changed; the structure is installed when it is not what
stands, or when the kernel refuses the change (somebody else's hand was in the table).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from enforcer.bridge import Bridge, Bridged, bridge_table, contents, located, pods_bridges
from enforcer.bridge_sets import Contents, plan
from enforcer.doors import KernelDoor
from enforcer.kernel import KernelRejected
from enforcer.layout import Layout


class Bridging:
    """The bridge table of this node."""

    def __init__(self, kernel: KernelDoor, layout: Layout) -> None:
        self._kernel = kernel
        self._layout = layout
        self._structure = bridge_table(layout, {})
        self._bridged = Bridged()
        self._held: Contents = {}
        self._wanted: Contents = {}
        """What was to be brought; more than ``_held`` after a refusal."""
        self._built = ""
        """The structure that stands, without elements; "" before the first."""
        self._fingerprint: str | None = ""
        """None: what stands is not known, for the kernel refused to have it replaced."""
        self._refused = ""

    def begin(self) -> None:
        """Keep what an earlier enforcer left; else take every unknown port for a closed one."""
        if not self._kernel.bridge_fingerprint():
            self._install({})

    def change(self, layout: Layout) -> None:
        """Take another layout; ``bring`` installs it."""
        self._layout = layout
        self._structure = bridge_table(layout, {})

    def look(self, found: Iterable[Bridge], uplinks: Iterable[str]) -> tuple[str, ...]:
        """Keep what the host says now; return the names of the pods' bridges."""
        self._bridged = pods_bridges(self._layout, found, uplinks)
        return self._bridged.names

    def ports(self, interfaces: Mapping[bytes, str]) -> dict[bytes, str]:
        """Say behind which port an address is; nothing where the table cannot be."""
        return {} if self._refused else located(self._bridged, interfaces)

    def bring(
        self, pods: Mapping[bytes, bool], ports: Mapping[bytes, str], ready: Iterable[str] | None = None
    ) -> None:
        """Bring about what follows from this; arguments as those of ``contents``."""
        wanted = self._wanted = contents(self._layout, self._bridged, pods, ports, ready)
        if self._built != self._structure or self._fingerprint is None:
            self._install(wanted)
            return
        try:
            self._kernel.commit_bridge(plan(self._held, wanted))
        except KernelRejected:
            self._install(wanted)
        self._held = wanted

    def restore(self, *, deep: bool) -> bool:
        """Put the table back as it was brought; True if it was not. ``deep``: its elements, too."""
        was_changed = not self.is_built
        if self._built and (was_changed or deep):
            self._install(self._wanted)
        return was_changed

    def holds(self, source: bytes, port: str) -> bool:
        """Say whether the kernel acknowledged that this port alone has this address."""
        return (port, source) in self._held.get("source4" if len(source) == 4 else "source6", frozenset())

    @property
    def is_built(self) -> bool:
        """Say whether the table is as it was installed, or could never be."""
        return (
            bool(self._refused) or not self._built or self._kernel.bridge_fingerprint() == self._fingerprint
        )

    @property
    def doubts(self) -> list[str]:
        """Say what is not as it should be; nothing on a node without pods behind bridges."""
        if self._refused and self._bridged.bridges:
            names = ", ".join(self._bridged.names)
            return [
                f"pods behind {names} are not admitted: the kernel cannot filter between the ports of a"
                f" bridge ({self._refused}); it needs CONFIG_NF_TABLES_BRIDGE"
            ]
        return [] if self.is_built else ["the bridge table is not in the kernel as it was built"]

    def _install(self, held: Contents) -> None:
        try:
            self._kernel.install(bridge_table(self._layout, held))
        except KernelRejected as refused:
            if self._built or self._kernel.bridge_fingerprint():
                self._fingerprint = None
                raise
            self._refused = (refused.strerror or str(refused)).splitlines()[0]
            return
        self._held, self._built, self._refused = held, self._structure, ""
        self._fingerprint = self._kernel.bridge_fingerprint()
