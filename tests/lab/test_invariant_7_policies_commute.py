"""Invariant 7: the order in which policies come makes no difference."""

from __future__ import annotations

import pytest

from enforcer.demo import lab as labs
from enforcer.demo import manifests, places
from enforcer.demo.processes import wait_until
from enforcer.demo.scenes import Stage

pytestmark = pytest.mark.kernel

Outcome = tuple[str, bool, bool]


def _outcome(stage: Stage) -> Outcome:
    """Return what the name, its TCP port and its UDP port give the CRM server's pod now."""
    answer = stage.crm.stub.ask(places.CRM)
    address = places.SITE_OF[places.CRM][0]
    return answer.rcode, stage.crm.connect(address).ok, stage.crm.echo(address, wait_s=0.5).ok


def test_two_policies_of_one_pod_add_up_in_either_order(stage: Stage) -> None:
    """Obot's policy permits TCP, the platform's UDP: both hold, whichever file is read first."""
    udp = manifests.udp_policy(labs.CRM_SERVER, "platform-quic", places.CRM)
    folder = stage.lab.manifests
    seen: list[Outcome] = []
    for key in ("aaa-first", "zzz-last"):
        before = stage.lab.ward.status()
        folder.remove("policy-quic")
        assert stage.lab.ward.await_policy(before)
        assert _outcome(stage) == ("NOERROR", True, False)
        before = stage.lab.ward.status()
        folder.put(key, udp)
        assert stage.lab.ward.await_policy(before)
        assert wait_until(lambda: stage.crm.stub.ask(places.CRM).rcode == "NOERROR", 5.0)
        seen.append(_outcome(stage))
        before = stage.lab.ward.status()
        folder.put("policy-quic", udp)
        folder.remove(key)
    assert seen == [("NOERROR", True, True)] * 2
