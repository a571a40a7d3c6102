"""Scenes about time and change: expiry, a policy edit, a pod that goes.

Owns plays and their words. Each leaves the stage as it found it, but for the pod that went.
"""

from __future__ import annotations

import ipaddress
import time

from enforcer.conntrack import Conntrack
from enforcer.demo import lab as labs
from enforcer.demo import places
from enforcer.demo.processes import LONG_S, wait_until
from enforcer.demo.scenes import Facts, Scene, Stage


def outlives(stage: Stage, facts: Facts) -> None:
    """Expiry stops new connections only; the next lookup opens again."""
    address = stage.crm.stub.ask(places.SHORT).addresses[0]
    transfer = stage.crm.transfer(address)
    expired = wait_until(lambda: not _granted(stage, places.SHORT), LONG_S, 0.1)
    facts.check(expired and transfer.grows(), f"grant gone, transfer goes on ({transfer.received} octets)")
    late = stage.crm.connect(address)
    facts.check(not late.ok, f"new connection without a lookup {late.outcome}")
    again = stage.crm.stub.ask(places.SHORT)
    attempt = stage.crm.connect(again.addresses[0])
    facts.check(attempt.ok, f"after a lookup {attempt.outcome}")
    facts.check(transfer.grows(), "transfer still runs" if transfer.running else f"transfer {transfer.error}")
    transfer.close()


def _granted(stage: Stage, name: str) -> bool:
    return any(row["name"] == name for row in stage.lab.ward.grants(stage.crm.name))


def edit(stage: Stage, facts: Facts) -> None:
    """A name that leaves the policy takes its connections with it; a new one works; others go on."""
    shop = stage.crm.stub.ask(places.SHOP).addresses[0]
    cut = stage.crm.transfer(shop)
    kept = stage.crm.transfer(stage.crm.stub.ask(places.CRM).addresses[0])
    others = stage.ledger.transfer(stage.ledger.stub.ask(places.LEDGER).addresses[0])
    facts.check(cut.grows() and kept.grows() and others.grows(), "three transfers run")
    edited_at = time.monotonic()
    domains = [name for name in labs.CRM_DOMAINS if name != places.SHOP]
    stage.lab.set_domains(labs.CRM_SERVER, [*domains, places.NEW])
    ended = cut.ends(LONG_S)
    took_ms = (time.monotonic() - edited_at) * 1000
    facts.check(ended, f"the removed one {'ended' if ended else 'still ran'} {took_ms:.0f} ms after the edit")
    opened = wait_until(lambda: bool(stage.crm.stub.ask(places.NEW).addresses), LONG_S)
    uploaded = stage.lab.world.uploaded(cut.name)
    attempt = stage.crm.connect(places.SITE_OF[places.NEW][0])
    facts.check(opened and attempt.ok, f"{places.NEW} {attempt.outcome}")
    rcode, again = stage.crm.stub.ask(places.SHOP).rcode, stage.crm.connect(shop)
    facts.check(rcode == "NXDOMAIN" and not again.ok, f"{places.SHOP} {rcode}, its address {again.outcome}")
    go_on = kept.grows() and others.grows()
    facts.check(go_on, "the others go on" if go_on else "another transfer ended")
    late = stage.lab.world.uploaded(cut.name) - uploaded
    facts.check(uploaded > 0 and late == 0, f"{uploaded} octets uploaded before the cut, {late} after")
    before = stage.lab.ward.status()
    stage.lab.set_domains(labs.CRM_SERVER, labs.CRM_DOMAINS)
    stage.lab.ward.await_policy(before)
    for transfer in (cut, kept, others):
        transfer.close()


def pod_goes(stage: Stage, facts: Facts) -> None:
    """Nothing of a pod outlives it, and the next one with its address inherits nothing."""
    lab, temp = stage.lab, stage.temp
    address = temp.stub.ask(places.TEMP).addresses[0]
    transfer = temp.transfer(address)
    port = transfer.port
    flows = _flows(stage, temp.addresses)
    facts.check(
        flows > 0 and transfer.grows() and len(lab.ward.grants(temp.name)) > 0,
        "before: a grant and a transfer",
    )
    lab.remove_pod(temp)
    gone = wait_until(lambda: not lab.ward.grants(temp.name), LONG_S, 0.02)
    facts.check(gone, "its grants are gone" if gone else "its grants stay")
    ended = wait_until(lambda: _flows(stage, temp.addresses) == 0, LONG_S, 0.05)
    facts.check(ended, f"{_flows(stage, temp.addresses)} of {flows} flows are left")
    heir = lab.add_pod(labs.NEXT_SERVER, temp.index)
    stage.temp = heir
    own = heir.stub.ask(places.NEXT)
    attempt = heir.connect(own.addresses[0]) if own.addresses else None
    facts.check(attempt is not None and attempt.ok, f"new pod's own name {own.rcode}")
    old, reused = heir.connect(address), heir.connect(address, source_port=port)
    facts.check(
        not old.ok and not reused.ok, f"old pod's address {old.outcome}, from its old port {reused.outcome}"
    )
    rcode = heir.stub.ask(places.TEMP).rcode
    facts.check(rcode == "NXDOMAIN", f"old pod's name {rcode}")
    names = {row["name"] for row in lab.ward.grants(heir.name)}
    facts.check(names == {places.NEXT}, f"grants of the new pod: {', '.join(sorted(names))}")


def _flows(stage: Stage, addresses: tuple[str, str]) -> int:
    """Count the connections that the node's kernel tracks from a pod's addresses."""
    sources = {ipaddress.ip_address(address).packed for address in addresses}
    with stage.lab.node.entered():
        return sum(flow.source in sources for flow in Conntrack().flows())


SCENES = (
    Scene(
        "a flow outlives its TTL",
        "5: a flow outlives its DNS TTL",
        f"a transfer from {places.SHORT} (TTL {places.SHORT_TTL_S} s), then a second connection after expiry",
        "the transfer goes on; the second connection needs a new lookup",
        outlives,
    ),
    Scene(
        "policy edit",
        "4: zero policy debt",
        f"{places.SHOP} leaves A's policy and {places.NEW} enters it while transfers run",
        "the transfer is cut at once, the new name opens, A's other and B's transfer go on",
        edit,
    ),
    Scene(
        "a pod goes",
        "4: zero policy debt",
        "a pod with a grant and a transfer goes; a pod of another server gets its address",
        "grants and flows go with it; the new pod inherits nothing",
        pod_goes,
    ),
)
