"""Answer, then connect: what an answer gives can be used at once, by real sockets, through the node.

Owns the pods' sockets and a server outside on which every address answers. Invariant: an address that
nobody asked for cannot be connected to in the same run, or the row says nothing.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from benchmarks.loads.crowds import crowd
from benchmarks.loads.kernel_events import inside
from benchmarks.loads.losses import none_of
from benchmarks.loads.site import DNS, OUTSIDE, PODS, ZONE, pod_address
from benchmarks.rows import ROUNDS, Bench, Plan, Row

ASKING_PODS, CONNECTIONS = 100, 400
WITHIN_S = 0.9
"""A packet that was dropped is sent again after a second: whoever waits less sees that it was."""
UNASKED = 20


@contextmanager
def listening() -> Iterator[None]:
    """Accept on port 443 of all addresses outside."""
    with inside(OUTSIDE):
        server = socket.create_server(("", 443), backlog=1024)

    def accept() -> None:
        with suppress(OSError):
            while True:
                server.accept()[0].close()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def question(name: str, number: int) -> bytes:
    """Return an A question."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return number.to_bytes(2, "big") + bytes((1, 0, 0, 1, 0, 0, 0, 0, 0, 0)) + labels + bytes((0, 0, 1, 0, 1))


def looked_up(name: str, pod: str, number: int) -> str:
    """Return the first address of the answer; "" without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.bind((pod, 0))
        asker.settimeout(2)
        asked = question(name, number)
        asker.sendto(asked, (DNS, 53))
        with suppress(TimeoutError):
            answer = asker.recv(4096)
            if answer[:2] == asked[:2] and answer[6:8] != b"\0\0":
                return socket.inet_ntoa(answer[len(asked) + 12 : len(asked) + 16])
    return ""


def connects(pod: str, address: str) -> bool:
    """Connect, as a pod does."""
    with socket.socket() as client:
        client.bind((pod, 0))
        client.settimeout(WITHIN_S)
        return client.connect_ex((address, 443)) == 0


def connect(plan: Plan) -> Iterator[Row]:
    """Ask fresh names, and connect to each answer at once."""
    failures: list[float] = []
    took_ms: list[float] = []
    count = plan.sized(CONNECTIONS, 100)
    with crowd(ASKING_PODS), listening(), inside(PODS):
        opened = sum(connects(pod_address(0), f"45.250.0.{number}") for number in range(1, UNASKED + 1))
        if opened:
            raise SystemExit(f"{opened} addresses that nobody asked for can be connected to")
        for turn in range(ROUNDS):
            failed = 0
            for number in range(turn * count, (turn + 1) * count):
                pod = pod_address(number % ASKING_PODS)
                address = looked_up(f"c{number}.{ZONE}", pod, number & 0xFFFF)
                begun_at = time.monotonic()
                failed += not (address and connects(pod, address))
                took_ms.append((time.monotonic() - begun_at) * 1000)
            failures.append(failed)
    took_ms.sort()
    note = (
        f"of {count} fresh names a round, by {ASKING_PODS} pods; connecting took"
        f" {took_ms[len(took_ms) // 2]:.2f} ms P50, {took_ms[len(took_ms) * 99 // 100]:.2f} P99;"
        f" of {UNASKED} addresses that nobody asked for none opened"
    )
    yield none_of("answer, then connect at once: failures", "connections", failures, note)


ROWS: tuple[Bench, ...] = (
    Bench("answer-then-connect", "real sockets behind the node", quick=True, run=connect),
)
