"""Compile the modules of the hot paths with mypyc, into this environment: ``nameward_compiled/``.

    python deploy/compile.py [--into FOLDER] [--print]

Compiled are the modules that ``[tool.nameward] compiled`` in pyproject.toml names, from the sources that also run
without it. ``policy.build`` takes the result if every source is what was compiled, and is silent otherwise.
Needs mypy, setuptools, a C compiler and Python's headers (``deploy/setup.sh`` brings them). A build that is fresh
is not made again. ``--into`` is for an environment other than the one that runs this; ``--print`` shows whether
the modules are compiled here and now.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("policy", "resolver", "enforcer")
SETUP = """
import os
from concurrent.futures import ThreadPoolExecutor

from mypyc.build import mypycify
from setuptools import setup
from setuptools.command.build_ext import build_ext


class Parallel(build_ext):
    # The C files of the one library, as many at a time as there are processors.
    def build_extensions(self):
        compiler = self.compiler

        def compile(sources, output_dir=None, macros=None, include_dirs=None, debug=0, extra_preargs=None,
                    extra_postargs=None, depends=None):
            macros, objects, extra_postargs, options, made = compiler._setup_compile(
                output_dir, macros, include_dirs, sources, depends, extra_postargs)
            arguments = compiler._get_cc_args(options, debug, extra_preargs)
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                list(pool.map(
                    lambda one: compiler._compile(one, *made[one], arguments, extra_postargs, options),
                    objects))
            return objects

        compiler.compile = compile
        super().build_extensions()


setup(
    name="nameward-compiled",
    packages=[],
    cmdclass={{"build_ext": Parallel}},
    ext_modules=mypycify({paths!r}, opt_level="2", debug_level="0", multi_file=True, group_name="nameward"),
)
"""
CONFIG = """
[mypy]
python_version = {version}
python_executable = {python}
ignore_missing_imports = True
follow_imports = silent
follow_imports_for_stubs = True
"""


def modules() -> list[str]:
    """The modules to compile, as pyproject.toml names them."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        named: list[str] = tomllib.load(file)["tool"]["nameward"]["compiled"]
    return sorted(named)


def build(names: list[str], folder: Path) -> None:
    """Compile into ``folder/nameward_compiled``; SystemExit with the compiler's words if it fails."""
    paths = [f"{name.replace('.', '/')}.py" for name in names]
    with tempfile.TemporaryDirectory(prefix="nameward-compile-") as place:
        work = Path(place)
        for package in PACKAGES:
            shutil.copytree(ROOT / package, work / package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        python = folder / "../../../bin/python"  # whose packages' types are looked at; a link, as it is
        (work / "mypy.ini").write_text(
            CONFIG.format(version=version, python=python if python.exists() else sys.executable)
        )
        (work / "setup.py").write_text(SETUP.format(paths=["--config-file=mypy.ini", *paths]))
        done = subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", "out"],
            cwd=work, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise SystemExit(f"compile: mypyc failed\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        made = work / "out"
        (made / "__init__.py").write_text(
            '"""Made by deploy/compile.py; policy.build reads it."""\n\n'
            f"SOURCES = {_digests(names, work)!r}\nNEIGHBOURS = {_digests(neighbours(names, work), work)!r}\n"
        )
        _replace(made, folder / "nameward_compiled")


def neighbours(names: list[str], root: Path) -> list[str]:
    """The modules of ours that the compiled ones import: their types and constants are compiled in as well."""
    found: set[str] = set()
    for name in names:
        for node in ast.walk(ast.parse(_path(name, root).read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.module:
                found.update((node.module, *(f"{node.module}.{each.name}" for each in node.names)))
    ours = (each for each in found - set(names) if each.split(".")[0] in PACKAGES)
    return sorted(each for each in ours if _path(each, root).is_file())


def _path(name: str, root: Path) -> Path:
    return root / f"{name.replace('.', '/')}.py"


def _digests(names: list[str], root: Path) -> dict[str, str]:
    """Digests of the copies that were compiled: somebody may have edited a source meanwhile."""
    from policy.build import digest

    return {name: digest(_path(name, root).read_bytes()) for name in names}


def _replace(made: Path, target: Path) -> None:
    """Put the folder in place of the one that was there; whoever has its libraries open keeps them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = (target.with_name(f"{target.name}.{what}-{os.getpid()}") for what in ("new", "old"))
    shutil.copytree(made, fresh)
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def main() -> int:
    """Build what is not fresh; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=Path(sysconfig.get_path("platlib")))
    parser.add_argument("--print", action="store_true", help="only say whether they are compiled")
    given = parser.parse_args()
    into = given.into.absolute()
    sys.path[:0] = [str(into), str(ROOT)]
    from policy import build as found

    names = modules()
    is_fresh = found.COMPILED is not None and sorted(found.COMPILED) == names
    if given.print:
        print("compiled" if is_fresh else "pure Python")
        return 0 if is_fresh else 1
    if not is_fresh:
        build(names, into)
    return 0


if __name__ == "__main__":
    sys.exit(main())
