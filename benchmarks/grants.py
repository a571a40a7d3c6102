"""What a grant costs the enforcer, alone: decide, open in the kernel, adopt, journal; and what is kept of it.

Run as root: ``python -m benchmarks.grants [COUNT]``. Works in a network namespace of its own, with the real
kernel and a journal in a temporary folder; no resolver and no loop are in the figures. A grant here is a name
that nobody asked before with one address. "user" and "system" are the kernel's own accounts of this process.
"""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

from enforcer import ruleset
from enforcer.authority import Authority, GrantLimits, admitted_of
from enforcer.identity import Identity
from enforcer.journal import Journal
from enforcer.kernel import Kernel
from enforcer.layout import Layout
from enforcer.ledger import MemoryLedger
from policy.authority import GrantRequested
from policy.pods import Pod
from policy.rules import Destination, Policy, PortRange, Rule
from policy.snapshot import compile_snapshot
from policy.world import World
from resolver.realized import Realized

PODS = 20
FOREIGN_CHAINS = 5_000
HELD = 100_000


class Bench:
    """One enforcer's way of a grant, without what carries requests to it."""

    def __init__(self, folder: Path, kernel: Kernel) -> None:
        rule = Rule(
            name="allow-approved-egress", action="permit", destinations=(Destination(kind="public"),),
            web_groups=("*.example.com",), protocol="tcp", ports=PortRange(443, 443),
        )  # fmt: skip
        pods = tuple(
            Pod(namespace="mcp", name=f"pod-{n}", uid=f"uid-{n}", addresses=(f"10.0.0.{n + 2}",))
            for n in range(PODS)
        )
        policy = Policy(namespace="mcp", name="approved", kind="FirewallPolicy", rules=(rule,))
        world = World(generation=1, pods=pods, policies=(policy,), cluster_cidrs=("10.0.0.0/8",))
        self.ledger = MemoryLedger()
        self.journal = Journal(folder / "journal", "boot")
        self.journal.open(1, (), ())
        limits = GrantLimits(300.0, 60.0, 1 << 30, 1 << 30)
        self.authority = Authority(self.ledger, self.journal, kernel.commit_grants, limits)
        for pod in pods:
            source = bytes(map(int, pod.addresses[0].split(".")))
            self.ledger.open_account(Identity(source, f"veth{source[3]}", pod.uid, "boot", pod.key))
        self.authority.admitted = admitted_of(self.ledger.accounts.values())
        self.authority.snapshot = compile_snapshot(world)
        self.made = 0

    def requests(self, count: int) -> list[GrantRequested]:
        """Make requests for names and addresses that nobody asked for before."""
        made = self.made
        self.made += count
        return [
            GrantRequested(
                n, 1, f"uid-{n % PODS}", bytes((10, 0, 0, n % PODS + 2)), f"h{n:07}.example.com",
                (bytes((50 + (n >> 24), n >> 16 & 255, n >> 8 & 255, n & 255)),), 300,
            )
            for n in range(made, made + count)
        ]  # fmt: skip

    def turns(self, requests: list[GrantRequested], size: int) -> None:
        """Answer them, so many at once, as ``enforcer.link`` does."""
        answer, flush = self.authority.answer, self.journal.flush
        for start in range(0, len(requests), size):
            decided, _ = answer(requests[start : start + size], time.monotonic())
            flush()
            assert decided[0].answer.outcomes == ("realized",)


def cost(bench: Bench, count: int, size: int) -> tuple[float, float]:
    """Microseconds of a grant, user and system, of the best of three rounds."""
    best = (float("inf"), float("inf"))
    for _ in range(3):
        requests = bench.requests(count)
        before = resource.getrusage(resource.RUSAGE_SELF)
        bench.turns(requests, size)
        after = resource.getrusage(resource.RUSAGE_SELF)
        used = (after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime)
        best = min(best, used, key=sum)
    return best[0] / count * 1e6, best[1] / count * 1e6


def foreign(chains: int) -> None:
    """Fill another table with chains, as a proxy of services does."""
    lines = [f"add chain inet others c{n}\nadd rule inet others c{n} counter" for n in range(chains)]
    said = "\n".join(["add table inet others", *lines])
    subprocess.run(["nft", "-f", "-"], input=said, text=True, check=True)


def resident() -> int:
    """Octets of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def memory(bench: Bench, count: int) -> tuple[float, float]:
    """Octets of objects that a further grant leaves in the enforcer, and in the resolver's memory of it."""
    realized = Realized()
    bench.turns(bench.requests(256), 64)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(0, count, 1000):
        bench.turns(bench.requests(1000), 64)
    bench.authority.snapshot = None  # with the verdicts on names that it remembers, so many a pod and no more
    gc.collect()
    enforcer = tracemalloc.get_traced_memory()[0] - before
    for request in bench.requests(count):
        now = time.monotonic()
        realized.add((request.pod_uid,), request.name, request.addresses, now + 360.0)
    gc.collect()
    resolver = tracemalloc.get_traced_memory()[0] - before - enforcer
    tracemalloc.stop()
    return enforcer / count, resolver / count


def held(bench: Bench, count: int) -> float:
    """Octets by which this process grows with each of so many grants, all that is remembered included."""
    bench.turns(bench.requests(2000), 64)
    before = resident()
    for _ in range(0, count, 1000):
        bench.turns(bench.requests(1000), 64)
    return (resident() - before) / count


def _kernel() -> Kernel:
    kernel = Kernel()
    kernel.install(ruleset.structure(Layout()))
    kernel.believe(kernel.probe())
    return kernel


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 8_192
    with tempfile.TemporaryDirectory() as name:
        for chains in (0, FOREIGN_CHAINS):
            if chains:
                foreign(chains)
            bench = Bench(Path(name), _kernel())
            for size in (1, 4, 16, 64):
                user, system = cost(bench, count, size)
                said = f"{user:6.1f} µs user {system:6.1f} µs system"
                print(f"{chains:5} foreign chains, {size:3} in a turn: {said}")
        subprocess.run(["nft", "delete", "table", "inet", "others"], check=True)
        grown = held(Bench(Path(name), _kernel()), HELD)
        enforcer, resolver = memory(Bench(Path(name), _kernel()), HELD)
        both = f"{enforcer:.0f} + {resolver:.0f} = {enforcer + resolver:.0f}"
        print(f"a further grant: {both} octets (enforcer, resolver); the enforcer grew by {grown:.0f}")


if __name__ == "__main__":
    if "--here" in sys.argv:
        main()
    else:
        here = [sys.executable, "-m", "benchmarks.grants", *sys.argv[1:], "--here"]
        sys.exit(subprocess.run(["unshare", "--net", *here], check=False).returncode)
