"""Policies by the thousand: how long a change takes to the kernel, a start to enforcing; and the memory.

Owns these worlds on disk: each policy a file of its own, as Obot's provider writes it. A change is measured
from the rename of its file to the kernel's own event of the new element. Never judges by one figure alone.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterable, Iterator

from benchmarks.loads.asking import asked
from benchmarks.loads.kernel_events import Events
from benchmarks.loads.site import NODE, ZONE, Node, Site, policy, site
from benchmarks.obot import Json
from benchmarks.rows import OWN, ROUNDS, Bench, Limit, Plan, Row, judged
from benchmarks.topology import run

PODS, POLICIES, NAMES, CURVE_NAMES = 110, 1000, 100, 10
CURVE = (10, 100, 1000, 10_000)
EDITS_A_ROUND, EDITS_A_PART = 15, 4
GRANTS, ADDRESSES, ASKING_PODS = 100_000, 10, 100
MIB = 1 << 20
_START_S = 300.0


def quantile(figures: Iterable[float], share: float) -> float:
    """Return the figure below which this share lies."""
    ordered = sorted(figures)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def names_of(number: int, count: int) -> list[str]:
    """Return a policy's names. Pod n asks question n modulo 100: its names are those with that remainder."""
    if number < ASKING_PODS:
        return [f"h{each * ASKING_PODS + number}.{ZONE}" for each in range(count)]
    return [f"api{each}.s{number}.example.com" for each in range(count)]


def one_policy(number: int, count: int, fixed: str, *more: str) -> Json:
    """Return policy ``number`` with ``count`` names and an address."""
    names = [*names_of(number, count - len(more)), *more]
    return policy(f"p{number}", f"app-{number}", names, [f"{fixed}/32"])


def write_world(here: Site, policies: int, names: int) -> None:
    """Write so many policies; pods choose among them in turn."""
    here.write_pods({number: f"app-{number % policies}" for number in range(here.pods)})
    for number in range(policies):
        here.write(f"p{number:05}", one_policy(number, names, f"45.200.{number >> 8}.{number & 255}"))


class Edits:
    """Edits of policies that pods have, one after the other."""

    def __init__(self, here: Site, policies: int, names: int) -> None:
        self._here, self._names = here, names
        self._policies = min(policies, here.pods)
        self._events = Events(NODE)
        self._count = 0
        self._random = random.Random(6)

    def times_ms(self, count: int) -> list[float]:
        """Return the time of each edit: a name and an address exchanged, in its pod's policy."""
        return [self._once() * 1000 for _ in range(count)]

    def _once(self) -> float:
        number, at = self._count % self._policies, self._count
        self._count += 1
        fixed = f"45.{201 + (at >> 16)}.{at >> 8 & 255}.{at & 255}"
        content = one_policy(number, self._names, fixed, f"new{at}.example.org")
        time.sleep(self._random.uniform(0.1, 0.2))  # not in step with any timer of the node
        self._events.skip()
        begun_at = time.monotonic()
        self._here.write(f"p{number:05}", content)
        return self._events.wait_for(socket.inet_aton(fixed), 60.0) - begun_at

    def close(self) -> None:
        """Hear no more."""
        self._events.close()


def _cpu_ms(node: Node, before: dict[str, float], count: int) -> str:
    return ", ".join(
        f"{name} {(used - before[name]) * 1000 / count:.0f}" for name, used in node.cpu_s().items()
    )


def change(plan: Plan) -> Iterator[Row]:
    """Policy change to kernel: P99 at 1,000 policies, and the curve."""
    runs: list[float] = []
    every: list[float] = []
    with site(PODS) as here:
        write_world(here, POLICIES, NAMES)
        with here.upstream(), here.nameward(within_s=_START_S) as node:
            edits = Edits(here, POLICIES, NAMES)
            edits.times_ms(3)
            before = node.cpu_s()
            for _ in range(ROUNDS):
                times = edits.times_ms(plan.sized(EDITS_A_ROUND, 8))
                every += times
                runs.append(quantile(times, 0.99))
            used = _cpu_ms(node, before, len(every))
            edits.close()
    note = (
        f"P50 {quantile(every, 0.5):.0f} ms, slowest {max(every):.0f} of {len(every)}; {NAMES} names each;"
        " from the rename of the file to the kernel's event of the new element; processor time an edit, ms:"
        f" {used}"
    )
    yield judged(
        "policy change to kernel, 1,000 policies, 110 pods: P99",
        "ms",
        {OWN: runs},
        [Limit(100)],
        note=note,
        too_noisy=1.0,  # of few edits a P99 is the slowest
    )
    if not plan.quick:
        yield curve(plan)


