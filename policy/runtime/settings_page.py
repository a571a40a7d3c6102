"""Generate docs/configuration.md from the tree of settings: ``python -m policy.runtime.settings_page``.

Owns that page's text. Never states a default, bound or variable of its own: all of it comes from
``policy.runtime.sections`` and ``state_section``, and a test holds the page equal.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import msgspec

from policy.runtime import kubernetes_section, sections, state_section
from policy.runtime.reader import Field, fields, variable
from policy.runtime.sections import SHARED_KEYS, Settings

_OPENING = """# Configuration

One YAML file, `/etc/nameward/nameward.yaml` unless `--config` or `NAMEWARD_CONFIG` names another.
[deploy/nameward.example.yaml](../deploy/nameward.example.yaml) is one to start from. Each key is also an
environment variable, which wins over the file: lists with commas between their items, or as YAML
in brackets. An unknown key, a wrong type or a value out of bounds is an error that names its path
and what to write instead; nothing is ignored, nothing is guessed.

SIGHUP (`systemctl reload nameward`) reads the file again. Keys marked *restart* change only when
Nameward starts. A file that cannot be used changes nothing: what was in force stays, and
`nameward status` says so. Durations are a number and `ms`, `s`, `m`, `h` or `d` (`1h30m`).

This page is generated from the settings themselves (`make docs`).
"""


_MODULES = (sections, kubernetes_section, state_section)


def page() -> str:
    """Return the whole page."""
    parts = [_OPENING, "## Top level\n", *_section(Settings, ())]
    for field in fields(Settings):
        if field.section is not None:
            parts.append(f"## {field.name}\n\n{inspect.getdoc(field.section)}\n")
            parts.extend(_section(field.section, (field.name,)))
    return "\n".join(parts)


def _section(section: type[msgspec.Struct], path: tuple[str, ...]) -> Iterator[str]:
    texts = _docstrings(section.__name__)
    for field in fields(section):
        if field.section is not None and _has_chapter(field.section) and not path:
            continue  # a chapter of its own
        meaning, _, why = texts[field.attribute].partition("\n\n")
        yield f"### `{'.'.join((*path, field.name))}`\n"
        yield f"{_line(meaning)} {_line(why)}\n"
        if field.section is not None and _has_chapter(field.section):
            yield from _section(field.section, (*path, field.name))
        else:
            yield from _facts(section, field, (*path, field.name))


def _has_chapter(section: type[msgspec.Struct]) -> bool:
    return section.__module__ in {module.__name__ for module in _MODULES}


def _facts(section: type[msgspec.Struct], field: Field, path: tuple[str, ...]) -> Iterator[str]:
    if field.section is not None:
        yield from _nested(field.section, "")
        yield ""
        return
    key = field.key or SHARED_KEYS[field.attribute]
    if field.required:
        default = f"none: `{path[-2]}` needs it"
    else:
        default = key.default or f"`{key.kind.show(_default(section, field)) or '(empty)'}`"
    yield f"- value: {key.kind.what}"
    yield f"- default: {default}"
    yield f"- variable: `{variable(path)}`"
    yield f"- changes by: {'restart' if key.restart else 'reload'}\n"


def _nested(section: type[msgspec.Struct], indent: str) -> Iterator[str]:
    """List the keys of a mapping that has no chapter of its own."""
    for field in fields(section):
        if field.section is not None:
            doc = _line(inspect.getdoc(field.section) or "")
            yield f"{indent}- `{field.name}`{' (a list)' if field.many else ''}: {doc}"
            yield from _nested(field.section, indent + "  ")
        else:
            key = field.key or SHARED_KEYS[field.attribute]
            yield f"{indent}- `{field.name}`{' (required)' if field.required else ''}: {key.kind.what}"


def _default(section: type[msgspec.Struct], field: Field) -> Any:
    found = {item.name: item for item in msgspec.structs.fields(section)}[field.attribute]
    return found.default if found.default is not msgspec.NODEFAULT else found.default_factory()


@cache
def _tree() -> list[ast.stmt]:
    return [node for module in _MODULES for node in ast.parse(inspect.getsource(module)).body]


def _docstrings(name: str) -> dict[str, str]:
    """Return the text under each attribute of a class, which Python itself does not keep."""
    body = next(node for node in _tree() if isinstance(node, ast.ClassDef) and node.name == name).body
    texts = {}
    for before, node in pairwise(body):
        match before, node:
            case ast.AnnAssign(target=ast.Name(id=attribute)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[attribute] = inspect.cleandoc(text)
    return texts


def _line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.stdout.write(page())
