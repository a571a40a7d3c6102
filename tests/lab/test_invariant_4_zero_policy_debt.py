"""Invariant 4: with a rule, a policy, a label or a pod go its grants and its live connections."""

from __future__ import annotations

import pytest

from enforcer.demo import lab as labs
from enforcer.demo import manifests, places, scenes_life
from enforcer.demo.pods import Transfer
from enforcer.demo.processes import LONG_S, wait_until
from enforcer.demo.scenes import Scene, Stage, play

pytestmark = pytest.mark.kernel

SCENES = [scene for scene in scenes_life.SCENES if scene.invariant.startswith("4:")]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_scene(stage: Stage, scene: Scene) -> None:
    """The demo's scenes of this invariant hold, beside the rules of others too."""
    stage.lab.world.forget()
    step = play(scene, stage)
    assert step.ok, step.seen


def _ledger_transfer(stage: Stage) -> Transfer:
    assert wait_until(lambda: bool(stage.ledger.stub.ask(places.LEDGER).addresses), LONG_S)
    transfer = stage.ledger.transfer(places.SITE_OF[places.LEDGER][0])
    assert transfer.grows(), transfer.error
    return transfer


def test_a_policy_that_goes_cuts_what_it_permitted(stage: Stage) -> None:
    """Deleting the policy's file ends the transfer and closes the name."""
    transfer = _ledger_transfer(stage)
    stage.lab.manifests.remove(f"policy-{labs.LEDGER_SERVER}")
    try:
        assert transfer.ends(LONG_S)
        assert stage.ledger.stub.ask(places.LEDGER).rcode == "NXDOMAIN"
        assert not stage.ledger.connect(places.SITE_OF[places.LEDGER][0]).ok
    finally:
        stage.lab.set_domains(labs.LEDGER_SERVER, [places.LEDGER])
        transfer.close()


def test_a_label_that_goes_cuts_what_it_selected(stage: Stage) -> None:
    """A pod that leaves its SmartGroup loses grants and flows, and gets the new group's."""
    transfer = _ledger_transfer(stage)
    key, name = f"pod-{stage.ledger.name}", stage.ledger.name
    path = stage.lab.manifests.path / f"{key}.yaml"
    declared = path.read_text()
    uid = next(line.split()[1] for line in declared.splitlines() if line.strip().startswith("uid:"))
    stage.lab.manifests.put(key, manifests.pod(labs.NEXT_SERVER, name, uid, stage.ledger.addresses))
    try:
        assert transfer.ends(LONG_S)
        assert wait_until(lambda: bool(stage.ledger.stub.ask(places.NEXT).addresses), LONG_S)
        assert stage.ledger.stub.ask(places.LEDGER).rcode == "NXDOMAIN"
    finally:
        path.write_text(declared)
        transfer.close()
    assert wait_until(lambda: bool(stage.ledger.stub.ask(places.LEDGER).addresses), LONG_S)
