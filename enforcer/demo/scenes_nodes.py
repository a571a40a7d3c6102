"""Scenes with two nodes: a pod answered by another node, and the cluster seen from either.

Owns the stage with two nodes, plays and their words. What a node knows is always asked of that node.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from functools import partial

from enforcer.demo import lab as labs
from enforcer.demo import manifests, places, shared
from enforcer.demo.cluster import Cluster
from enforcer.demo.nodes import LabNode
from enforcer.demo.pods import Pod
from enforcer.demo.processes import LONG_S, wait_until
from enforcer.demo.scenes import Facts, Scene
from enforcer.demo.stub import Stub
from enforcer.demo.ward import Row

LOAD_SERVER = "ms1lod4q"
LOAD_NAMES = places.BULK_NAMES[:200]
"""Their TTL is 1 s: with 2,000 lookups a second some 400 grants a second are renewed."""
FAR_NAMES = places.BULK_NAMES[200:300]
"""Names that only the scenes of another node's resolver ask for: each its first time."""
LEDGER_DOMAINS = (places.LEDGER, places.SHORT, *FAR_NAMES)
SAID_S = LONG_S
"""How long status may take to say what happened to Redis, on a slow and busy machine; promised are 2 s."""


@dataclasses.dataclass(slots=True)
class NodesStage:
    """Two nodes and their pods: the CRM server on both, the ledger's on B only, and one that asks a lot on A.

    Node A believes a stale policy of its own, by which the ledger's server may reach the shop.
    """

    cluster: Cluster
    a: LabNode
    b: LabNode
    crm_a: Pod
    crm_b: Pod
    ledger: Pod
    load: Pod

    @property
    def by_a(self) -> Stub:
        """The ledger's pod asking node A's resolver."""
        return Stub(self.ledger.space, self.a.place.node4)


def set_nodes_stage(cluster: Cluster) -> NodesStage:
    """Write the policies and make the pods; no daemon is running yet."""
    a, b = cluster.nodes[:2]
    cluster.set_domains(labs.CRM_SERVER, labs.CRM_DOMAINS)
    cluster.set_domains(labs.LEDGER_SERVER, LEDGER_DOMAINS)
    cluster.set_domains(LOAD_SERVER, LOAD_NAMES, places.SINK_PORT)
    stale = manifests.obot_policy(labs.LEDGER_SERVER, [places.SHOP])
    stale["metadata"] = {"name": "stale", "namespace": places.NAMESPACE}
    a.own.put("policy-stale", stale)
    stage = NodesStage(
        cluster=cluster,
        a=a,
        b=b,
        crm_a=a.add_pod(labs.CRM_SERVER, 10),
        crm_b=b.add_pod(labs.CRM_SERVER, 10),
        ledger=b.add_pod(labs.LEDGER_SERVER, 11),
        load=a.add_pod(LOAD_SERVER, 12),
    )
    for pod in (stage.crm_b, stage.ledger):
        pod.stub = Stub(pod.space, b.place.node4)
    return stage


def start(stage: NodesStage, facts: Facts) -> None:
    """Both start, say that they enforce, and each soon shows the other."""
    for node in (stage.a, stage.b):
        facts.check(holds=True, seen=f"{node.place.name} enforces after {node.ward.start():.1f} s")
    for node in (stage.a, stage.b):
        names = ("node-a", "node-b")

        def all_seen(node: LabNode = node, names: tuple[str, ...] = names) -> bool:
            rows = node.ward.ask("status")
            well = all(row["enforcing"] and row["redis"] == "up" for row in rows)
            return tuple(row["node"] for row in rows) == names and well

        seen = wait_until(all_seen, LONG_S, 0.05)
        rows = ", ".join(
            f"{row['node']} {row['pods']} pods, redis {row['redis']}" for row in node.ward.ask("status")
        )
        facts.check(seen, f"{node.place.name} shows {rows}")


def own_node(stage: NodesStage, facts: Facts) -> None:
    """Each pod's own resolver answers; Redis hears of the grant afterwards."""
    for node, pod, name in ((stage.a, stage.crm_a, places.CRM), (stage.b, stage.ledger, places.LEDGER)):
        answer = pod.stub.ask(name)
        attempt = pod.connect(answer.addresses[0]) if answer.addresses else None
        said = f"{name} {answer.rcode} in {answer.took_s * 1000:.1f} ms"
        facts.check(attempt is not None and attempt.ok, f"{node.place.name}: {said}, connected")
    said = shared.differences(stage.cluster)
    facts.check(not said, said or "Redis has each node's grants and pods")


