"""Scenes about names: what is answered, and that every answer can be reached.

Owns plays and their words. Never sets the stage.
"""

from __future__ import annotations

from enforcer.demo import places, zones
from enforcer.demo.processes import LONG_S
from enforcer.demo.scenes import Facts, Scene, Stage
from enforcer.demo.stub import Answer


def approved(stage: Stage, facts: Facts) -> None:
    """An approved name works over both families, both transports of DNS and of the data."""
    good = places.SITE_OF[places.CRM]
    v4, v6 = stage.crm.stub.pair(places.CRM)
    facts.check((*v4.addresses, *v6.addresses) == good, f"UDP: {_gave(v4)}, {_gave(v6)}")
    v4, v6 = (stage.crm.stub.ask(places.CRM, kind, tcp=True) for kind in ("A", "AAAA"))
    facts.check((*v4.addresses, *v6.addresses) == good, f"TCP: {_gave(v4)}, {_gave(v6)}")
    tries = {f"tcp {address}": stage.crm.connect(address) for address in good}
    tries |= {f"udp {address}": stage.crm.echo(address) for address in good}
    failed = [f"{way} {attempt.outcome}" for way, attempt in tries.items() if not attempt.ok]
    facts.check(not failed, ", ".join(failed) or f"{len(tries)} of {len(tries)} ways reached")
    grants = [row for row in stage.lab.ward.grants(stage.crm.name) if row["name"] == places.CRM]
    facts.check(len(grants) == 4, f"{len(grants)} grants listed")


def _gave(answer: Answer) -> str:
    """Say what an answer held: its addresses, or its response code."""
    return ", ".join(answer.addresses) or answer.rcode


def refused(stage: Stage, facts: Facts) -> None:
    """The attacker's name is refused at once, asks nobody outside, and is on record."""
    before = stage.lab.world.counted("upstream")
    v4, v6 = (stage.crm.stub.once(places.DROP, kind, wait_s=LONG_S) for kind in ("A", "AAAA"))
    said = f"A {v4.rcode}, AAAA {v6.rcode} after {v6.took_s * 1000:.0f} ms, asked once"
    facts.check(v4.rcode == v6.rcode == "NXDOMAIN", said)
    reason = stage.crm.stub.ask(places.DROP, edns=True).reason
    facts.check(bool(reason), f"client told: {reason or 'nothing'}")
    asked = stage.lab.world.counted("upstream") - before
    facts.check(asked == 0, f"{asked} packets to the name server")
    row = stage.lab.ward.await_blocked(stage.crm.name, name=places.DROP, kind="lookup")
    facts.check(row is not None, f"on record for {row['pod']}" if row else "no record")


def wildcard(stage: Stage, facts: Facts) -> None:
    """A leading * stands for one or more labels, and never for the apex or a look-alike."""
    stub = stage.crm.stub
    for name in (f"one.{places.FILES}", f"two.one.{places.FILES}"):
        answer = stub.ask(name)
        attempt = stage.crm.connect(answer.addresses[0]) if answer.addresses else None
        facts.check(attempt is not None and attempt.ok, f"{name} {answer.rcode}")
    for name in (places.FILES, f"evil{places.FILES}", "example.com"):
        rcode = stub.ask(name).rcode
        facts.check(rcode == "NXDOMAIN", f"{name} {rcode}")


def chain(stage: Stage, facts: Facts) -> None:
    """A chain through another domain is decided by the name that was asked."""
    v4, v6 = stage.crm.stub.pair(places.SHOP)
    facts.check(len(v4.targets) == 2 and len(v6.targets) == 2, f"chain by {', '.join(v4.targets)}")
    for address in v4.addresses + v6.addresses:
        attempt = stage.crm.connect(address)
        facts.check(attempt.ok, f"{address} {attempt.outcome}")
    facts.check(bool(v4.addresses and v6.addresses), f"{len(v4.addresses)} + {len(v6.addresses)} addresses")


