"""Invariant 6: the process that parses hostile bytes holds no privilege."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from enforcer.demo import places
from enforcer.demo.processes import run
from enforcer.demo.scenes import Stage

pytestmark = pytest.mark.kernel


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_the_resolver_has_no_capability_and_cannot_get_one(stage: Stage) -> None:
    """No capability in any set, no_new_privs, a uid and gid of its own, no supplementary group."""
    status = _status(stage.lab.ward.worker("resolver"))
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"] == "1"
    assert "0" not in status["Uid"].split()
    assert "0" not in status["Gid"].split()
    assert status["Groups"] == ""


def test_the_resolver_is_confined_by_seccomp(stage: Stage) -> None:
    """Where python3-seccomp is installed the resolver runs under a filter."""
    pytest.importorskip("seccomp")
    assert _status(stage.lab.ward.worker("resolver"))["Seccomp"] == "2"


def test_the_resolvers_user_reaches_its_upstreams_and_nothing_else(stage: Stage) -> None:
    """From the node, as the resolver's user: the name server answers, a site and metadata do not."""
    uid = os.stat(f"/proc/{stage.lab.ward.worker('resolver')}").st_uid

    def tries(address: str, port: int) -> int:
        as_resolver = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
        probe = ["bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}"]
        return run(stage.lab.node, ["timeout", "2", *as_resolver, *probe]).returncode

    assert tries(places.UPSTREAM4, 53) == 0
    assert tries(places.SITE_OF[places.CRM][0], 443) != 0
    assert tries(places.METADATA, 80) != 0
