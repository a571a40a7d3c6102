"""What all tests share: where the lab can run, a skipped kernel test is a failure."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

CANNOT_RUN_HERE = ("this kernel has no ", "to load it would change this host")
"""What a skip says that no installed package could have avoided; it is shown, and stays a skip."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With ``LAB=required`` (set by deploy/setup.sh on a machine with everything) nothing real is skipped."""
    report = yield
    required = os.environ.get("LAB") == "required" and item.get_closest_marker("kernel") is not None
    if (
        required
        and report.skipped
        and not hasattr(report, "wasxfail")
        and not any(words in str(report.longrepr) for words in CANNOT_RUN_HERE)
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped where it must run: {report.longrepr}"
    return report
