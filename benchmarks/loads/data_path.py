"""Packets through the node: what 100,000 grants cost them, beside a router without rules or with conntrack.

Owns a second router between the same pods and the same outside, and iperf3's runs. A pod sends to an
address that it was granted by a lookup; the other way has no Nameward. In each round each way runs once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from benchmarks.loads.asking import asked
from benchmarks.loads.changes import ASKING_PODS, NAMES
from benchmarks.loads.connecting import looked_up
from benchmarks.loads.kernel_events import inside
from benchmarks.loads.site import NODE, OUTSIDE, PODS, ZONE, pod_address, policy, site
from benchmarks.obot import Json
from benchmarks.rows import ROUNDS, Bench, Limit, Plan, Row, interleaved, judged, not_measured
from benchmarks.topology import run

ROUTER = f"nwload-router-{os.getpid()}"
BESIDE = "10.68.0.2"
"""The pods' address on the way by the other router."""
ADDRESSES = 5
"""A name's; each is opened for TCP and for UDP: 100 pods with 100 names each, ten elements a name."""
GRANTED = "45.0.1.244"
"""The first address of h100.…, which pod 0 asks for, among others."""
SECONDS = 1
SMALL_BYTES = 64
NONE, CONNTRACK = "no rules", "conntrack alone"
_CONNTRACK = """table inet other {
  chain forward { type filter hook forward priority 0; ct state established accept; }
}
"""


@contextmanager
def router() -> Iterator[None]:
    """Lead a second way from the pods to the outside, by a router of its own."""
    with ExitStack() as stack:
        run("ip", "netns", "add", ROUTER)
        stack.callback(subprocess.run, ["ip", "netns", "delete", ROUTER], check=False, capture_output=True)
        for netns, name in ((PODS, "in0"), (OUTSIDE, "out0")):
            run(
                "ip",
                "link",
                "add",
                name,
                "netns",
                netns,
                "type",
                "veth",
                "peer",
                "name",
                name,
                "netns",
                ROUTER,
            )
        commands = {
            PODS: f"address add {BESIDE}/24 dev in0\nlink set in0 up\nrule add from {BESIDE} table 100\n"
            "route add default via 10.68.0.1 table 100",
            ROUTER: "link set lo up\naddress add 10.68.0.1/24 dev in0\naddress add 10.69.0.1/24 dev out0\n"
            "link set in0 up\nlink set out0 up\nroute add default via 10.69.0.2",
            OUTSIDE: "address add 10.69.0.2/24 dev out0\nlink set out0 up\n"
            "route add 10.68.0.0/24 via 10.69.0.1",
        }
        for netns, text in commands.items():
            run("ip", "-batch", "-", netns=netns, stdin=text)
        run("sysctl", "-qw", "net.ipv4.ip_forward=1", netns=ROUTER)
        yield


@contextmanager
def server() -> Iterator[None]:
    """Run iperf3's server outside."""
    argv = ["ip", "netns", "exec", OUTSIDE, "iperf3", "-s", "-p", "443", "-B", GRANTED]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(0.5)
        try:
            yield
        finally:
            process.kill()


def _iperf(source: str, *more: str) -> dict[str, float]:
    argv = ["iperf3", "-J", "-c", GRANTED, "-p", "443", "-B", source, "-t", str(SECONDS), *more]
    said = json.loads(run(*argv, netns=PODS))
    if "error" in said:
        raise SystemExit(f"iperf3: {said['error']}")
    end: dict[str, dict[str, float]] = said["end"]
    return end["sum"] if "-u" in more else end["sum_received"]


def bulk(source: str) -> float:
    """Return Gbit/s of one TCP connection."""
    return _iperf(source)["bits_per_second"] / 1e9


def small(source: str) -> float:
    """Return thousands of small datagrams a second that arrive."""
    found = _iperf(source, "-u", "-b", "0", "-l", str(SMALL_BYTES))
    return (found["packets"] - found["lost_packets"]) / found["seconds"] / 1000


def ways(measure: Callable[[str], float]) -> Mapping[str, Callable[[int], float]]:
    """Return the three candidates."""

    def beside(rules: str) -> float:
        run("nft", "flush", "ruleset", netns=ROUTER)
        if rules:
            run("nft", "-f", "-", netns=ROUTER, stdin=rules)
        return measure(BESIDE)

    return {
        "Nameward": lambda _: measure(pod_address(0)),
        NONE: lambda _: beside(""),
        CONNTRACK: lambda _: beside(_CONNTRACK),
    }


def path(_plan: Plan) -> Iterator[Row]:
    """Bulk and small packets."""
    work = "data path at 100,000 grants"
    limits = [Limit(0.95, NONE, at_least=True)]
    if not shutil.which("iperf3"):
        yield not_measured(f"{work}: one TCP connection", "Gbit/s", limits, "iperf3 is not installed")
        return
    with site(ASKING_PODS) as here, router(), server():
        here.write_pods("load")
        here.write("load", _policy())
        names = ASKING_PODS * NAMES
        with here.upstream(addresses=ADDRESSES), here.nameward(grace="1h"):
            load = asked(seconds=120, window=64, pods=range(ASKING_PODS), names=range(names), most=names)
            with inside(PODS):
                granted = looked_up(f"h{ASKING_PODS}.{ZONE}", pod_address(0), 1)
            if load.answered < names or granted != GRANTED:
                raise SystemExit(f"grants could not be made: {load.outcomes}")
            listed = run("nft", "list", "set", "inet", "nameward", "grants4", netns=NODE).count("expires")
            for what, unit, measure in (
                ("one TCP connection", "Gbit/s", bulk),
                (f"datagrams of {SMALL_BYTES} bytes", "k packets/s", small),
            ):
                runs = interleaved(ROUNDS, ways(measure))
                yield either(f"{work}: {what}", unit, runs, f"{listed:,} grants in the kernel")


def _policy() -> Json:
    """Return a policy that opens names for TCP and for UDP."""
    made = policy("load", "load", [f"*.{ZONE}"])
    permit, deny = made["spec"]["rules"]
    made["spec"]["rules"] = [permit, permit | {"name": "datagrams", "protocol": "udp"}, deny]
    return made


def either(work: str, unit: str, runs: dict[str, list[float]], note: str) -> Row:
    """Judge by whichever of the two limits is easier: that is the goal."""
    goal = f"≥ 0.95 of {NONE}, or ≥ 0.98 of {CONNTRACK}"
    rows = [
        judged(work, unit, runs, [Limit(factor, of, at_least=True)], goal=goal, note=note, too_noisy=0.25)
        for factor, of in ((0.95, NONE), (0.98, CONNTRACK))
    ]
    return min(rows, key=lambda row: (True, None, False).index(row.met))


ROWS: tuple[Bench, ...] = (
    Bench("data-path", "packets through the node at 100,000 grants", quick=False, run=path),
)
