"""A compromised node has the cluster's key and writes to Redis: it opens nothing, it takes nothing away.

Also the change of that key, while pods ask by way of the other node.
"""

from __future__ import annotations

import itertools
import json
import secrets
import time
from collections.abc import Callable
from functools import partial

import pytest

from enforcer.demo import places, shared
from enforcer.demo.nodes import LabNode
from enforcer.demo.processes import LONG_S, wait_until
from enforcer.demo.scenes_nodes import NodesStage
from enforcer.sharing.nodes.letters import Asked, Claimed, Owner, written
from enforcer.sharing.records.keys import Keys
from enforcer.sharing.records.seal import Keyring, NotBelieved, check
from policy.addresses import to_packed

pytestmark = pytest.mark.kernel

SESSION = "5e55104e"
READ_S = 1.5
"""A node reads its files every second."""


class Villain:
    """Node A's key in the wrong hands: letters to node B that B cannot tell from A's."""

    def __init__(self, stage: NodesStage) -> None:
        """Take the key."""
        self._stage = stage
        self._ring = Keyring(stage.cluster.hmac_key.encode())
        self._keys = Keys("demo", "node-b")
        self._seq = itertools.count(1).__next__
        self.uid = self._field(shared.prefix("node-b") + f"pod:{stage.ledger.addresses[0]}", "uid")

    def _field(self, key: str, name: str) -> str:
        return self._stage.cluster.redis("HGET", key, name)

    @property
    def challenge(self) -> str:
        """What B wants to see in a letter now."""
        return self._field(shared.prefix("node-b") + "node", "challenge")

    def _put(self, words: tuple[str, ...], key: bytes, letter: Asked | Claimed | Owner) -> None:
        fields = written(self._ring, key, letter)
        said = [part.decode() for field in fields.items() for part in field]
        self._stage.cluster.redis(words[0], key.decode(), *words[1:], *said)

    def ask(self, name: str, address: str) -> None:
        """Ask B to open an address for its ledger's pod."""
        source = to_packed(self._stage.ledger.addresses[0])
        opened = (to_packed(address),)
        seq = self._seq()
        letter = Asked(
            seq, "node-a", SESSION, seq, "node-b", self.challenge, source, self.uid, name, opened, 60
        )
        self._put(("XADD", "*"), self._keys.requests, letter)

    def claim(self) -> None:
        """Say that the ledger's address is on node A, and has been for a thousand generations."""
        source = to_packed(self._stage.ledger.addresses[0])
        self._put(("HSET",), self._keys.owner(source), Owner("node-a", "another", 1000, disputed=False))
        claimed = Claimed("node-a", SESSION, self._seq(), "node-b", self.challenge, source, "another", 1000)
        self._put(("XADD", "*"), self._keys.requests, claimed)


@pytest.fixture
def villain(nodes: NodesStage) -> Villain:
    """Someone on node A who is root there."""
    return Villain(nodes)


def requests(stage: NodesStage) -> float:
    """How many letters B has taken note of, whatever became of them."""
    return stage.b.ward.metric("nameward_remote_requests_total")


def told(stage: NodesStage, say: Callable[[], None]) -> None:
    """Say something to B, and wait until it has taken note."""
    before = requests(stage)
    say()
    assert wait_until(lambda: requests(stage) > before, LONG_S)


def test_what_b_permits_it_opens_so_the_letters_are_good(nodes: NodesStage, villain: Villain) -> None:
    """A permitted name is opened: the attacks below fail for what they ask, not for how."""
    address = places.SITE_OF[places.SHORT][0]
    told(nodes, lambda: villain.ask(places.SHORT, address))
    assert wait_until(lambda: nodes.ledger.connect(address).ok, LONG_S)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (places.DROP, places.ATTACKER4),
        (places.CRM, places.SITE_OF[places.CRM][0]),
        (places.LEDGER, places.METADATA),
        (places.LEDGER, places.NODE4),
        (f"{places.LEDGER}.{places.DROP}", places.ATTACKER4),
    ],
)
def test_what_b_forbids_stays_closed(nodes: NodesStage, villain: Villain, name: str, address: str) -> None:
    """Names that B's policy does not permit, and addresses that no name opens."""
    nodes.cluster.world.forget()
    told(nodes, lambda: villain.ask(name, address))
    assert not nodes.ledger.connect(address, wait_s=0.5).ok
    rows = nodes.b.ward.ask("grants", node="node-b", pod=nodes.ledger.name)
    assert address not in {row["address"] for row in rows}
    assert nodes.cluster.world.counted("attacker") == 0
    assert nodes.cluster.world.counted("metadata") == 0


