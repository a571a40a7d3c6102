"""One enforcer's brain without a loop: fake kernel, fake host, a clock that tests turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from enforcer.authority import Authority, GrantLimits
from enforcer.bridge import Bridge
from enforcer.bridging import Bridging
from enforcer.collection import Collection
from enforcer.desired import Fixed
from enforcer.elements import GRANT_SETS, live_twin
from enforcer.installation import Installation
from enforcer.journal import Answer, Journal, replay
from enforcer.ledger import MemoryLedger
from enforcer.reconciler import Reconciler
from enforcer.ruleset import Layout
from policy.addresses import to_packed
from policy.authority import GrantAnswered, GrantRequested
from policy.pods import Pod
from policy.rules import Destination, Policy, PortRange, Rule
from policy.snapshot import Snapshot, compile_snapshot
from policy.world import World
from tests.fakes import FakeKernel

ANYWHERE = (Destination(kind="anywhere"),)
A = Pod(namespace="mcp", name="a", uid="uid-a", addresses=("100.64.0.2", "2a00:1::2"), labels={"app": "a"})
B = Pod(namespace="mcp", name="b", uid="uid-b", addresses=("100.64.0.3",), labels={"app": "b"})
API, OTHER = "93.184.216.34", "93.184.216.35"
TTL_S, GRACE_S = 60, 60.0


def permit(*names: str, first: int = 443, last: int = 0, name: str = "allow", protocol: str = "tcp") -> Rule:
    """A rule that permits names on ports ``first`` to ``last``."""
    return Rule(
        name=name,
        action="permit",
        destinations=ANYWHERE,
        web_groups=names,
        protocol=protocol,  # type: ignore[arg-type]
        ports=PortRange(first, last or first),
    )


def policy(*rules: Rule, name: str = "p") -> Policy:
    """A FirewallPolicy of the pods' namespace."""
    return Policy(namespace="mcp", name=name, kind="FirewallPolicy", rules=rules)


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self, at: float = 1000.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


