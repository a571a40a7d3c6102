"""What is shipped: the wheel, the setup script, the unit, the example configuration."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from policy.runtime.settings import load_settings

ROOT = Path(__file__).parents[2]
SETUP = ROOT / "deploy" / "setup.sh"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [built] = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_holds_exactly_the_three_packages(wheel: zipfile.ZipFile) -> None:
    """An application of three packages; nothing else lands among somebody's modules."""
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert tops == {"policy", "resolver", "enforcer", "nameward-0.1.0.dist-info"}


def test_the_wheel_holds_what_is_needed_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    """Code, type markers, the license, one console script, the guard against publishing."""
    names = set(wheel.namelist())
    assert {f"{package}/py.typed" for package in ("policy", "resolver", "enforcer")} <= names
    code = {
        str(path.relative_to(ROOT))
        for top in ("policy", "resolver", "enforcer")
        for path in (ROOT / top).rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == code
    info = "nameward-0.1.0.dist-info"
    assert wheel.read(f"{info}/entry_points.txt").decode().split("\n")[1] == "nameward = enforcer.cli:main"
    assert b"Classifier: Private :: Do Not Upload" in wheel.read(f"{info}/METADATA")
    assert f"{info}/licenses/LICENSE" in names


def run_setup(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    """The script, in an environment of ours."""
    return subprocess.run(
        ["/bin/bash", str(SETUP), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **options,
    )


def test_setup_says_how_it_is_called() -> None:
    """Exit 2, one sentence, nothing touched."""
    for arguments in ((), ("demmo",)):
        done = run_setup(*arguments)
        assert done.returncode == 2
        assert done.stderr == (
            "setup: say what to run: bash deploy/setup.sh demo, test, bench, install or cluster\n"
        )


def _searchable_by_anybody(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o5 == 0o5 for folder in path.parents)


@pytest.mark.skipif(
    os.geteuid() != 0 or not _searchable_by_anybody(SETUP), reason="needs root to become somebody else"
)
def test_setup_needs_root() -> None:
    """Said first."""
    done = run_setup("demo", user=65534, group=65534, extra_groups=[])
    assert done.returncode == 2
    assert "run this as root" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="root is asked for first")
def test_setup_needs_apt(tmp_path: Path) -> None:
    """On another distribution it names what it is for."""
    for program in ("id", "dirname"):
        (tmp_path / program).symlink_to(shutil.which(program) or "")
    done = run_setup("demo", env={"PATH": str(tmp_path)})
    assert done.returncode == 2
    assert "Debian 12, Debian 13 or Ubuntu 24.04" in done.stderr


@pytest.mark.parametrize("script", ["deploy/setup.sh", ".ci/run"])
def test_scripts_parse_and_are_executable(script: str) -> None:
    """`bash -n`."""
    path = ROOT / script
    assert os.access(path, os.X_OK)
    assert subprocess.run(["/bin/bash", "-n", str(path)], check=False).returncode == 0


def test_the_example_configuration_is_valid() -> None:
    """As a node would read it."""
    assert load_settings(ROOT / "deploy" / "nameward.example.yaml", {}).policy.governed_namespaces.names


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_unit_is_valid(tmp_path: Path) -> None:
    """systemd has nothing to say about it; the program's path is the only thing exchanged."""
    text = (ROOT / "deploy" / "systemd" / "nameward.service").read_text()
    unit = tmp_path / "nameward.service"
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert [line for line in done.stderr.splitlines() if "nameward.service" in line] == []
