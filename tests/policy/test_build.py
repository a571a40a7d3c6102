"""Which build runs: compiled modules only beside exactly the sources that they were made from."""

import ast
import os
import subprocess
import sys
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from policy import build

ROOT = Path(__file__).parents[2]
NAMES = sorted(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["nameward"]["compiled"])


def said(path: Path, **env: str) -> str:
    """What a fresh interpreter says: the modules it took as compiled."""
    environment = {key: value for key, value in os.environ.items() if key != "NAMEWARD_PURE"}
    done = subprocess.run(
        [sys.executable, "-c", "import policy.build as b; print(b.COMPILED and sorted(b.COMPILED))"],
        cwd=ROOT, env=environment | {"PYTHONPATH": str(path)} | env,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def made(
    folder: Path, sources: dict[str, str], neighbours: dict[str, str] | None = None, *, library: bool = True
) -> Path:
    """A build of those digests; its library is no library, so that loading it fails loudly."""
    package = folder / "nameward_compiled"
    package.mkdir()
    (package / "__init__.py").write_text(f"SOURCES = {sources!r}\nNEIGHBOURS = {neighbours or {}!r}\n")
    if library:
        (package / f"nameward__mypyc{EXTENSION_SUFFIXES[0]}").write_bytes(b"")
    return folder


def test_the_suite_runs_compiled_where_it_must():
    """Where the gate says so, nothing falls back to the sources unseen."""
    if os.environ.get("NAMEWARD_PURE") == "1" or os.environ.get("COMPILED") != "required":
        pytest.skip("nobody asked for compiled modules (bash deploy/setup.sh test does)")
    assert build.COMPILED is not None
    assert sorted(build.COMPILED) == NAMES


def test_a_source_that_was_edited_is_what_runs(tmp_path):
    """One byte of one source differs from what was compiled: the whole program runs its sources."""
    fresh = {name: build.digest((ROOT / f"{name.replace('.', '/')}.py").read_bytes()) for name in NAMES}
    stale = fresh | {NAMES[-1]: build.digest(b"as it was")}
    assert said(made(tmp_path, stale)) == "None"


def test_what_a_compiled_module_imports_counts_too(tmp_path):
    """The types of its neighbours are compiled into it."""
    assert said(made(tmp_path, {}, {"policy.world": build.digest(b"as it was")})) == "None"


def test_a_build_of_another_release_is_not_used(tmp_path):
    """It may say less about itself than this release asks."""
    made(tmp_path, {})
    (tmp_path / "nameward_compiled" / "__init__.py").write_text("SOURCES = {}\n")
    assert said(tmp_path) == "None"


def test_a_module_that_is_no_more_is_not_run(tmp_path):
    """A build that holds a module without a source is not used."""
    assert said(made(tmp_path, {"policy.of_old": build.digest(b"")})) == "None"


def test_a_build_for_another_python_is_not_used(tmp_path):
    """Without a library for this interpreter the sources run."""
    assert said(made(tmp_path, {}, library=False)) == "None"


def test_a_build_that_fits_is_loaded(tmp_path):
    """With every digest right the library is loaded: this one is none, and is not passed over in silence."""
    with pytest.raises(subprocess.CalledProcessError) as failed:
        said(made(tmp_path, {}))
    assert "run the sources with NAMEWARD_PURE=1" in failed.value.stderr.splitlines()[-1]


def test_the_sources_can_be_asked_for(tmp_path):
    """NAMEWARD_PURE=1 runs the sources, whatever else is there."""
    assert said(made(tmp_path, {}), NAMEWARD_PURE="1") == "None"


def test_every_package_leads_to_its_compiled_modules():
    """Each package above a compiled module extends its path, or the source would run beside compiled ones."""
    packages = {name.rpartition(".")[0] for name in NAMES}
    packages |= {name.rpartition(".")[0] for name in packages if "." in name}
    for package in packages:
        source = (ROOT / package.replace(".", "/") / "__init__.py").read_text()
        assert "__path__ = path_of(__name__, __path__)" in source, package


def imported(name: str) -> set[str]:
    """The top-level modules that a module of ours imports, also only for its types."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / f"{name.replace('.', '/')}.py").read_text())):
        if isinstance(node, ast.Import):
            found.update(each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {each.partition(".")[0] for each in found}


def test_what_is_compiled_is_pure_or_moves_bytes():
    """Of what the contracts call impure, compiled modules use sockets, their buffers and Twisted alone.

    Those are called as from any source. No clock, randomness, thread, process or log is among them, and what
    the kernel is told (``enforcer.kernel``, ``netlink``) and what starts the programs stays interpreted.
    """
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    contract = next(each for each in contracts if each["name"].startswith("a module is pure unless"))
    impure = {line.split(" -> ")[0] for line in contract["ignore_imports"]}
    for name in NAMES:
        used = imported(name) & set(contract["forbidden_modules"])
        if used:
            assert name in impure, name
            assert used <= {"ctypes", "os", "select", "socket", "twisted"}, (name, used)