def other_node(stage: NodesStage, facts: Facts) -> None:
    """A asks B, B's kernel opens, then A answers: every connection works at once."""
    asked = stage.by_a
    took_ms: list[float] = []
    reached = resent = 0
    for name in FAR_NAMES[:50]:
        answer = asked.ask(name)
        attempt = stage.ledger.connect(answer.addresses[0]) if answer.addresses else None
        reached += attempt is not None and attempt.ok
        resent += attempt.resent if attempt else 0
        took_ms.append(answer.took_s * 1000)
    facts.check(reached == 50 and not resent, f"{reached} of 50 reached at once, {resent} SYNs sent again")
    facts.check(holds=True, seen=f"answered in {statistics.median(took_ms):.1f} ms (median)")
    rows = stage.b.ward.ask("grants", node="node-b", name=FAR_NAMES[0])
    facts.check(len(rows) == 1, f"node-b itself lists {len(rows)} grant of the first")
    mine = stage.a.ward.ask("grants", node="node-a", pod=stage.ledger.name)
    facts.check(not mine, f"node-a holds {len(mine)} for that pod")


def word_of_a(stage: NodesStage, facts: Facts) -> None:
    """What A would permit, B forbids: no answer, no grant, no packet."""
    answer = stage.by_a.once(places.SHOP)
    facts.check(not answer.addresses, f"{places.SHOP} by node-a {answer.rcode}")
    attempt = stage.ledger.connect(places.SITE_OF[places.SHOP][0])
    facts.check(not attempt.ok, f"its address {attempt.outcome}")
    verdicts = {
        node.place.name: node.ward.ask(
            "explain", namespace=places.NAMESPACE, pod=stage.ledger.name, name=places.SHOP, port=443
        )[0]["verdict"]
        for node in (stage.a, stage.b)
    }
    facts.check(verdicts["node-b"] == "deny", f"explain: {verdicts}")
    rows = stage.b.ward.ask("grants", node="node-b", name=places.SHOP, pod=stage.ledger.name)
    facts.check(not rows, f"{len(rows)} grants on node-b")


def from_either(stage: NodesStage, facts: Facts) -> None:
    """The same listings from A and from B, as an operator asks for them."""
    stage.crm_a.stub.ask(places.CRM)
    stage.ledger.stub.ask(places.LEDGER)
    stage.ledger.stub.ask(places.DROP)
    ledger = f"{places.NAMESPACE}/{stage.ledger.name}"
    stage.b.ward.await_blocked(stage.ledger.name, name=places.DROP)
    shared.differences(stage.cluster)
    for node in (stage.a, stage.b):
        grants = _listed(node, "grants")
        names = {(row["node"], row["name"]) for row in grants}
        both = {("node-a", places.CRM), ("node-b", places.LEDGER)} <= names
        facts.check(
            both, f"from {node.place.name}: {len(grants)} grants of {len({n for n, _ in names})} nodes"
        )
        seen = wait_until(partial(_has_blocked, node, stage.ledger.name), LONG_S, 0.2)
        facts.check(seen, f"{places.DROP} blocked on node-b" if seen else "no such record")
        pods = {(row["pod"], row["node"]) for row in _listed(node, "inventory") if row["kind"] == "pod"}
        facts.check((stage.ledger.name, "node-b") in pods, f"inventory of {len(pods)} pods")
        row = _listed(node, "explain", ledger, f"{places.LEDGER}:443")[0]
        facts.check(row["verdict"] == "permit" and bool(row["grants"]), f"explain: {row['verdict']}, granted")


def _has_blocked(node: LabNode, pod: str) -> bool:
    return any(row["pod"] == pod and row["node"] == "node-b" for row in _listed(node, "blocked"))


def _listed(node: LabNode, *arguments: str) -> list[Row]:
    done = node.ward.command(*arguments, "-o", "json")
    rows: list[Row] | Row = json.loads(done.stdout)
    return rows if isinstance(rows, list) else [rows]


