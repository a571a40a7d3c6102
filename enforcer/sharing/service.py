"""Shared state of one enforcer: door, publisher and the other nodes' requests, joined to its loop.

Owns who is told what when Redis comes, goes or has something to say. Decides nothing, and nobody waits for
it. Invariant: whatever Redis does, this node answers and enforces as if it were alone.
"""

from __future__ import annotations

import importlib
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from twisted.python.failure import Failure

from enforcer.asked import Row
from enforcer.blocked import BlockedRecords
from enforcer.inventory import Inventory
from enforcer.metrics import Series
from enforcer.records import Records
from enforcer.sharing.cluster.view import View
from enforcer.sharing.nodes.remote import TICK_S, Remote
from enforcer.sharing.publishing.facts import facts_of
from enforcer.sharing.publishing.ledger import RedisLedger
from enforcer.sharing.publishing.namesake import Namesake
from enforcer.sharing.publishing.pods import PodFacts
from enforcer.sharing.publishing.publisher import Publisher
from enforcer.sharing.records.keys import Keys
from enforcer.sharing.records.seal import Keyring
from enforcer.sharing.redis.credentials import Credentials
from policy.addresses import to_packed
from policy.runtime.clock import MonotonicReactor, now, wall_now
from policy.runtime.redis_url import parse_redis_url
from policy.runtime.settings import Settings
from policy.runtime.state_section import RedisSettings
from policy.snapshot import Snapshot

if TYPE_CHECKING:
    from enforcer.sharing.redis.door import Door, Entry, Trouble

SESSION_BYTES = 4
_DOOR = "enforcer.sharing.redis.door"
"""Imported only where it is opened: it needs Redis's client."""


class Here(NamedTuple):
    """What sharing asks of the node."""

    settings: Callable[[], Settings]
    """What is in force."""
    snapshot: Callable[[], Snapshot | None]
    """What decides."""
    status: Callable[[], Row]
    """The row of ``nameward status``."""
    look_again: Callable[[], None]
    """Looks at manifests and interfaces anew."""
    asked: Callable[[], None]
    """Takes requests of other nodes in a turn."""


