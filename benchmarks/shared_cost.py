"""What sharing costs the enforcer, alone: the ledger, the publisher and the door against a real Redis.

Run: ``python -m benchmarks.shared_cost``. Two processes open grants at a steady rate, one into the ledger
that shares nothing, one into the one that shares, by turns: each half a second, while the other rests, so
that what slows the machine slows both. The difference of the CPU that all their threads use in their turns
is what sharing costs. No kernel, no resolver, no network: nothing else is in the figure. Pauses are set as
the enforcer sets them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from policy.runtime import pauses

GRANTS_A_SECOND, SECONDS, TURN_S = 2_000, 15.0, 0.002
"""A turn opens what came since the last: four grants, as a node under that load does."""
LOADED_S, SLICE_S = 0.5, 0.75
"""Of each turn so much with grants, and all of it: what was opened is written within it."""
A_TURN = int(GRANTS_A_SECOND * LOADED_S)
STARTING_S = 1.5
"""From when both processes are ready to the first grant: Redis is found meanwhile."""
TTL_S = 120.0
POLICY, RULE = "obot-mcp/obot-mnp-ms1crm7k-fw", "allow-approved-egress"
PODS = 20


class Cost(NamedTuple):
    """CPU of the enforcer a grant (µs), in memory alone and shared, and the octets of Redis's memory."""

    alone_us: float
    shared_us: float
    redis_bytes: float

    @property
    def added_us(self) -> float:
        """What sharing adds."""
        return self.shared_us - self.alone_us


def _opened(kind: str, path: str, renews: bool, seconds: float) -> dict[str, float]:
    """Run the load in this process; returns its CPU microseconds a grant and what was published."""
    pauses.begin()
    from twisted.internet import reactor

    from enforcer.elements import grant_keys
    from enforcer.identity import Identity
    from enforcer.ledger import MemoryLedger, opening_of
    from enforcer.sharing.publishing.ledger import RedisLedger
    from enforcer.sharing.publishing.outbox import Outbox
    from policy.decision import Permit
    from policy.grants import Reason

    shares = kind == "shared"
    ledger = RedisLedger(Outbox(100_000, time.monotonic)) if shares else MemoryLedger()
    accounts = [
        ledger.open_account(
            Identity(
                bytes((10, 244, 0, pod + 2)),
                f"veth{pod}",
                f"uid-{pod}",
                "boot",
                f"obot-mcp/ms1crm7k-{pod:05d}",
            )
        )
        for pod in range(PODS)
    ]
    permit = Permit("tcp", 443, 443, POLICY, RULE)
    total = max(int(seconds / LOADED_S), 1) * A_TURN
    distinct = total // 4 if renews else total
    openings = []
    for number in range(distinct):
        account = accounts[number % PODS]
        destination = bytes((203, number >> 16 & 255, number >> 8 & 255, number & 255))
        [key] = grant_keys(account.identity.source, destination, permit)
        openings.append((account, key, Reason(f"h{number % 500}.example.com", POLICY, RULE)))
    publisher = _publishing(ledger, path, reactor) if shares else None
    cpu_s: list[float] = []

    def turn(part: int, done: int, goes_on_until: float) -> None:
        now = time.monotonic()
        due = min(int((now - goes_on_until + LOADED_S) * GRANTS_A_SECOND), A_TURN) + part * A_TURN
        if due > done:
            until = now + TTL_S
            ledger.adopt([opening_of(*openings[n % distinct], until) for n in range(done, due)], now)
        if due < (part + 1) * A_TURN:
            reactor.callLater(TURN_S, turn, part, due, goes_on_until)

    def begin(part: int) -> None:
        if part == 0:
            pauses.settle()
        cpu_s.append(time.process_time())
        turn(part, part * A_TURN, time.monotonic() + LOADED_S)
        reactor.callLater(SLICE_S, rest)

    def rest() -> None:
        cpu_s.append(time.process_time())

    print("ready", flush=True)
    start_at = max(float(sys.stdin.readline()), time.monotonic())
    parts = max(int(seconds / LOADED_S), 1)
    for part in range(parts):
        reactor.callLater(max(start_at - time.monotonic(), 0) + 2 * part * SLICE_S, begin, part)
    reactor.callLater(max(start_at - time.monotonic(), 0) + 2 * parts * SLICE_S, reactor.stop)
    reactor.run()
    used_s = sum(cpu_s[1::2]) - sum(cpu_s[::2])
    result = {"cpu_us": used_s / total * 1e6}
    if publisher is not None:
        result |= {"published": publisher.published, "dropped": publisher.dropped}
    return result


