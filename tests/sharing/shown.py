"""Nodes that share through a real Redis, without kernel and resolver: what docs/redis.md shows is theirs.

Door, ledger, publisher and the requests between nodes are the real ones; the loop is a queue and a heap.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import queue
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from twisted.python.failure import Failure

from enforcer.asked import Found, Request
from enforcer.blocked import BlockedRecords, Refused
from enforcer.elements import grant_keys
from enforcer.identity import Identity
from enforcer.ledger import opening_of
from enforcer.sharing.cluster.view import View
from enforcer.sharing.nodes.remote import TICK_S, Remote
from enforcer.sharing.publishing.ledger import RedisLedger
from enforcer.sharing.publishing.outbox import Outbox
from enforcer.sharing.publishing.pods import PodFacts
from enforcer.sharing.publishing.publisher import Publisher
from enforcer.sharing.records.formats import NodeFacts
from enforcer.sharing.records.keys import Keys
from enforcer.sharing.records.seal import Keyring
from enforcer.sharing.redis.credentials import Credentials, TlsFiles
from enforcer.sharing.redis.door import Door, Entry
from policy.addresses import to_packed
from policy.decision import Permit
from policy.grants import Reason
from policy.runtime.clock import wall_now
from policy.runtime.redis_url import RedisPlace
from policy.snapshot import Snapshot

CLUSTER = "prod"
GRANT_S = 100.0


class Turns:
    """A loop: what threads bring, and timers."""

    def __init__(self) -> None:
        self._brought: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def callFromThread(self, callable: Callable[..., object], *args: object) -> None:  # noqa: A002
        """As a reactor."""
        self._brought.put(lambda: callable(*args))

    def later(self, delay_s: float, call: Callable[[], object]) -> None:
        """Call on a later turn."""
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._order), call))

    def until(self, is_so: Callable[[], bool], within_s: float = 60.0) -> None:
        """Turn until something is so."""
        deadline = time.monotonic() + within_s
        while not is_so():
            assert time.monotonic() < deadline, "it did not come to that"
            due_s = self._timers[0][0] - time.monotonic() if self._timers else 0.05
            with contextlib.suppress(queue.Empty):
                self._brought.get(timeout=min(max(due_s, 0.001), 0.05))()
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()


class SharingNode:
    """One node: what it holds is put into its ledger by hand, everything after that is real."""

    def __init__(
        self,
        turns: Turns,
        place: RedisPlace,
        etc: Path,
        name: str,
        session: str,
        *,
        cluster: str = CLUSTER,
        ago: Callable[[float], str] = wall_now,
        **facts: object,
    ) -> None:
        self.turns = turns
        self.name = name
        self.troubles: list[str] = []
        self._is_stopped = False
        self.snapshot: Snapshot | None = None
        self.keys = Keys(cluster, name)
        self.credentials = Credentials(
            hmac_key_file=str(etc / "keys" / "current"),
            previous_hmac_key_file=str(etc / "keys" / "previous"),
            password_file=str(etc / "redis-password"),
            tls=TlsFiles(str(etc / "redis-ca.crt")),
        )
        self._keyring = Keyring(b"nothing is believed yet")
        self.ledger = RedisLedger(Outbox(100_000, time.monotonic))
        self.blocked = BlockedRecords(1000)
        self._pods: list[PodFacts] = []
        self._facts = self._said(facts)
        self.door = Door(
            place=place, credentials=self.credentials, home=self.keys.heartbeat,
            streams=(self.keys.requests, self.keys.acks), events=self, reactor=turns, failed=self._failed,
        )  # fmt: skip
        self.publisher = Publisher(
            door=self.door, keys=self.keys, keyring=self.keyring, ledger=self.ledger,
            facts=lambda: self._facts._replace(pods=len(self._pods), grants=self.ledger.count),
            pods=lambda: self._pods, blocked=self.blocked, session=session,
            generation=lambda: self._facts.generation, now=time.monotonic, ago=ago, later=turns.later,
            randomness=lambda count: bytes(range(count)),
        )  # fmt: skip
        self.remote = Remote(
            keys=self.keys, session=session, keyring=self.keyring, door=self.door,
            challenges=lambda: self.publisher.challenges, snapshot=lambda: self.snapshot, held=self._held,
            look_again=lambda: None, hold_timeout_s=lambda: 30.0, now=time.monotonic, came=lambda: None,
        )  # fmt: skip

        self.view = View(self.door, self.keys, self.keyring, now=time.monotonic, later=turns.later)

    @staticmethod
    def _said(more: Mapping[str, object]) -> NodeFacts:
        facts = {
            "version": "0.1.0", "generation": 42, "policy_hash": "3f1c09ab", "pods": 0, "grants": 0,
            "started_at": wall_now(86400.0), "enforcing": True, "policies": 2, "rejected_policies": 0,
            "pending": 0, "last_realized_at": wall_now(1.0), "problems": (), "upstreams": (),
        } | more  # fmt: skip
        return NodeFacts(**facts)  # type: ignore[arg-type]

    def _failed(self, failure: Failure) -> None:
        failure.raiseException()

    def _held(self) -> Mapping[bytes, str]:
        return {source: account.identity.uid for source, account in self.ledger.accounts.items()}

    def keyring(self) -> Keyring:
        """What seals and believes now."""
        return self._keyring

    # --- the door's events -------------------------------------------------------------------------

    def redis_up(self) -> None:
        """Everything is written, by the keys that the door has read."""
        self._take_keys()
        self.publisher.redis_up()
        self.remote.redis_up()

    def redis_lost(self, trouble: str) -> None:
        """Kept, for whoever looks."""
        self.troubles.append(trouble)
        self.publisher.redis_lost()
        self.remote.redis_lost()

    def entries_came(self, stream: bytes, entries: Sequence[Entry]) -> None:
        """Other nodes ask and answer."""
        self.remote.entries_came(stream, entries)

    def keys_changed(self) -> None:
        """The key files have changed."""
        self._take_keys()
        self.publisher.reseal()

    def _take_keys(self) -> None:
        assert self.credentials.keys is not None
        self._keyring = Keyring(*self.credentials.keys)

    # --- life --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Come up, and have everything in Redis."""
        self.publisher.start()
        self.door.start()
        self._tick()
        self.turns.until(lambda: self.door.is_up or bool(self.troubles))
        assert self.troubles == []
        self.settle()

    def _tick(self) -> None:
        self.remote.tick()
        self.turns.later(TICK_S, self._tick)

    def settle(self) -> None:
        """Wait until Redis has what this node holds."""
        self.turns.until(lambda: self.publisher.is_settled and not self.troubles)

    def stop(self) -> None:
        """End as a killed one does, once."""
        if not self._is_stopped:
            self._is_stopped = True
            self.publisher.stop()
            self.door.stop()

    def found(self, **request: object) -> Found:
        """Ask the view, and wait for what it finds of the other nodes."""
        came: list[Found] = []
        close = self.view.find(Request(**request), (), came.append)  # type: ignore[arg-type]
        self.turns.until(lambda: bool(came))
        close()
        return came[0]

    # --- what it holds -----------------------------------------------------------------------------

    def add_pod(self, name: str, addresses: Iterable[str], policy: str) -> None:
        """Admit a pod of obot-mcp."""
        packed = tuple(map(to_packed, addresses))
        self._pods.append(
            PodFacts("obot-mcp", name, f"uid-{name}", packed, ("mcp",), (f"obot-mcp/{policy}",))
        )
        for source in packed:
            self.ledger.open_account(Identity(source, "veth", f"uid-{name}", "boot", f"obot-mcp/{name}"))

    def remove_pod(self, name: str) -> None:
        """Take a pod of obot-mcp away, with all that it was granted."""
        for facts in [each for each in self._pods if each.pod == name]:
            self._pods.remove(facts)
            for source in facts.addresses:
                self.ledger.close_account(source)

    def grant(
        self,
        source: str,
        address: str,
        name: str,
        policy: str,
        *,
        lasts_s: float = GRANT_S,
        ports: tuple[int, int] = (443, 443),
    ) -> None:
        """Open one address, as after the kernel's acknowledgement."""
        now, packed = time.monotonic(), to_packed(address)
        account = self.ledger.accounts[to_packed(source)]
        permit = Permit("tcp", *ports, f"obot-mcp/{policy}", "allow")
        reason = Reason(name, permit.policy, permit.rule)
        openings = [
            opening_of(account, key, reason, now + lasts_s)
            for key in grant_keys(account.identity.source, packed, permit)
        ]
        self.ledger.adopt(openings, now)

    def refuse(self, pod: str, source: str, name: str, times: int, *, address: str = "") -> None:
        """Record a refused lookup, or (with an address) a denied packet."""
        kind = "packet" if address else "lookup"
        reason = (
            "never resolved by this pod (hard-coded address?)"
            if address
            else f"no rule permits {name} for obot-mcp/{pod}"
        )
        refused = Refused(
            kind=kind, namespace="obot-mcp", pod=pod, pod_ip=source, name=name, qtype="" if address else "A",
            address=address, protocol="tcp" if address else "", port=443 if address else None, policy="",
            rule="", reason=reason, reason_class="no-rule", times=times, at=time.monotonic(),
        )  # fmt: skip
        self.blocked.add(refused)
