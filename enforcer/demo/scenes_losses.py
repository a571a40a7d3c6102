"""Scenes with two nodes in which Redis is lost, a node is lost, or everything changes at once.

Owns plays and their words. Kills only what the lab itself started, by its process id.
"""

from __future__ import annotations

import time

from enforcer.demo import lab as labs
from enforcer.demo import places, shared
from enforcer.demo.flood import Flood, Plan
from enforcer.demo.nodes import LabNode
from enforcer.demo.processes import LONG_S, wait_until
from enforcer.demo.scenes import BROKEN, Facts, Scene
from enforcer.demo.scenes_nodes import FAR_NAMES, LOAD_NAMES, SAID_S, NodesStage

LOST_S = 40.0
"""A node's record lives 10 s without a heartbeat."""
_RATE = 500.0
"""Lookups a second in the demo, which has to run on small machines too."""


def says(node: LabNode, redis: str, within_s: float = SAID_S) -> float | None:
    """Wait until the node's status says ``up`` or ``lost``; returns the seconds that took, or None."""
    started_at = time.monotonic()
    seen = wait_until(lambda: node.ward.status()["redis"] == redis, within_s, 0.02)
    return time.monotonic() - started_at if seen else None


def redis_killed(stage: NodesStage, facts: Facts) -> None:
    """Redis is killed under load: the node's own pods notice nothing, other nodes' pods are told soon."""
    fresh = iter(FAR_NAMES[50:])
    flood = Flood(stage.load.space, Plan(places.CLUSTER_DNS, LOAD_NAMES, rate=_RATE, most_open=100))
    transfer = stage.crm_a.transfer(stage.crm_a.stub.ask(places.CRM).addresses[0])
    try:
        wait_until(lambda: flood.counts().answered >= _RATE, LONG_S, 0.2)
        before = flood.mark()
        stage.cluster.store.kill()
        for node in (stage.a, stage.b):
            took_s = says(node, "lost")
            facts.check(took_s is not None, f"{node.place.name} says lost after {_seconds(took_s)}")
        answer = stage.by_a.once(next(fresh))
        facts.check(
            answer.rcode == "SERVFAIL",
            f"by the other node {answer.rcode} after {answer.took_s * 1000:.0f} ms",
        )
        own = stage.ledger.stub.ask(next(fresh))
        attempt = stage.ledger.connect(own.addresses[0]) if own.addresses else None
        facts.check(attempt is not None and attempt.ok, f"by its own node {own.rcode}, connected")
        wait_until(lambda: flood.counts().asked >= before.asked + 3 * _RATE, LONG_S, 0.2)
    finally:
        counts = flood.stop()
    during = counts - before
    facts.check(
        counts.lost == 0, f"{counts.lost} of {during.asked} local lookups lost ({during.repeated} repeated)"
    )
    facts.check(counts.unreached == 0, f"{counts.unreached} answers unreachable, P99 {during.p99_ms:.1f} ms")
    facts.check(transfer.grows(), "a transfer goes on")
    transfer.close()


def _seconds(took_s: float | None) -> str:
    return "never" if took_s is None else f"{took_s:.1f} s"


def redis_back(stage: NodesStage, facts: Facts) -> None:
    """Redis comes back without a single key: soon it has what every node knows."""
    stage.cluster.store.start()
    started_at = time.monotonic()
    said = shared.differences(stage.cluster)
    took_s = time.monotonic() - started_at
    facts.check(not said, said or f"Redis equals each node's truth after {took_s:.1f} s")
    for node in (stage.a, stage.b):
        facts.check(says(node, "up") is not None, f"{node.place.name} says up")
    answered = wait_until(lambda: bool(stage.by_a.once(FAR_NAMES[60]).addresses), LONG_S)
    facts.check(answered, "the other node answers again" if answered else "the other node does not answer")


def enforcer_killed(stage: NodesStage, facts: Facts) -> None:
    """B's enforcer dies and comes back with what the kernel held, names and all, and A still sees it."""
    stage.ledger.stub.ask(places.LEDGER)
    before = _names(stage.b, stage.b)
    killed = stage.b.ward.kill("enforcer")

    def back() -> bool:
        try:
            return stage.b.ward.worker("enforcer") != killed and stage.b.ward.status()["enforcing"] is True
        except BROKEN:
            return False

    struck_at = time.monotonic()
    facts.check(wait_until(back, LONG_S, 0.02), f"back after {time.monotonic() - struck_at:.2f} s")
    kept = before & _names(stage.b, stage.b)
    facts.check(places.LEDGER in kept, f"node-b lists {', '.join(sorted(kept)[:3])}")
    attempt = stage.ledger.connect(places.SITE_OF[places.LEDGER][0])
    facts.check(attempt.ok, f"without a new lookup {attempt.outcome}")
    seen = wait_until(lambda: places.LEDGER in _names(stage.a, stage.b), LONG_S, 0.1)
    facts.check(seen, "node-a lists them as node-b's" if seen else "node-a does not list them")
    said = shared.differences(stage.cluster)
    facts.check(not said, said or "Redis has them, of the new session")


