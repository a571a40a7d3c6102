"""The rules that keep the code small and in one language."""

from __future__ import annotations

import ast
import re
import statistics
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(path for top in ("policy", "resolver", "enforcer") for path in (ROOT / top).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
BANNED = {"manager", "handler", "processor", "engine", "helper", "util", "utils", "common", "misc"}
SHADOWS = {"types", "select", "queue", "signal", "code", "io", "logging", "token", "socket", "time", "random"}
"""Started as a script, a package's folder is on the path: such names would break the standard library."""


@cache
def tree(path: Path) -> ast.Module:
    """One parse a file."""
    return ast.parse(path.read_text(), str(path))


def named(path: Path) -> str:
    """How a test's id shows a file."""
    return str(path.relative_to(ROOT))


def words(name: str) -> set[str]:
    """The words of a name in snake_case or CamelCase."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def test_modules_are_small() -> None:
    """The median has at most 150 lines, none more than 400."""
    sizes = {named(path): len(path.read_text().splitlines()) for path in PROGRAMS}
    assert {name: size for name, size in sizes.items() if size > 400} == {}
    assert statistics.median(sizes.values()) <= 150


def test_functions_are_short() -> None:
    """At most 50 lines, docstring included."""
    long = {
        f"{named(path)}:{node.name}": size
        for path in PROGRAMS
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := (node.end_lineno or 0) - node.lineno + 1) > 50
    }
    assert long == {}


@pytest.mark.parametrize("path", PROGRAMS, ids=named)
def test_a_module_has_a_charter(path: Path) -> None:
    """A docstring that says what it owns; postponed annotations; no name of the standard library's."""
    text = path.read_text()
    assert ast.get_docstring(tree(path)), "no docstring"
    if path.name not in {"__init__.py", "__main__.py"}:
        assert "from __future__ import annotations\n" in text
        assert path.stem not in SHADOWS


def test_one_word_per_thing() -> None:
    """No module, class, function or argument is called by a word that says nothing."""
    found = []
    for path in PROGRAMS:
        names = {path.stem, *path.parent.parts[-1:]}
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.arg):
                names.add(node.arg)
        found += [f"{named(path)}: {name}" for name in names if words(name) & BANNED]
    assert found == []


def test_nothing_is_left_to_do() -> None:
    """No marks of unfinished work."""
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    own = Path(__file__)
    assert [
        named(path) for path in [*PROGRAMS, *TESTS] if path != own and marks.search(path.read_text())
    ] == []


def test_bugs_are_not_swallowed() -> None:
    """`except Exception` catches Twisted's cancellation and our own mistakes."""
    found = [
        f"{named(path)}:{node.lineno}"
        for path in PROGRAMS
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id == "Exception"))
    ]
    assert found == []


def test_every_test_says_what_it_shows() -> None:
    """A docstring for each."""
    silent = [
        f"{named(path)}:{node.name}"
        for path in TESTS
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []


def test_tests_take_fakes_and_do_not_patch() -> None:
    """No monkey-patching; no packages under tests/, which would shadow ours."""
    patching = re.compile(r"\bmonkeypatch\b|unittest\.mock|\bmock\.patch\b")
    own = Path(__file__)
    assert [named(path) for path in TESTS if path != own and patching.search(path.read_text())] == []
    assert list((ROOT / "tests").rglob("__init__.py")) == []