def test_a_false_claim_takes_nothing_away(nodes: NodesStage, villain: Villain) -> None:
    """B's own source and interface have the pod: its grants, flows and own lookups go on."""
    address = nodes.ledger.stub.ask(places.LEDGER).addresses[0]
    transfer = nodes.ledger.transfer(address)
    told(nodes, villain.claim)
    assert transfer.grows(), transfer.error
    assert nodes.ledger.connect(address).ok
    rows = nodes.b.ward.ask("grants", node="node-b", pod=nodes.ledger.name)
    assert places.LEDGER in {row["name"] for row in rows}
    assert nodes.ledger.stub.ask(places.SHORT).addresses
    assert transfer.grows(), transfer.error
    transfer.close()
    answers = wait_until(lambda: bool(nodes.by_a.once(places.LEDGER).addresses), LONG_S, 0.2)
    assert answers, nodes.b.ward.status()["problems"]


def test_a_change_of_the_key_has_no_gap(nodes: NodesStage) -> None:
    """First believed, then used, then alone, node by node: each believes the other all the time."""
    old, new = nodes.cluster.hmac_key, secrets.token_hex(32)
    forged = [doubts(node) for node in nodes.cluster.nodes]
    for pod, name in ((nodes.crm_a, places.CRM), (nodes.ledger, places.LEDGER)):
        assert pod.stub.ask(name).addresses
    assert not (said := shared.differences(nodes.cluster)), said
    for current, previous in ((old, new), (new, old), (new, new)):
        for node in nodes.cluster.nodes:
            nodes.cluster.set_keys(node.place, current, previous)
            until_at = time.monotonic() + READ_S
            while time.monotonic() < until_at:
                answer = nodes.by_a.once(places.LEDGER)
                assert answer.addresses, (node.place.name, answer)
                assert nodes.crm_a.stub.ask(places.CRM).addresses
                for asked, other in ((nodes.a, "node-b"), (nodes.b, "node-a")):
                    rows = asked.ward.ask("status", node=other)
                    assert not rows[0]["lost"], (node.place.name, rows)
                    assert asked.ward.ask("grants", node=other), (node.place.name, asked.ward.warned)
                    assert not asked.ward.warned, (node.place.name, asked.ward.warned)
            assert wait_until(partial(is_sealed_by, nodes, node, current), LONG_S, 0.1)
        shown = [row["node"] for row in nodes.a.ward.ask("status") if not row.get("lost")]
        assert shown == ["node-a", "node-b"]
    nodes.cluster.hmac_key = new
    difference = shared.differences(nodes.cluster)
    assert not difference, difference
    assert [doubts(node) for node in nodes.cluster.nodes] == forged


def doubts(node: LabNode) -> float:
    """How many records and letters the node did not believe for their seal."""
    names = ("nameward_shared_records_total", "nameward_remote_requests_total")
    return sum(node.ward.metric(name, "forged") for name in names)


def is_sealed_by(stage: NodesStage, node: LabNode, key: str) -> bool:
    """Whether the node's record has the seal of this key."""
    name = f"{shared.prefix(node.place.name)}node"
    fields = json.loads(stage.cluster.redis("--json", "HGETALL", name))
    try:
        check(Keyring(key.encode()), name.encode(), {k.encode(): v.encode() for k, v in fields.items()})
    except NotBelieved:
        return False
    return True
