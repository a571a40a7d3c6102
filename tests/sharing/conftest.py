"""What the tests of shared state have together: a Redis of their own, and credentials."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.demo.stores import SERVER, Store
from enforcer.sharing.redis.credentials import Credentials


@pytest.fixture(scope="module")
def lasting_store() -> Iterator[Store]:
    """One running redis-server for all tests of a module, who empty it themselves."""
    if shutil.which(SERVER) is None:
        pytest.skip(f"{SERVER} is not installed")
    with Store() as running:
        yield running


@pytest.fixture
def store() -> Iterator[Store]:
    """One running redis-server on a Unix socket."""
    if shutil.which(SERVER) is None:
        pytest.skip(f"{SERVER} is not installed")
    with Store() as running:
        yield running


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    """An HMAC key, no password."""
    key = tmp_path / "hmac.key"
    key.write_text("0123456789abcdef\n")
    return Credentials(hmac_key_file=str(key))