class Sharing:
    """See the module."""

    tick_every_s = TICK_S

    def __init__(
        self,
        *,
        reactor: MonotonicReactor,
        redis: RedisSettings,
        settings: Settings,
        ledger: RedisLedger,
        blocked: BlockedRecords,
        records: Records,
        here: Here,
        failed: Callable[[Failure], None],
    ) -> None:
        self._ledger = ledger
        self._records = records
        self._here = here
        self._errors: Counter[str] = Counter()
        self._started_at = wall_now()
        self._pods: tuple[Snapshot | None, int, list[PodFacts]] = (None, 0, [])
        self.credentials = Credentials.of(redis)
        self._keyring = Keyring(secrets.token_bytes(32))  # until the files are read: nothing is believed
        self.keys = Keys(settings.cluster, settings.node)
        session = secrets.token_hex(SESSION_BYTES)
        opened: type[Door] = importlib.import_module(_DOOR).Door
        self.door = opened(
            place=parse_redis_url(redis.url),
            credentials=self.credentials,
            home=self.keys.heartbeat,
            streams=(self.keys.requests, self.keys.acks),
            events=self,
            reactor=reactor,
            failed=failed,
        )
        self.publisher = self._publishing(reactor, session, blocked)
        self.remote = self._asking_others(session)
        self._namesake = Namesake(self.door, self.keys, self.keyring, session, now)
        self.view = View(self.door, self.keys, self.keyring, now=now, later=reactor.callLater)

    def _publishing(self, reactor: MonotonicReactor, session: str, blocked: BlockedRecords) -> Publisher:
        return Publisher(
            door=self.door,
            keys=self.keys,
            keyring=self.keyring,
            ledger=self._ledger,
            facts=lambda: facts_of(self._here.status(), self._started_at),
            pods=self._pods_here,
            blocked=blocked,
            session=session,
            generation=self._generation,
            now=now,
            ago=wall_now,
            later=reactor.callLater,
            randomness=secrets.token_bytes,
        )

    def _asking_others(self, session: str) -> Remote:
        return Remote(
            keys=self.keys,
            session=session,
            keyring=self.keyring,
            door=self.door,
            challenges=lambda: self.publisher.challenges,
            snapshot=self._here.snapshot,
            held=lambda: {source: each.identity.uid for source, each in self._ledger.accounts.items()},
            look_again=self._here.look_again,
            hold_timeout_s=lambda: self._here.settings().dns.hold_timeout_s,
            now=now,
            came=self._here.asked,
        )

    def start(self) -> None:
        """Begin; Redis may be there or not."""
        self.publisher.start()
        self.door.start()

    def stop(self) -> None:
        """End; what stands in Redis expires by itself."""
        self.publisher.stop()
        self.door.stop()

    def tick(self) -> None:
        """Do what is due; every ``tick_every_s``."""
        self.remote.tick()
        self._namesake.look()

    def keyring(self) -> Keyring:
        """Return the keys that seal and check now."""
        return self._keyring

    # --- what the node shows (enforcer.node.Shared) ------------------------------------------------

    @property
    def state(self) -> Literal["up", "lost"]:
        """Say whether Redis answers."""
        return "up" if self.door.is_up else "lost"

    @property
    def problems(self) -> tuple[str, ...]:
        """Return what ``status`` says of it."""
        said = ["" if self.door.is_up else str(self.door.trouble), self.credentials.problem]
        return tuple(each for each in (*said, self._namesake.problem, *self.remote.problems) if each)

    @property
    def counts(self) -> Mapping[Series, float]:
        """Return the counters of ``policy.runtime.metrics`` that are about sharing."""
        published, dropped = self.publisher.published, self.publisher.dropped
        counts: dict[Series, float] = {
            ("nameward_shared_records_total", ("published",)): published,
            ("nameward_shared_records_total", ("dropped",)): dropped,
        }
        for doubt, count in self.view.doubts.items():
            outcome = "forged" if doubt == "mac" else doubt
            counts["nameward_shared_records_total", (outcome,)] = count
        for reason, count in self._errors.items():
            counts["nameward_redis_errors_total", (reason,)] = count
        for outcome, count in self.remote.counts.items():
            counts["nameward_remote_requests_total", (outcome,)] = count
        return counts

    # --- what the door tells (enforcer.sharing.redis.door.Events) ----------------------------------------

    def redis_up(self) -> None:
        """Redis answers: everything is written, every claim is made."""
        self._take_keys()
        self._records.tell("redis.back")
        self.publisher.redis_up()
        self.remote.redis_up()

    def redis_lost(self, trouble: Trouble) -> None:
        """Redis is away, or still away for another reason."""
        self._errors[trouble.reason] += 1
        self._records.tell("redis.lost", "warning", reason=str(trouble))
        self.publisher.redis_lost()
        self.remote.redis_lost()

    def entries_came(self, stream: bytes, entries: Sequence[Entry]) -> None:
        """Other nodes ask, or answer."""
        self.remote.entries_came(stream, entries)

    def keys_changed(self) -> None:
        """The files of the keys have changed."""
        self._take_keys()
        self.publisher.reseal()
        self.remote.reseal()

    def _take_keys(self) -> None:
        if self.credentials.keys is not None:
            self._keyring = Keyring(*self.credentials.keys)

    # --- what the parts ask -------------------------------------------------------------------------

    def _generation(self) -> int:
        snapshot = self._here.snapshot()
        return snapshot.generation if snapshot else 0

    def _pods_here(self) -> Iterable[PodFacts]:
        """Return the admitted pods; made anew only after a change, for every heartbeat asks."""
        snapshot, accounts = self._here.snapshot(), self._ledger.accounts
        tags = hash(frozenset(account.tag for account in accounts.values()))
        if self._pods[0] is not snapshot or self._pods[1] != tags:
            self._pods = (snapshot, tags, list(_pods(snapshot, frozenset(accounts), self.keys.node)))
        return self._pods[2]


def _pods(snapshot: Snapshot | None, admitted: frozenset[bytes], node: str) -> Iterable[PodFacts]:
    if snapshot is None:
        return
    inventory = Inventory(snapshot)
    for pod in snapshot.world.pods:
        addresses = tuple(each for each in map(to_packed, pod.addresses) if each in admitted)
        if addresses:
            row = inventory.pod(pod, node)
            groups, policies = tuple(row["smartGroups"]), tuple(row["policies"])
            yield PodFacts(pod.namespace, pod.name, pod.uid, addresses, groups, policies)
