"""Two throw-away network namespaces for measuring: a pod, a node, one veth between them; a second node.

Owns their names and their removal. Never touches the namespace it was started in.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

POD, NODE = f"nwbench-pod-{os.getpid()}", f"nwbench-node-{os.getpid()}"
POD_ADDRESSES = ("10.66.0.2", "fd66::2")
NODE_ADDRESSES = ("10.66.0.1", "fd66::1")
SECOND = f"nwbench-second-{os.getpid()}"
UPLINKS = ("10.67.0.1", "10.67.0.2")
"""The node's and the second node's address, on the cable between them."""


def run(*argv: str, netns: str = "", stdin: str | None = None) -> str:
    """Run a command (in a namespace) and return what it printed; raise with its error otherwise."""
    command = ["ip", "netns", "exec", netns, *argv] if netns else list(argv)
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def topology() -> Iterator[None]:
    """Make the two namespaces and the veth between them; remove them whatever happens."""
    try:
        for name in (POD, NODE):
            run("ip", "netns", "add", name)
            run("ip", "link", "set", "lo", "up", netns=name)
        run("ip", "link", "add", "eth0", "netns", POD, "type", "veth", "peer", "name", "vpod", "netns", NODE)
        for name, link, addresses in (
            (POD, "eth0", ("10.66.0.2/24", "fd66::2/64")),
            (NODE, "vpod", ("10.66.0.1/24", "fd66::1/64")),
        ):
            for address in addresses:
                run(
                    "ip",
                    "address",
                    "add",
                    address,
                    "dev",
                    link,
                    *(["nodad"] if ":" in address else []),
                    netns=name,
                )
            run("ip", "link", "set", link, "up", netns=name)
        run("ip", "route", "add", "default", "via", "10.66.0.1", netns=POD)
        run("ip", "-6", "route", "add", "default", "via", "fd66::1", netns=POD)
        for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            run("sysctl", "-qw", f"{key}=1", netns=NODE)
        yield
    finally:
        for name in (POD, NODE):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


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
