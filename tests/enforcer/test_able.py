"""What the kernel can do is tried once a supervisor's life, not once a worker's."""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.able import capabilities
from enforcer.kernel import Capabilities


class _Kernel:
    def __init__(self) -> None:
        self.probed = 0
        self.believed: list[Capabilities] = []

    def probe(self) -> Capabilities:
        self.probed += 1
        return Capabilities(renews=True, owns=False)

    def believe(self, able: Capabilities) -> None:
        self.believed.append(able)


def test_a_worker_that_comes_back_tries_nothing_again(tmp_path: Path) -> None:
    """The second start believes the first; another boot believes nothing."""
    kernel = _Kernel()
    first = capabilities(kernel, tmp_path / "able", "boot-1")
    assert capabilities(kernel, tmp_path / "able", "boot-1") == first == kernel.believed[0]
    assert kernel.probed == 1
    capabilities(kernel, tmp_path / "able", "boot-2")
    assert kernel.probed == 2


@pytest.mark.parametrize(
    "kept", [b"", b"{", b'{"boot_id": "boot-1", "supervisor": 1, "renews": true, "owns": true}']
)
def test_what_is_no_memory_of_this_supervisor_is_tried_again(tmp_path: Path, kept: bytes) -> None:
    """A torn file, or another supervisor's (an upgrade may have brought another nft)."""
    kernel = _Kernel()
    (tmp_path / "able").write_bytes(kept)
    assert capabilities(kernel, tmp_path / "able", "boot-1") == (True, False)
    assert kernel.probed == 1