def _publishing(ledger: Any, path: str, reactor: Any) -> Any:
    """Join ledger, publisher and door, as the enforcer does."""
    import os

    from enforcer.blocked import BlockedRecords
    from enforcer.sharing.publishing.publisher import Publisher
    from enforcer.sharing.records.formats import NodeFacts
    from enforcer.sharing.records.keys import Keys
    from enforcer.sharing.records.seal import Keyring
    from enforcer.sharing.redis.credentials import Credentials
    from enforcer.sharing.redis.door import Door
    from policy.runtime.redis_url import parse_redis_url

    keys = Keys("bench", "node-a")
    key_file = Path(path).parent / "hmac-key"
    key_file.write_text("a key of the benchmark only\n")
    keyring = Keyring(b"a key of the benchmark only")

    class Heard:
        def redis_up(self) -> None:
            publisher.redis_up()

        def redis_lost(self, trouble: str) -> None:
            raise SystemExit(trouble)

        def entries_came(self, stream: bytes, entries: object) -> None:
            raise SystemExit(f"nobody writes to {stream!r}: {entries}")

        def keys_changed(self) -> None:
            publisher.reseal()

    door = Door(
        place=parse_redis_url(f"unix://{path}"),
        credentials=Credentials(hmac_key_file=str(key_file)),
        home=keys.heartbeat,
        streams=(keys.requests, keys.acks),
        events=Heard(),
        reactor=reactor,
        failed=lambda failure: failure.raiseException(),
    )
    facts = NodeFacts(
        version="0.1.0", generation=1, policy_hash="0" * 16, pods=PODS, grants=0, started_at="",
        enforcing=True, policies=1, rejected_policies=0, pending=0, last_realized_at="",
        problems=(), upstreams=(),
    )  # fmt: skip
    publisher = Publisher(
        door=door, keys=keys, keyring=lambda: keyring, ledger=ledger, facts=lambda: facts, pods=tuple,
        blocked=BlockedRecords(1000), session="a1b2c3d4", generation=lambda: 1, now=time.monotonic,
        ago=lambda _: "2026-11-22T12:00:00.123Z", later=reactor.callLater, randomness=os.urandom,
    )  # fmt: skip
    publisher.start()
    door.start()
    return publisher


def _started(kind: str, path: Path, what: str, seconds: float) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "benchmarks.shared_cost", kind, str(path), what, str(seconds)]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def _ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    process.stdout.readline()


def _ended(process: subprocess.Popen[str], start_at: float) -> dict[str, float]:
    out, errors = process.communicate(f"{start_at}\n")
    if process.returncode != 0:
        raise SystemExit(errors)
    row: dict[str, float] = json.loads(out)
    return row


def measure(what: str, seconds: float = SECONDS) -> Cost:
    """Open grants that are ``new``, or ``renewed`` (each four times), without sharing and with it."""
    from enforcer.demo.stores import Store

    with tempfile.TemporaryDirectory() as name, Store(Path(name) / "store") as store:
        running = [_started(kind, store.path, what, seconds) for kind in ("alone", "shared")]
        for process in running:
            _ready(process)
        start_at = time.monotonic() + STARTING_S
        with ThreadPoolExecutor(2) as pool:
            alone, shared = pool.map(_ended, running, (start_at, start_at + SLICE_S))
        if shared["dropped"]:
            raise SystemExit(f"{shared['dropped']:.0f} records were let go: nothing was measured")
        grants = len(store.cli("--scan", "--pattern", "*:grant:*").splitlines())
        full = _memory(store)
        store.cli("flushall")
        return Cost(alone["cpu_us"], shared["cpu_us"], (full - _memory(store)) / max(grants, 1))


def _memory(store: Any) -> int:
    said = store.cli("info", "memory").splitlines()
    return next(int(line.partition(":")[2]) for line in said if line.startswith("used_memory:"))


def main() -> int:
    """Measure both; or, with arguments, be the process that is measured."""
    if len(sys.argv) > 1:
        kind, path, what, seconds = sys.argv[1:]
        print(json.dumps(_opened(kind, path, what == "renewed", float(seconds))))
    else:
        found = {what: measure(what) for what in ("new", "renewed")}
        rows = {what: {**cost._asdict(), "added_us": cost.added_us} for what, cost in found.items()}
        print(json.dumps(rows, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