def many(stage: Stage, facts: Facts) -> None:
    """Every one of 500 addresses is open when the answer is there."""
    short = stage.crm.stub.ask_udp(places.MANY, ("A",))[0]
    facts.check(short.truncated, f"UDP truncated with {len(short.addresses)} addresses")
    answer = stage.crm.stub.ask(places.MANY)
    complete = sorted(answer.addresses) == sorted(zones.many_addresses())
    facts.check(complete, f"TCP answer with {len(answer.addresses)}")
    reached = sum(stage.crm.connect(address).ok for address in answer.addresses)
    facts.check(reached == places.MANY_COUNT, f"{reached} of {places.MANY_COUNT} reached")


def rebinding(stage: Stage, facts: Facts) -> None:
    """Addresses that no outside name may give are taken out; the good one stays."""
    v4, v6 = stage.crm.stub.pair(places.MIXED)
    good4, good6 = places.SITE_OF[places.MIXED]
    facts.check(v4.addresses == (good4,), f"A: {_gave(v4)}")
    facts.check(v6.addresses == (good6,), f"AAAA: {_gave(v6)}")
    attempt = stage.crm.connect(good4)
    facts.check(attempt.ok, f"{good4} {attempt.outcome}")
    metadata = stage.crm.connect(places.METADATA, 80)
    packets = stage.lab.world.counted("metadata")
    facts.check(
        not metadata.ok and packets == 0, f"{places.METADATA} {metadata.outcome}, {packets} packets came"
    )


def first_packets(stage: Stage, facts: Facts) -> None:
    """The first SYN after an answer passes, 1,000 times of 1,000."""
    unanswered = opened = resent = 0
    for index, name in enumerate(places.BULK_NAMES):
        answer = stage.bulk.stub.ask(name, "AAAA" if index % 2 else "A")
        if not answer.addresses:
            unanswered += 1
            continue
        attempt = stage.bulk.connect(answer.addresses[0])
        opened += attempt.ok
        resent += attempt.resent
    facts.check(unanswered == 0, f"{unanswered} names without an answer")
    facts.check(opened == len(places.BULK_NAMES), f"{opened} connections opened")
    facts.check(resent == 0, f"{resent} SYNs sent again")


SCENES = (
    Scene(
        "approved name",
        "1: answer ⇔ permit",
        f"{places.CRM} asked over UDP and TCP; tcp/443 and udp/443 to its IPv4 and IPv6 address",
        "answered and reachable in all four ways",
        approved,
    ),
    Scene(
        "attacker's name",
        "1: answer ⇔ permit",
        f"{places.DROP} asked by the pod that may ask for {places.CRM}",
        "NXDOMAIN at once, nothing leaves the node, on record with the pod's name",
        refused,
    ),
    Scene(
        "apex and wildcard",
        "1: answer ⇔ permit",
        f"one and two labels under *.{places.FILES}, the apex itself, a look-alike",
        "labels under it work; apex and look-alike are NXDOMAIN",
        wildcard,
    ),
    Scene(
        "CNAME chain",
        "1: answer ⇔ permit",
        f"{places.SHOP}, which leads through example.org",
        "answered whole, both addresses reachable",
        chain,
    ),
    Scene(
        "500 addresses",
        "1: answer ⇔ permit",
        f"{places.MANY} over UDP, then TCP; a connection to each address",
        "500 of 500 reachable",
        many,
    ),
    Scene(
        "rebinding",
        "1: answer ⇔ permit",
        f"{places.MIXED}, which gives {places.METADATA}, 127.0.0.1, 10.1.2.3 (IPv6 too) and good ones",
        "only the good addresses in the answer; metadata unreachable",
        rebinding,
    ),
    Scene(
        "1,000 first packets",
        "1: answer ⇔ permit",
        "1,000 names, each connected to in the instant its answer arrives",
        "1,000 first SYNs accepted, none sent again",
        first_packets,
    ),
)
