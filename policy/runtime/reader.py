"""From a YAML mapping and the environment to a tree of settings, with every mistake listed.

Owns the walk: unknown keys, wrong values, environment variables, paths. Never stops at the first
mistake, never guesses a value, knows no single setting (``policy.runtime.settings`` does).
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
import yaml

from policy.manifest_findings import nearest
from policy.runtime.kinds import Kind, Wrong, typed

# What Kubernetes puts into the environment of every pod for a Service named nameward….
_SERVICE_LINK = re.compile(r"NAMEWARD_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")
Path = tuple[str, ...]
_NO_SETTINGS = frozenset({"NAMEWARD_CONFIG", "NAMEWARD_CLUSTER_BIN", "NAMEWARD_PURE"})
"""Which file is read; where the lab's cluster has its programs (enforcer/demo/kube/binaries); the build."""


class Key(NamedTuple):
    """How one key reads. ``restart``: a reload does not change it. ``default`` is shown in place of
    the value where it depends on the host."""

    kind: Kind[Any]
    restart: bool = False
    default: str = ""


class Problem(NamedTuple):
    """One mistake: ``path`` as in ``dns.maxTTL`` (or the variable), what is wrong, what to do."""

    path: str
    message: str
    fix: str

    def __str__(self) -> str:
        """One line for a terminal."""
        return f"{self.path}: {self.message}; {self.fix}" if self.path else f"{self.message}; {self.fix}"


class Field(NamedTuple):
    """One key of a section: its YAML name, attribute, and how to read it."""

    name: str
    attribute: str
    key: Key | None
    section: type[msgspec.Struct] | None
    many: bool
    required: bool


class _UniqueKeys(yaml.SafeLoader):
    """YAML's safe loader that refuses a key written twice (YAML 1.2 §3.2.1.3)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, "a key is not text", key_node.start_mark)
            if key in seen:
                twice = f"{key} is written twice"
                raise yaml.constructor.ConstructorError(None, None, twice, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> tuple[object, Problem | None]:
    """Parse one YAML document; the problem names line and column."""
    try:
        return yaml.load(text, Loader=_UniqueKeys), None  # noqa: S506 - derived from SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return None, Problem("", f"{place}{error.problem or 'not YAML'}", "correct the YAML there")
    except (yaml.YAMLError, RecursionError) as error:
        return None, Problem("", f"not YAML: {type(error).__name__}", "write one YAML mapping")


def fields(section: type[msgspec.Struct]) -> tuple[Field, ...]:
    """List a section's keys in the order of its definition."""
    hints = typing.get_type_hints(section, include_extras=True)
    return tuple(
        _field(item, hints[item.name], required=item.required) for item in msgspec.structs.fields(section)
    )


def _field(item: msgspec.structs.FieldInfo, hint: Any, *, required: bool) -> Field:
    key = next((extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Key)), None)
    inner = typing.get_args(hint)[0] if key else hint
    if isinstance(inner, types.UnionType):  # Redis | None
        inner = next(part for part in typing.get_args(inner) if part is not type(None))
    many = typing.get_origin(inner) is tuple
    if many:
        inner = typing.get_args(inner)[0]
    nested = isinstance(inner, type) and issubclass(inner, msgspec.Struct) and key is None
    return Field(item.encode_name, item.name, key, inner if nested else None, many, required)


class Reader:
    """Reads sections and collects ``problems``. ``shared`` gives the Key of a field without one."""

    def __init__(self, shared: Mapping[str, Key]) -> None:
        self.problems: list[Problem] = []
        self._shared = shared

    def key_of(self, field: Field) -> Key:
        """Return how this field reads; every field without a section has one."""
        return field.key or self._shared[field.attribute]

    def section(self, section: type[msgspec.Struct], value: object, path: str) -> msgspec.Struct | None:
        """Read one mapping; None once something in it could not be read."""
        if not isinstance(value, dict):
            self._say(path, f"expected a mapping, found {typed(value)}", "write keys under it, indented")
            return None
        known = {field.name: field for field in fields(section)}
        before = len(self.problems)
        values: dict[str, Any] = {}
        for name, item in value.items():
            place = f"{path}.{name}" if path else name
            if name not in known:
                close = nearest(name, list(known))
                self._say(place, "unknown key", f"did you mean {close}?" if close else _list(known))
            elif item is not None:  # "key:" without a value means its default
                values[known[name].attribute] = self._value(known[name], item, place)
        for field in known.values():
            if field.required and field.attribute not in values:
                self._say(f"{path}.{field.name}", "is missing", f"add {field.name}: …")
        return section(**values) if len(self.problems) == before else None

    def _value(self, field: Field, item: object, place: str) -> Any:
        if field.section is None:
            try:
                return self.key_of(field).kind.read(item)
            except Wrong as wrong:
                return self._say(place, wrong.message, wrong.fix)
        if not field.many:
            return self.section(field.section, item, place)
        if not isinstance(item, list):
            return self._say(place, f"expected a list, found {typed(item)}", "write each item after '- '")
        section = field.section
        return tuple(self.section(section, part, f"{place}[{index}]") for index, part in enumerate(item))

    def _say(self, path: str, message: str, fix: str) -> None:
        self.problems.append(Problem(path, message, fix))


def _list(known: Mapping[str, Field]) -> str:
    return "known here: " + ", ".join(known)


def leaves(section: type[msgspec.Struct], path: Path = ()) -> Iterator[tuple[Path, Field]]:
    """Yield every key below a section that holds a value: (path of YAML names, field)."""
    for field in fields(section):
        here = (*path, field.name)
        if field.section is not None and not field.many:
            yield from leaves(field.section, here)
        else:
            yield here, field


def variable(path: Path) -> str:
    """Name the environment variable of a key: ``NAMEWARD_DNS_MAXTTL``."""
    return "_".join(("NAMEWARD", *path)).upper()


def overlay(tree: object, root: type[msgspec.Struct], environ: Mapping[str, str], reader: Reader) -> object:
    """Return the YAML tree with what the environment sets put over it."""
    known = {variable(path): path for path, _ in leaves(root)}
    for name in sorted(environ):
        if not name.startswith("NAMEWARD_") or name in _NO_SETTINGS or _SERVICE_LINK.fullmatch(name):
            continue
        if name not in known:
            close = nearest(name, list(known))
            fix = f"did you mean {close}?" if close else "see docs/configuration.md for the names"
            reader.problems.append(Problem(name, "unknown environment variable", fix))
            continue
        value: object = environ[name]
        if environ[name].lstrip().startswith(("[", "{")):
            value, problem = parse_yaml(environ[name])
            if problem:
                reader.problems.append(problem._replace(path=name))
        tree = _put(tree, known[name], value)
    return tree


def _put(tree: object, path: Path, value: object) -> object:
    if not path:
        return value
    if tree is not None and not isinstance(tree, dict):
        return tree  # the reader reports it
    return {**(tree or {}), path[0]: _put((tree or {}).get(path[0]), path[1:], value)}
