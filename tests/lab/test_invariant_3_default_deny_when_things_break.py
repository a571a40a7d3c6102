"""Invariant 3: when something breaks, nothing opens that was not open."""

from __future__ import annotations

import pytest

from enforcer.demo import lab as labs
from enforcer.demo import places, scenes_attacks, scenes_crash
from enforcer.demo.processes import LONG_S, wait_until
from enforcer.demo.scenes import Scene, Stage, play

pytestmark = pytest.mark.kernel

SCENES = [
    scene for scene in (*scenes_attacks.SCENES, *scenes_crash.SCENES) if scene.invariant.startswith("3:")
]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_scene(stage: Stage, scene: Scene) -> None:
    """The demo's scenes of this invariant hold, beside the rules of others too."""
    stage.lab.world.forget()
    step = play(scene, stage)
    assert step.ok, step.seen


def test_a_manifests_folder_that_vanishes_is_not_no_policies(stage: Stage) -> None:
    """The last good state stays, the status says so, and nothing opens."""
    folder = stage.lab.manifests.path
    away = folder.with_name("manifests-away")
    folder.rename(away)
    try:
        assert wait_until(lambda: bool(stage.lab.ward.status()["problems"]), LONG_S, 0.1)
        answer = stage.crm.stub.ask(places.CRM)
        assert stage.crm.connect(answer.addresses[0]).ok
        assert stage.crm.stub.ask(places.DROP).rcode == "NXDOMAIN"
        assert not stage.crm.connect(places.ATTACKER4).ok
    finally:
        away.rename(folder)
    assert wait_until(lambda: not stage.lab.ward.status()["problems"], LONG_S, 0.1)


def test_a_broken_file_keeps_the_last_good_policy(stage: Stage) -> None:
    """A file that no longer parses changes nothing but the status."""
    path = stage.lab.manifests.path / f"policy-{labs.LEDGER_SERVER}.yaml"
    good = path.read_text()
    path.write_text(good[: len(good) // 2] + "\n  - [unclosed")
    try:
        assert wait_until(lambda: bool(stage.lab.ward.status()["problems"]), LONG_S, 0.1)
        answer = stage.ledger.stub.ask(places.LEDGER)
        assert stage.ledger.connect(answer.addresses[0]).ok
        assert not stage.ledger.connect(places.ATTACKER4).ok
    finally:
        path.write_text(good)
    assert wait_until(lambda: not stage.lab.ward.status()["problems"], LONG_S, 0.1)
