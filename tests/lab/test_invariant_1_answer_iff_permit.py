"""Invariant 1: every address in an answer is reachable, and no other address is in an answer."""

from __future__ import annotations

import time

import pytest

from enforcer.demo import places, scenes_attacks, scenes_names
from enforcer.demo.lab import TEMP_SERVER
from enforcer.demo.processes import LONG_S, wait_until
from enforcer.demo.scenes import Scene, Stage, play
from enforcer.demo.stub import Stub

pytestmark = pytest.mark.kernel

SCENES = [
    scene for scene in (*scenes_names.SCENES, *scenes_attacks.SCENES) if scene.invariant.startswith("1:")
]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_scene(stage: Stage, scene: Scene) -> None:
    """The demo's scenes of this invariant hold, beside the rules of others too."""
    stage.lab.world.forget()
    step = play(scene, stage)
    assert step.ok, step.seen


def test_each_address_of_a_truncated_reply_is_open(stage: Stage) -> None:
    """A client that cannot use TCP gets whole records, and may connect to each of them."""
    cut = stage.crm.stub.ask_udp(places.MANY, ("A",))[0]
    assert cut.truncated
    assert cut.addresses
    assert all(stage.crm.connect(address).ok for address in cut.addresses)


def test_an_answer_is_usable_until_its_ttl_has_run_out(stage: Stage) -> None:
    """From before the answer is sent until the end of its TTL every connection is accepted."""
    tried = 0
    while tried < 2:
        answer = stage.crm.stub.ask(places.SHORT)
        ends_at = time.monotonic() + answer.ttl_s
        while (attempt := stage.crm.connect(answer.addresses[0])) and time.monotonic() < ends_at:
            assert attempt.ok
            tried += 1


def test_a_lookup_over_one_family_opens_only_what_was_answered(stage: Stage) -> None:
    """Asking for A opens no IPv6 address; asking over IPv6 transport opens the IPv4 answer."""
    pod = stage.lab.add_pod(TEMP_SERVER, 21)
    try:
        over_v6 = Stub(pod.space, "fd00:10:96::a")
        good4, good6 = places.SITE_OF[places.TEMP]
        assert wait_until(lambda: over_v6.ask(places.TEMP, "A").addresses == (good4,), LONG_S)
        assert pod.connect(good4).ok
        assert not pod.connect(good6).ok
    finally:
        stage.lab.remove_pod(pod)
