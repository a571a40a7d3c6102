"""``nameward demo`` as a user runs it: every step holds, and nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

import enforcer
from enforcer.demo import prerequisites
from enforcer.demo.failure import CannotRunHereError
from enforcer.demo.run import BEFORE, BEFORE_NODES, SCENES, SCENES_NODES

pytestmark = pytest.mark.kernel

NAMES = [scene.name for scene in (*BEFORE, *SCENES)]
NAMES_NODES = [scene.name for scene in (*BEFORE_NODES, *SCENES_NODES)]


@pytest.fixture(scope="module")
def demo() -> dict[str, Any]:
    """The result of one whole run."""
    return _run()


@pytest.fixture(scope="module")
def demo_nodes() -> dict[str, Any]:
    """The result of one whole run with two nodes."""
    return _run("--nodes", "2")


def _run(*arguments: str) -> dict[str, Any]:
    """Return the result of a run, with its exit code and what it left in its temporary folder."""
    # Short: the path of a unix socket has 107 octets.
    folder = Path(tempfile.mkdtemp(prefix="nw-"))
    folder.chmod(0o755)  # the resolver's user passes through to its socket
    try:
        prerequisites.require(redis=bool(arguments))
    except CannotRunHereError as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from enforcer.cli import main; sys.exit(main())",
            "demo",
            "--json",
            *arguments,
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": str(Path(enforcer.__file__).parents[1]), "TMPDIR": str(folder)},
    )
    left = [path.name for path in folder.iterdir()]
    shutil.rmtree(folder)
    result: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"steps": []}
    return {**result, "code": done.returncode, "left": left, "said": done.stderr}


@pytest.mark.parametrize("name", NAMES)
def test_step_holds(demo: dict[str, Any], name: str) -> None:
    """Each step of the demo holds on the real kernel."""
    step = next((step for step in demo["steps"] if step["name"] == name), None)
    assert step is not None, demo["said"]
    assert step["ok"], f"{step['seen']}\n{demo['said']}"


def test_it_ends_well_and_leaves_nothing(demo: dict[str, Any]) -> None:
    """Exit code 0, and no folder of it remains."""
    assert demo["ok"]
    assert demo["code"] == 0
    assert demo["left"] == []


@pytest.mark.parametrize("name", NAMES_NODES)
def test_step_with_two_nodes_holds(demo_nodes: dict[str, Any], name: str) -> None:
    """Each step of ``demo --nodes 2`` holds on the real kernel, with a real Redis."""
    step = next((step for step in demo_nodes["steps"] if step["name"] == name), None)
    assert step is not None, demo_nodes["said"]
    assert step["ok"], f"{step['seen']}\n{demo_nodes['said']}"


def test_two_nodes_end_well_and_leave_nothing(demo_nodes: dict[str, Any]) -> None:
    """Exit code 0, and no folder of it remains."""
    assert demo_nodes["ok"]
    assert demo_nodes["code"] == 0
    assert demo_nodes["left"] == []
