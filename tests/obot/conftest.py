"""A storage of Obot's, and an Obot whose bridge has its permissions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.real import RealApi
from tests.obot.obots import Obot
from tests.obot.storage import Storage


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    """A storage that listens."""
    started = Storage(tmp_path / "storage").start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def whole_obot(api: RealApi) -> Obot:
    """An Obot in two namespaces; what its chart's Role allows is allowed to the bridge."""
    made = Obot(api)
    made.grant_bridge()
    return made


@pytest.fixture
def obot(whole_obot: Obot) -> Iterator[Obot]:
    """The module's Obot, without a FirewallPolicy."""
    yield whole_obot
    whole_obot.api.kubectl("delete", "fwp", "--all", "-n", whole_obot.mcp, "--wait=false")
