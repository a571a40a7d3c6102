"""Invariant 7: the order in which policies come makes no difference."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from enforcer.demo import lab as labs
from enforcer.demo import manifests, places
from enforcer.demo.processes import LONG_S, wait_until
from enforcer.demo.scenes import Stage

pytestmark = pytest.mark.kernel

Outcome = tuple[str, bool, bool]


def _outcome(stage: Stage) -> Outcome:
    """Return what the name, its TCP port and its UDP port give the CRM server's pod now."""
    answer = stage.crm.stub.ask(places.CRM)
    address = places.SITE_OF[places.CRM][0]
    return answer.rcode, stage.crm.connect(address).ok, stage.crm.echo(address, wait_s=0.5).ok


def _changed(stage: Stage, change: Callable[[], None]) -> None:
    """Change the manifests and wait until that is enforced; one at a time, or a look sees half."""
    before = stage.lab.ward.status()
    change()
    assert stage.lab.ward.await_policy(before)


def test_two_policies_of_one_pod_add_up_in_either_order(stage: Stage) -> None:
    """Obot's policy permits TCP, the platform's UDP: both hold, whichever file is read first."""
    udp = manifests.udp_policy(labs.CRM_SERVER, "platform-quic", places.CRM)
    folder = stage.lab.manifests
    seen: list[Outcome] = []
    _changed(stage, lambda: folder.remove("policy-quic"))
    for key in ("aaa-first", "zzz-last"):
        assert _outcome(stage) == ("NOERROR", True, False)
        _changed(stage, partial(folder.put, key, udp))
        assert wait_until(lambda: stage.crm.stub.ask(places.CRM).rcode == "NOERROR", LONG_S)
        seen.append(_outcome(stage))
        _changed(stage, partial(folder.remove, key))
    _changed(stage, lambda: folder.put("policy-quic", udp))
    assert seen == [("NOERROR", True, True)] * 2