def curve(plan: Plan) -> Row:
    """Return an edit's processor time at 10,000 policies beside that at 100."""
    cpu_ms: dict[int, list[float]] = {}
    said = []
    for count in CURVE:
        with site(PODS) as here:
            write_world(here, count, CURVE_NAMES)
            with here.upstream(), here.nameward(within_s=_START_S) as node:
                edits = Edits(here, count, CURVE_NAMES)
                edits.times_ms(2)
                parts = [_part(node, edits) for _ in range(ROUNDS)]
                edits.close()
        times = [each for part, _ in parts for each in part]
        cpu_ms[count] = [used for _, used in parts]
        plan.point("policy-change", "P50", count, quantile(times, 0.5))
        plan.point("policy-change", "P99", count, quantile(times, 0.99))
        plan.point("policy-change", "CPU of both processes", count, quantile(cpu_ms[count], 0.5))
        said.append(f"{count:,}: {quantile(times, 0.5):.0f} and {quantile(cpu_ms[count], 0.5):.0f}")
    few = "100 policies"
    return judged(
        "policy change to kernel, 10,000 policies: processor time of both",
        "ms",
        {OWN: cpu_ms[CURVE[-1]], few: cpu_ms[100]},
        [Limit(2, few)],
        goal=f"follows the change: ≤ 2 of that with {few}",
        note=f"{CURVE_NAMES} names each; P50 and processor time by number of policies, ms: {'; '.join(said)}",
        too_noisy=0.5,
    )


def _part(node: Node, edits: Edits) -> tuple[list[float], float]:
    """Edit a few; return the times and the processor time of each."""
    before = sum(node.cpu_s().values())
    times = edits.times_ms(EDITS_A_PART)
    return times, (sum(node.cpu_s().values()) - before) * 1000 / len(times)


def start_of(policies: int, goal_s: float, rounds: int) -> Row:
    """Measure starts: from the command to READY=1, on a host that never had it."""
    runs, loaded = [], []
    with site(PODS) as here:
        write_world(here, policies, CURVE_NAMES)
        with here.upstream():
            for number in range(-1, rounds):  # the first writes bytecode and warms the disk's cache
                here.forget()
                time.sleep(3.2 if number < 0 else 0)  # the files are not new
                with here.nameward(within_s=_START_S) as node:
                    if number >= 0:
                        runs.append(max(node.ready_s, node.serving_s))
                        loaded.append(sum(node.cpu_s().values()))
    note = (
        f"{CURVE_NAMES} names each; to READY=1 and a resolver that has it all; processor time of both workers"
        f" {quantile(loaded, 0.5):.1f} s"
    )
    return judged(
        f"start to enforcing, {policies:,} policies",
        "s",
        {OWN: runs},
        [Limit(goal_s)],
        note=note,
        too_noisy=0.3,
    )


def starts(plan: Plan) -> Iterator[Row]:
    """1,000 policies, and 10,000."""
    yield start_of(POLICIES, 2.0, ROUNDS)
    if not plan.quick:
        yield start_of(10_000, 8.0, ROUNDS)


def memory(_plan: Plan) -> Iterator[Row]:
    """Both processes' memory with 1,000 policies of 100 names, by grants."""
    with site(PODS) as here:
        write_world(here, POLICIES, NAMES)
        with here.upstream(addresses=ADDRESSES), here.nameward(within_s=_START_S) as node:
            empty, half = _filled(node, 0), _filled(node, GRANTS // 2)
            names = GRANTS // ADDRESSES
            _ask(range(names // 2, names))
            whole = [_filled(node, 0) for _ in range(ROUNDS)]
            resident = node.memory_bytes("Rss")
            grants = run("nft", "list", "set", "inet", "nameward", "grants4", netns=NODE).count("expires")
    both = [sum(each.values()) / MIB for each in whole]
    said = ", ".join(
        f"{name} {used / MIB:.0f} (resident {resident[name] / MIB:.0f})" for name, used in whole[-1].items()
    )
    first = f"without grants {sum(empty.values()) / MIB:.0f} MiB; {grants:,} grants in the kernel"
    note = f"proportional size (smaps_rollup), readings of one fill: {said}; {first}"
    yield judged(
        "memory of both processes, 1,000 policies of 100 names, 100,000 grants",
        "MiB",
        {OWN: both},
        [Limit(150)],
        note=note,
    )
    further = GRANTS - GRANTS // 2
    a_grant = [(sum(each.values()) - sum(half.values())) / further for each in whole]
    parts = ", ".join(f"{name} {(used - half[name]) / further:.0f}" for name, used in whole[-1].items())
    yield judged(
        "memory of a further grant",
        "bytes",
        {OWN: a_grant},
        [Limit(400)],
        note=f"from 50,000 to 100,000, {ADDRESSES} to a name: {parts}",
    )


def _ask(names: range) -> None:
    """Ask each name once, by the pod that may."""
    load = asked(seconds=120, window=64, pods=range(ASKING_PODS), names=names, most=len(names))
    if load.answered != len(names):
        raise SystemExit(f"grants could not be made: {load.outcomes}, lost {load.lost}")


def _filled(node: Node, grants: int) -> dict[str, int]:
    """Return the memory once so many grants are made."""
    if grants:
        _ask(range(grants // ADDRESSES))
    time.sleep(2)
    return node.memory_bytes()


ROWS: tuple[Bench, ...] = (
    Bench("policy-change", "from a file's rename to the kernel", quick=True, run=change),
    Bench("start", "from the command to enforcing", quick=True, run=starts),
    Bench("memory", "of both processes, by grants", quick=False, run=memory),
)
