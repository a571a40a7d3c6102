"""Scenes in which half of Nameward is killed, or its rules are flushed, under load.

Owns plays and their words. Kills only the worker of the lab's own daemon, by its process id, and
flushes only the lab's own node.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from enforcer.demo import places
from enforcer.demo.failure import LabFailureError
from enforcer.demo.load import Lookups, Siege
from enforcer.demo.processes import LONG_S, output_of, wait_until
from enforcer.demo.scenes import BROKEN, Facts, Scene, Stage
from enforcer.demo.ward import Ward

_LOADED_S = 2 * LONG_S
"""For so many lookups, on a slow machine."""
_ROUNDED_S = 2.0
"""By so much two listings of one grant may differ."""
_CHAINS = ["nft", "list", "chains", "inet"]
"""What reads elements, as ``nft list tables`` does, may not end while grants are made (docs/limits.md)."""
_LOAD_BEFORE, _LOAD_AFTER = 200, 400


def _back(ward: Ward, part: str, killed: int) -> bool:
    """Say whether a worker is running again in the killed one's place and the node enforces."""
    try:
        return ward.worker(part) != killed and ward.status()["enforcing"] is True
    except BROKEN:
        return False


def _strike_under_load(stage: Stage, facts: Facts, strike: Callable[[], Callable[[], bool]]) -> None:
    """Strike while a pod resolves, two transfer and one attacks; ``strike`` returns "is it back?"."""
    transfers = [
        stage.crm.transfer(stage.crm.stub.ask(places.CRM).addresses[0]),
        stage.ledger.transfer(stage.ledger.stub.ask(places.LEDGER).addresses[0]),
    ]
    lookups, siege = Lookups(stage.bulk), Siege(stage.crm)
    lookups.start()
    siege.start()
    try:
        if not wait_until(lambda: lookups.asked >= _LOAD_BEFORE, _LOADED_S):
            raise LabFailureError(f"only {lookups.asked} lookups in {_LOADED_S:.0f} s")
        listed_at = time.monotonic()
        before = stage.lab.ward.grants(stage.crm.name)
        struck_at = time.monotonic()
        back = wait_until(strike(), LONG_S, 0.02)
        facts.check(back, f"back after {time.monotonic() - struck_at:.2f} s")
        enough = lookups.asked + _LOAD_AFTER
        wait_until(lambda: lookups.asked >= enough, _LOADED_S)
    finally:
        lookups.stop()
        siege.stop()
    facts.check(
        lookups.lost == 0, f"{lookups.lost} of {lookups.asked} lookups lost ({lookups.repeated} sent again)"
    )
    if lookups.failures:
        facts.check(holds=False, seen=f"the lost ended with {', '.join(sorted(lookups.failures))}")
    facts.check(lookups.unreached == 0, f"{lookups.unreached} answers unreachable")
    running = sum(transfer.grows() for transfer in transfers)
    facts.check(running == 2, f"{running} of 2 transfers go on")
    packets = stage.lab.world.counted("attacker")
    facts.check(
        siege.opened + siege.answered + packets == 0, f"{packets} attacker's packets in {siege.tried} tries"
    )
    after = {row["name"] for row in stage.lab.ward.grants(stage.crm.name)}
    gone_s = time.monotonic() - listed_at + _ROUNDED_S
    kept = after >= {row["name"] for row in before if row["remainingSeconds"] > gone_s}
    facts.check(kept, "grants kept with their names" if kept else "grants lost their names")
    for transfer in transfers:
        transfer.close()


def _kill(stage: Stage, part: str) -> Callable[[], bool]:
    ward = stage.lab.ward
    killed = ward.kill(part)
    return lambda: _back(ward, part, killed)


def resolver_killed(stage: Stage, facts: Facts) -> None:
    """The resolver dies: nothing is lost, because what it held can be asked again."""
    _strike_under_load(stage, facts, lambda: _kill(stage, "resolver"))


def enforcer_killed(stage: Stage, facts: Facts) -> None:
    """The enforcer dies: the kernel keeps what it knows, and nothing opens meanwhile."""
    _strike_under_load(stage, facts, lambda: _kill(stage, "enforcer"))


def rules_flushed(stage: Stage, facts: Facts) -> None:
    """Somebody flushes nftables: the guard holds until the rules are back, with what they held."""

    def strike() -> Callable[[], bool]:
        output_of(stage.lab.node, ["nft", "-f", "-"], "flush ruleset\n" + stage.lab.foreign_rules)
        return lambda: "table inet nameward {" in output_of(stage.lab.node, _CHAINS)

    _strike_under_load(stage, facts, strike)


SCENES = (
    Scene(
        "resolver killed",
        "3: default deny holds when things break",
        "kill -9 of the resolver under lookups, transfers and attacks",
        "no lookup lost, no flow broken, nothing opens",
        resolver_killed,
    ),
    Scene(
        "enforcer killed",
        "3: default deny holds when things break",
        "kill -9 of the enforcer under lookups, transfers and attacks",
        "no lookup lost, no flow broken, nothing opens, grants adopted",
        enforcer_killed,
    ),
    Scene(
        "rules flushed",
        "3: default deny holds when things break",
        "nft flush ruleset, as a restart of nftables.service does, under lookups, transfers and attacks",
        "rules and grants back at once, no lookup lost, no flow broken, no packet leaks",
        rules_flushed,
    ),
)
