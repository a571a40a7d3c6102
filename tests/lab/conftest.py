"""The lab without Nameward, shared by the tests of the lab itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from enforcer.demo import places, prerequisites
from enforcer.demo.failure import CannotRunHereError
from enforcer.demo.lab import running
from enforcer.demo.scenes import Stage, set_stage
from enforcer.demo.stub import Stub


@pytest.fixture(scope="session")
def open_stage() -> Iterator[Stage]:
    """A whole lab in which nothing is enforced; its pods ask the outside name server directly."""
    try:
        prerequisites.require()
    except CannotRunHereError as error:
        pytest.skip(str(error))
    with running(enforced=False) as lab:
        stage = set_stage(lab)
        for pod in lab.pods.values():
            pod.stub = Stub(pod.space, places.UPSTREAM4)
        yield stage
