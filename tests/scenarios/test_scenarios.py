"""Every scenario beside this file, played against the real core with a fake clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.play import Script

SCENARIOS = sorted(Path(__file__).parent.glob("*.rpl"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path):
    """The core does what the script says, and nothing else."""
    Script(path).play()


def test_there_are_scenarios():
    """The folder was found: an empty parametrization would pass silently."""
    assert len(SCENARIOS) >= 20
