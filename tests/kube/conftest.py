"""A scripted API server for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kube.script import ScriptedApi


@pytest.fixture
def server() -> Iterator[ScriptedApi]:
    """It listens; tests serve what they need."""
    started = ScriptedApi().start()
    yield started
    started.stop()
