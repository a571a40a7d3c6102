"""What all tests share: a skipped kernel test is a failure; one real API server; laws without a clock."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.cluster.real import RealApi

settings.register_profile(
    "unhurried", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")  # before any law is read: a laden machine is no failure of it

CANNOT_RUN_HERE = ("this kernel has no ", "to load it would change this host")
"""What a skip says that no installed package could have avoided; it is shown, and stays a skip."""


REQUIRED_BY = {"kernel": "LAB", "cluster": "CLUSTER", "e2e": "CLUSTER"}
"""Which variable says of a marker's tests that they must run here."""


@pytest.fixture(scope="session")
def api() -> Iterator[RealApi]:
    """A real kube-apiserver with RBAC, one for the session: tests make namespaces of their own in it."""
    yield from _started_api()


@pytest.fixture
def own_api() -> Iterator[RealApi]:
    """One of a test's own, to freeze, kill and start again (``own_api.control.apiserver``)."""
    yield from _started_api()


def _started_api() -> Iterator[RealApi]:
    from enforcer.demo.failure import CannotRunHereError
    from tests.cluster.real import RealApi

    try:
        started = RealApi().start()
    except CannotRunHereError as error:
        pytest.skip(str(error))
    yield started
    started.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With ``LAB=required`` or ``CLUSTER=required`` (set by deploy/setup.sh) nothing real is skipped."""
    report = yield
    required = any(
        os.environ.get(variable) == "required" and item.get_closest_marker(marker) is not None
        for marker, variable in REQUIRED_BY.items()
    )
    if (
        required
        and report.skipped
        and not hasattr(report, "wasxfail")
        and not any(words in str(report.longrepr) for words in CANNOT_RUN_HERE)
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped where it must run: {report.longrepr}"
    return report