def redis_cli(stage: NodesStage, facts: Facts) -> None:
    """The state can be read with redis-cli alone."""
    address = stage.ledger.stub.ask(places.LEDGER).addresses[0]
    key = shared.grant_key("node-b", stage.ledger.addresses[0], address, "tcp", 443)
    wait_until(lambda: stage.cluster.redis("EXISTS", key).strip() == "1", LONG_S, 0.05)
    fields = stage.cluster.redis("HGETALL", key).split("\n")
    found = dict(zip(fields[::2], fields[1::2], strict=False))
    facts.check(found.get("pod") == stage.ledger.name, f"HGETALL {key}: pod {found.get('pod')}")
    facts.check(places.LEDGER in found.get("reasons", ""), f"reasons {found.get('reasons')}")
    life_s = int(stage.cluster.redis("TTL", key))
    facts.check(0 < life_s <= 62, f"expires in {life_s} s")


def forged(stage: NodesStage, facts: Facts) -> None:
    """Who can write to Redis but has no key opens nothing and closes nothing."""
    redis, pod = stage.cluster.redis, stage.ledger
    pod.stub.ask(places.LEDGER)
    key = shared.grant_key("node-b", pod.addresses[0], places.ATTACKER4, "tcp", 443)
    fields = {"namespace": places.NAMESPACE, "pod": pod.name, "node": "node-b", "v": "1", "mac": "0" * 32}
    redis("HSET", key, *(part for field in fields.items() for part in field))
    request = {"v": "1", "kind": "grant", "id": "1", "from": "node-a", "to": "node-b", "session": "0"}
    request |= {"seq": "1", "podIP": pod.addresses[0], "name": places.DROP, "addresses": places.ATTACKER4}
    request |= {"ttl": "600", "mac": "0" * 32}
    parts = [part for field in request.items() for part in field]
    redis("XADD", f"{shared.prefix('node-b')}requests", "*", *parts)
    attempt = pod.connect(places.ATTACKER4, wait_s=0.5)
    packets = stage.cluster.world.counted("attacker")
    facts.check(
        not attempt.ok and packets == 0, f"{places.ATTACKER4} {attempt.outcome}, {packets} packets came"
    )
    for node in (stage.a, stage.b):
        rows = [row for row in node.ward.ask("grants") if row["address"] == places.ATTACKER4]
        facts.check(not rows, f"{node.place.name} lists {len(rows)} grants of it")
    counted = wait_until(
        lambda: stage.b.ward.metric("nameward_remote_requests_total", "forged") > 0, LONG_S, 0.1
    )
    facts.check(counted, "counted as forged" if counted else "not counted")
    redis("DEL", key)
    kept = any(row["name"] == places.LEDGER for row in stage.b.ward.grants(pod.name))
    facts.check(kept, f"{places.LEDGER} stays granted" if kept else f"{places.LEDGER} is granted no more")


BEFORE = (
    Scene(
        "two nodes",
        "sharing",
        "two nodes with one Redis start",
        "both enforce, and each shows both in status",
        start,
    ),
)

SCENES = (
    Scene(
        "answered by its own node",
        "1: answer if and only if permit",
        "a pod on each node asks its own node's resolver",
        "answered and reachable; the grants are in Redis too",
        own_node,
    ),
    Scene(
        "answered by another node",
        "1: answer if and only if permit",
        "a pod of node B asks node A's resolver for 50 names and connects to each answer at once",
        "B's kernel has the grant before A's answer: all are reached",
        other_node,
    ),
    Scene(
        "another node's word",
        "2: least privilege, per pod",
        f"node A has a stale policy that permits {places.SHOP} to a pod of B, and is asked by it",
        "B decides by its own policy: no answer, no grant, no packet",
        word_of_a,
    ),
    Scene(
        "the cluster from either node",
        "sharing",
        "nameward grants, blocked, inventory and explain on A and on B",
        "both show both nodes",
        from_either,
    ),
    Scene(
        "redis-cli",
        "sharing",
        "redis-cli HGETALL of a grant",
        "pod, name, rule and remaining time as plain text",
        redis_cli,
    ),
    Scene(
        "forged records",
        "6: Redis is never an authority",
        "somebody with write access to Redis writes a grant and a request for the attacker's address",
        "nothing opens, nothing closes, it is counted",
        forged,
    ),
)