def _names(asked: LabNode, of: LabNode) -> set[str]:
    rows = asked.ward.ask("grants", node=of.place.name)
    return {row["name"] for row in rows if not row.get("lost")}


def edit(stage: NodesStage, facts: Facts) -> None:
    """A name leaves the policy of a server with pods on both nodes: cut on both, gone from Redis."""
    transfers = [pod.transfer(pod.stub.ask(places.SHOP).addresses[0]) for pod in (stage.crm_a, stage.crm_b)]
    kept = stage.ledger.transfer(stage.ledger.stub.ask(places.LEDGER).addresses[0])
    facts.check(all(transfer.grows() for transfer in (*transfers, kept)), "three transfers run")
    edited_at = time.monotonic()
    domains = [name for name in labs.CRM_DOMAINS if name != places.SHOP]
    stage.cluster.set_domains(labs.CRM_SERVER, domains)
    for node, transfer in zip((stage.a, stage.b), transfers, strict=True):
        ended = transfer.ends(LONG_S)
        took_ms = (time.monotonic() - edited_at) * 1000
        facts.check(
            ended, f"{node.place.name} {'cut it' if ended else 'had not cut it'} after {took_ms:.0f} ms"
        )
        transfer.close()
    shop = shared.grant_key("*", "*", places.SITE_OF[places.SHOP][0], "*", "*")
    gone = wait_until(lambda: not stage.cluster.redis("--scan", "--pattern", shop).strip(), LONG_S, 0.1)
    facts.check(gone, "its grants are gone from Redis" if gone else "its grants are still in Redis")
    facts.check(kept.grows(), "the other server's transfer goes on")
    kept.close()
    stage.cluster.set_domains(labs.CRM_SERVER, labs.CRM_DOMAINS)


def node_dies(stage: NodesStage, facts: Facts) -> None:
    """B loses power: A says so, and never shows what B had as live."""
    stage.ledger.stub.ask(places.LEDGER)
    shared.differences(stage.cluster)
    stage.b.die()
    died_at = time.monotonic()

    def shown_lost() -> bool:
        return any(row["node"] == "node-b" and row.get("lost") for row in stage.a.ward.ask("status"))

    seen = wait_until(shown_lost, LOST_S, 0.2)
    facts.check(seen, f"node-a shows node-b lost after {time.monotonic() - died_at:.0f} s")
    live = _names(stage.a, stage.b)
    facts.check(not live, f"{len(live)} grants of node-b shown as live")
    answer = stage.by_a.once(FAR_NAMES[70])
    facts.check(not answer.addresses, f"its pod, asking node-a: {answer.rcode}")
    rows = stage.a.ward.ask("status", node="node-a")
    facts.check(rows[0]["enforcing"] is True, "node-a enforces")


SCENES = (
    Scene(
        "Redis killed",
        "3: losing Redis costs the sharing, nothing else",
        f"kill -9 of Redis under {_RATE:.0f} lookups a second, each followed by a connection",
        "no local lookup lost, no flow broken; status says it (promised: in 2 s); by another node SERVFAIL",
        redis_killed,
    ),
    Scene(
        "Redis back, empty",
        "sharing",
        "Redis starts again without a key",
        "soon (promised: in 5 s) it holds what each node knows, no more and no less",
        redis_back,
    ),
    Scene(
        "enforcer killed",
        "3: default deny holds when things break",
        "kill -9 of node B's enforcer",
        "back with names and rules, also in Redis and in A's listing",
        enforcer_killed,
    ),
    Scene(
        "policy edit on both nodes",
        "4: zero policy debt",
        f"{places.SHOP} leaves the policy of a server with a pod on each node, transfers running",
        "cut on both nodes, gone from Redis, others go on",
        edit,
    ),
    Scene(
        "a node dies",
        "sharing",
        "every process of node B is killed at once",
        "A shows it as lost, and none of its grants as live",
        node_dies,
    ),
)