class KeptRecords:
    """Records in a list."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, object]]] = []

    def tell(
        self, event: str, level: str = "info", *, fields: Mapping[str, object] | None = None, reason: str = ""
    ) -> None:
        self.told.append((event, {**(fields or {}), "level": level, "why": reason}))

    def is_told(self, level: str) -> bool:
        return True

    def events(self) -> list[str]:
        return [event for event, _ in self.told]


class FakeFlows:
    """Conntrack: what was deleted, and what tests say is in use. ``error`` is raised by every call."""

    def __init__(self) -> None:
        self.deleted: list[bytes] = []
        self.flows: set[tuple[bytes, bytes, str, int]] = set()
        self.error: OSError | None = None

    def delete_flows(self, addresses: Iterable[bytes]) -> int:
        if self.error is not None:
            raise self.error
        self.deleted += addresses
        return 0

    def used(self, candidates: Iterable[tuple[bytes, bytes]]) -> set[tuple[bytes, bytes, str, int]]:
        wanted = set(candidates)
        return {flow for flow in self.flows if flow[:2] in wanted}


class FakeHost:
    """Every pod behind a veth of its own, named after its last octet."""

    def __init__(self) -> None:
        self.renamed: dict[bytes, str | None] = {}
        self.found: list[Bridge] = []
        self.looks = 0
        """How often it was asked for its bridges: two questions for each port."""

    def pod_interfaces(self, addresses: Iterable[bytes]) -> dict[bytes, str]:
        found = {each: self.renamed.get(each, f"veth{each[-1]}") for each in addresses}
        return {each: name for each, name in found.items() if name}

    def bridges(self) -> Iterable[Bridge]:
        self.looks += 1
        return self.found

    def uplinks(self) -> Iterable[str]:
        return ("eth0",)


class Rig:
    """The parts, joined; ``threads`` holds work that a test lets happen with ``run_threads``."""

    def __init__(self, folder: Path, found: tuple[FakeKernel, Clock] | None = None, **limits: int) -> None:
        self.folder = folder
        self.clock = found[1] if found else Clock()
        self.kernel = found[0] if found else FakeKernel(self.clock)
        self.flows, self.host, self.records = FakeFlows(), FakeHost(), KeptRecords()
        self.ledger = MemoryLedger()
        self.replayed = replay(folder / "journal", "boot-1")
        self.journal = Journal(folder / "journal", "boot-1")
        bounds = GrantLimits(60.0, GRACE_S, limits.get("per_pod", 100), limits.get("total", 1000))
        self.authority = Authority(self.ledger, self.journal, self.kernel.commit_grants, bounds)
        self.installation = Installation(self.kernel, Layout(), folder / "structure", guards=True)
        self.bridging = Bridging(self.kernel, Layout())
        self.threads: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        self.published: list[int] = []
        self.admissions = 0
        self.reconciler = Reconciler(
            kernel=self.kernel,
            installation=self.installation,
            bridging=self.bridging,
            flows=self.flows,
            host=self.host,
            ledger=self.ledger,
            journal=self.journal,
            authority=self.authority,
            records=self.records,
            fixed=Fixed("n1", "boot-1"),
            on_revoke="cut",
            off_loop=lambda work, done: self.threads.append((work, done)),
            now=self.clock,
            published=self._published,
            admitted=self._admitted,
        )
        self.collection = Collection(
            kernel=self.kernel,
            flows=self.flows,
            ledger=self.ledger,
            off_loop=lambda work, done: self.threads.append((work, done)),
            next_turn=lambda call: self.threads.append((call, lambda _: None)),
            now=self.clock,
        )
        self.generation = self.replayed.generation
        self._ids = 0

    def begin(self) -> Rig:
        """Start: take over what is there."""
        self.reconciler.begin(self.replayed)
        lines = [
            (tag, destination, name, kept)
            for tag, destinations in self.replayed.answers.items()
            for destination, names in destinations.items()
            for name, kept in names.items()
        ]
        self.journal.open(
            self.replayed.generation,
            self.replayed.admitted,
            [Answer((tag,), name, (to,), kept.until, kept.at) for tag, to, name, kept in lines],
        )
        return self

    def apply(self, *policies: Policy, pods: tuple[Pod, ...] = (A, B), **world: Any) -> Snapshot:
        """Bring a world into force; threads do not run by themselves."""
        self.generation += 1
        snapshot = compile_snapshot(World(generation=self.generation, pods=pods, policies=policies, **world))
        self.outcome = self.reconciler.apply(snapshot)
        self.journal.flush()
        return snapshot

    def run_threads(self) -> None:
        """Let all work in threads happen, and what follows from it."""
        while self.threads:
            work, done = self.threads.popleft()
            done(work())
        self.journal.flush()

    def settled_with(self, *policies: Policy, **world: Any) -> Rig:
        """Begin, apply, and admit every pod."""
        self.begin().apply(*policies, **world)
        self.run_threads()
        return self

    def request(
        self, name: str, *addresses: str, pod: Pod = A, ttl_s: int = TTL_S, **more: Any
    ) -> GrantRequested:
        """A request as an honest resolver makes it; ``more`` replaces fields."""
        self._ids += 1
        packed = tuple(to_packed(each) for each in addresses)
        made = GrantRequested(
            self._ids, self.generation, pod.uid, to_packed(pod.addresses[0]), name, packed, ttl_s
        )
        return msgspec.structs.replace(made, **more)

    def ask(self, name: str, *addresses: str, **more: Any) -> GrantAnswered:
        """Have one request answered."""
        decided, waiting = self.authority.answer([self.request(name, *addresses, **more)], self.clock())
        self.journal.flush()
        assert not waiting
        return decided[0].answer

    def open_now(self) -> set[tuple[str, bytes]]:
        """Every grant element in the kernel."""
        return {(name, each.key) for name in GRANT_SETS for each in self.kernel.elements(name)}

    def live_now(self) -> set[tuple[str, bytes]]:
        """Every live element in the kernel, named by its grants set."""
        return {(name, each.key) for name in GRANT_SETS for each in self.kernel.elements(live_twin(name))}

    def killed(self) -> Rig:
        """What a fresh enforcer finds after kill -9: the kernel (without the guard) and the folder."""
        self.kernel.close()
        return Rig(self.folder, (self.kernel, self.clock))

    def _published(self, snapshot: Snapshot) -> None:
        self.published.append(snapshot.generation)

    def _admitted(self) -> None:
        self.admissions += 1
