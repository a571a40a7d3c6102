"""The chart's kinds and admission policies in the session's API server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from enforcer.demo.failure import CannotRunHereError
from tests.cluster import charted
from tests.cluster.foreign import foreign_kinds
from tests.cluster.real import RealApi


@pytest.fixture(scope="session")
def kinds(api: RealApi) -> RealApi:
    """The session's API server, which serves the chart's kinds."""
    charted.install_kinds(api)
    return api


@pytest.fixture(scope="session")
def guarded(api: RealApi) -> RealApi:
    """The session's API server with the chart's kinds and admission policies."""
    charted.install_admission(api)
    return api


@pytest.fixture(scope="module")
def foreign(request: pytest.FixtureRequest) -> Iterator[RealApi]:
    """An API server of the module's own, where another product's definitions of the kinds were first."""
    try:
        started = RealApi().start()
    except CannotRunHereError as error:
        pytest.skip(str(error))
    try:
        started.kubectl("apply", "--server-side", "-f", "-", text=foreign_kinds())
        started.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        yield started
    finally:
        started.stop()
