"""What goes on while something is lost: lookups, transfers and an attack, and their toll.

Owns starting them together, the phases before, during and after, and the counts. Judges nothing.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from types import TracebackType

from enforcer.demo import places, shared
from enforcer.demo.failure import LabFailureError
from enforcer.demo.flood import Counts, Flood, Plan
from enforcer.demo.load import Siege
from enforcer.demo.pods import Transfer
from enforcer.demo.processes import wait_until
from enforcer.demo.scenes_nodes import LOAD_NAMES, SAID_S, NodesStage

PATIENCE_S = 60.0
"""Added for machines on which the load does not come to its rate."""
ABLE = 0.75
"""A machine that comes to less of the rate is asked half of what it can: else all waits for the machine."""


@dataclasses.dataclass(slots=True)
class Toll:
    """What an ordeal cost. ``phases``: the lookups' counts by phase, each with the times of its answers."""

    lookups: Counts
    phases: dict[str, Counts]
    opened: int
    """Connections of the attacking pod that were accepted, and lookups of it that were answered."""
    packets: int
    """Packets that reached the attacker, by the kernel's counter in the world."""
    tried: int
    broken: int
    """Transfers that ended."""

    @property
    def nothing_lost(self) -> bool:
        """Say whether no lookup was lost, no answer unreachable, no packet leaked, no flow broken."""
        lost = self.lookups.lost + self.lookups.unreached
        return self.lookups.answered > 0 and not (lost or self.opened or self.packets or self.broken)

    def told(self) -> str:
        """Return one line for each phase, and one for the rest."""
        lines = [
            f"{name}: {counts.asked} lookups, {counts.rate:.0f} a second, {counts.lost} lost, "
            f"{counts.repeated} sent again, {counts.reached} reached, {counts.unreached} unreached, "
            f"P50 {counts.p50_ms:.1f} ms, P99 {counts.p99_ms:.1f} ms, longest {counts.max_ms:.0f} ms"
            + (f", {counts.failures}" if counts.failures else "")
            for name, counts in self.phases.items()
        ]
        lines.append(f"{self.packets} packets leaked in {self.tried} tries, {self.broken} flows broken")
        return "\n".join(lines)


class Ordeal:
    """Lookups on node A at a steady rate, a transfer on each node, a pod of A that attacks."""

    def __init__(self, stage: NodesStage, rate: float = 2000.0) -> None:
        self._stage = stage
        self._rate = rate
        self._phases: dict[str, Counts] = {}
        self._last = Counts()
        self._flood: Flood | None = None
        self._siege = Siege(stage.crm_a)
        self._transfers: list[Transfer] = []
        self.toll = Toll(Counts(), {}, 0, 0, 0, 0)
        """Counted when it is over."""

    def __enter__(self) -> Ordeal:
        """Begin all of it; returns when the lookups run at their rate."""
        self._stage.cluster.world.forget()
        for pod, name in ((self._stage.crm_a, places.CRM), (self._stage.ledger, places.LEDGER)):
            self._transfers.append(pod.transfer(pod.stub.ask(name).addresses[0]))
        self._siege.start()
        can = self._warmed_up(self._rate).rate
        if can < ABLE * self._rate:
            self._load.stop()
            self._warmed_up(can / 2)
        return self

    def _warmed_up(self, rate: float) -> Counts:
        """Begin the lookups at a rate; returns the counts of their first second."""
        self._flood = Flood(self._stage.load.space, Plan(places.CLUSTER_DNS, LOAD_NAMES, rate=rate))
        self._last = Counts()
        self.lasts(1.0)
        return self.phase("warming up")

    @property
    def _load(self) -> Flood:
        if self._flood is None:
            raise LabFailureError("the load was not started")
        return self._flood

    def phase(self, name: str) -> Counts:
        """End a phase and give it its name; returns its counts."""
        self._end_phase(name, self._load.mark())
        return self._phases[name]

    def _end_phase(self, name: str, counts: Counts) -> None:
        self._phases[name] = counts - self._last
        self._last = counts

    def lasts(self, seconds: float) -> None:
        """Wait until the load has run for so many seconds since the phase began. Raises LabFailureError."""
        until_s = self._last.took_s + seconds
        if not wait_until(lambda: self._load.counts().took_s >= until_s, seconds + PATIENCE_S, 0.05):
            raise LabFailureError("the lookups have stopped")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all of it and count."""
        try:
            self._siege.stop()
            counts = self._load.stop()
            self._end_phase("at the end", counts)
            self.toll = Toll(
                lookups=counts,
                phases=self._phases,
                opened=self._siege.opened + self._siege.answered,
                packets=self._stage.cluster.world.counted("attacker"),
                tried=self._siege.tried,
                broken=sum(not transfer.grows() for transfer in self._transfers),
            )
        finally:
            self._load.close()
            for transfer in self._transfers:
                transfer.close()


@dataclasses.dataclass(slots=True)
class Endured:
    """How a loss of Redis went. ``said_s``: until status said it, None if it never did."""

    toll: Toll
    said_s: float | None
    problems: list[str]
    redis_up: float
    """``nameward_redis_up`` then."""
    back_s: float | None
    """Until Redis held the truth of every node again; None: not in time."""
    difference: str

    def told(self) -> str:
        """Return all of it as a few lines."""
        said = "never" if self.said_s is None else f"after {self.said_s:.2f} s ({'; '.join(self.problems)})"
        back = "never" if self.back_s is None else f"after {self.back_s:.2f} s"
        return f"said {said}, back {back} {self.difference}\n{self.toll.told()}"


def endure(
    stage: NodesStage,
    strike: Callable[[], object],
    mend: Callable[[], object],
    heard: str = "lost",
    *,
    because: str = "",
    during_s: float = 2.0,
) -> Endured:
    """Lose Redis under load for a while, get it back, and say how that went.

    ``heard``: what node A's status has to say of Redis meanwhile, "" for anything; ``because``: words that
    have to be among its problems then.
    """

    def is_said() -> bool:
        row = stage.a.ward.status()
        return heard in {"", row["redis"]} and because in " ".join(row["problems"])

    with Ordeal(stage) as ordeal:
        ordeal.lasts(1.5)
        ordeal.phase("before")
        strike()
        struck_at = time.monotonic()
        said = wait_until(is_said, SAID_S, 0.02)
        said_s = time.monotonic() - struck_at
        problems, redis_up = stage.a.ward.status()["problems"], stage.a.ward.metric("nameward_redis_up")
        ordeal.lasts(during_s)
        ordeal.phase("during")
        mend()
        mended_at = time.monotonic()
        difference = shared.differences(stage.cluster)
        back_s = time.monotonic() - mended_at
        ordeal.phase("after")
    return Endured(
        toll=ordeal.toll,
        said_s=said_s if said else None,
        problems=problems,
        redis_up=redis_up,
        back_s=None if difference else back_s,
        difference=difference,
    )
