"""The whole enforcer on a host that refuses the routing rule: translation is installed, and told."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest
from twisted.python.failure import Failure

from enforcer.records import LogRecords
from enforcer.routes import Routes
from enforcer.wiring import Wiring
from policy.runtime.clock import MonotonicReactor
from policy.runtime.settings import Settings, load_settings
from tests.kernel.conftest import NODE, Lab

pytestmark = pytest.mark.kernel


class _Refused(Routes):
    """A host that takes routes and no rules."""

    def install_dns_rule(self) -> None:
        """Refuse, as a kernel without CONFIG_IP_MULTIPLE_TABLES does."""
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")


def _failed(failure: Failure) -> None:
    failure.raiseException()


def test_a_host_that_refuses_the_rule_gets_translation(lab: Lab, tmp_path: Path) -> None:
    """To an address of the node in both families, in the kernel's own words; ``status`` names the reason."""
    settings = load_settings(
        None,
        {
            "NAMEWARD_RUNTIMEDIR": str(tmp_path / "run"),
            "NAMEWARD_METRICS_LISTEN": "",
            "NAMEWARD_POLICY_MANIFESTS": f"[{tmp_path}]",
            "NAMEWARD_POLICY_GOVERNEDNAMESPACES": "[mcp]",
        },
    )
    child = os.fork()
    if child == 0:
        _enforce(lab, settings, tmp_path / "said")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert "Operation not supported" in (tmp_path / "said").read_text()
    installed = lab.nft("list chain inet nameward translate\n")
    assert f"dnat ip to {NODE[4]}:15353" in installed
    assert f"dnat ip6 to [{NODE[6]}]:15353" in installed
    assert lab.nft("list chain inet nameward capture\n").count("10053") == 3


def _enforce(lab: Lab, settings: Settings, said: Path) -> NoReturn:
    """Be an enforcer that starts and dies; what it holds open goes with this process."""
    code = 1
    try:
        with lab.inside("node"):
            wiring = Wiring(
                reactor=MonotonicReactor(),
                settings=settings,
                records=LogRecords("n1", "error"),
                resolver_uid=65353,
                sockets={},
                failed=_failed,
                routes=_Refused(),
            )
            wiring.start()
        said.write_text("\n".join(wiring.node.status()["problems"]))
        code = 0
    finally:
        os._exit(code)
