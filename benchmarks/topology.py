"""Throw-away network namespaces for measuring: a pod, a node, one veth between them; a second node.

Owns their names and their removal, and which core who runs on. Never touches the namespace it was started in.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

POD, NODE = f"nwbench-pod-{os.getpid()}", f"nwbench-node-{os.getpid()}"
POD_ADDRESSES = ("10.66.0.2", "fd66::2")
NODE_ADDRESSES = ("10.66.0.1", "fd66::1")
SECOND = f"nwbench-second-{os.getpid()}"
UPLINKS = ("10.67.0.1", "10.67.0.2")
"""The node's and the second node's address, on the cable between them."""
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]
"""Servers under test run on the first core; who asks them, and their upstream, on the last."""
OTHER_CORE = CORES[1] if len(CORES) > 2 else LOAD_CORE
"""A server's second process, where each has one: with two cores it shares the load's."""


class Place(NamedTuple):
    """A pod's and its node's network namespace."""

    pod: str
    node: str


HERE = Place(POD, NODE)
"""The place of a benchmark that has only one."""


def run(*argv: str, netns: str = "", stdin: str | None = None, core: int | None = None) -> str:
    """Run a command (in a namespace, on a core); return what it printed, raise with its error otherwise."""
    command = ["ip", "netns", "exec", netns, *argv] if netns else list(argv)
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def pin(process: int, *cores: int) -> None:
    """Move a process with all its threads to one core, or to several."""
    for thread in Path(f"/proc/{process}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


@contextmanager
def topology(label: str = "", *, pods: int = 1) -> Iterator[Place]:
    """Make the two namespaces and the veth between them; remove them whatever happens.

    With a ``label`` there are places beside the one of ``HERE``. ``pods`` is how many addresses
    (``pod_address``) the pod's side has, each of them a pod to the node.
    """
    place = Place(POD + label, NODE + label)
    try:
        for name in place:
            run("ip", "netns", "add", name)
            run("ip", "link", "set", "lo", "up", netns=name)
        run(
            "ip",
            "link",
            "add",
            "eth0",
            "netns",
            place.pod,
            *f"type veth peer vpod netns {place.node}".split(),
        )
        ours = (pod_address(number) for number in range(pods))
        node, node_ipv6 = NODE_ADDRESSES
        commands = {
            place.node: (
                f"address add {node}/24 dev vpod",
                f"address add {node_ipv6}/64 dev vpod nodad",
                "link set vpod up",
            ),
            place.pod: (
                *(f"address add {address}/24 dev eth0" for address in ours),
                f"address add {POD_ADDRESSES[1]}/64 dev eth0 nodad",
                "link set eth0 up",
                f"route add default via {node}",
                f"-6 route add default via {node_ipv6}",
            ),
        }
        for name, each in commands.items():
            for command in each:
                run("ip", *command.split(), netns=name)
        for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            run("sysctl", "-qw", f"{key}=1", netns=place.node)
        yield place
    finally:
        for name in place:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def pod_address(number: int) -> str:
    """Return a pod's IPv4 address; the first is that of ``POD_ADDRESSES``."""
    return f"10.66.0.{number + 2}"


@contextmanager
def second_node() -> Iterator[None]:
    """Join another node to the first by a cable; the pod's packets reach it routed by their own node."""
    try:
        run("ip", "netns", "add", SECOND)
        run("ip", "link", "add", "up0", "netns", NODE, "type", "veth", "peer", "name", "up0", "netns", SECOND)
        for name, address in zip((NODE, SECOND), UPLINKS, strict=True):
            run("ip", "address", "add", f"{address}/24", "dev", "up0", netns=name)
            run("ip", "link", "set", "up0", "up", netns=name)
        run("ip", "link", "set", "lo", "up", netns=SECOND)
        run("ip", "route", "add", "default", "via", UPLINKS[1], netns=NODE)
        run("ip", "route", "add", "default", "via", UPLINKS[0], netns=SECOND)
        yield
    finally:
        subprocess.run(["ip", "netns", "delete", SECOND], check=False, capture_output=True)
