"""JSON Schema of the settings: ``python -m policy.runtime.settings_schema FILE``, for values of a chart.

Owns the ``config`` part of FILE (a values.schema.json): every key a node of a cluster can be told, with
its type, its bounds and its words. Says nothing of its own: a test holds the file equal to the tree of
settings. Invariant: what it refuses, the program refuses too, so that it never stands in the way.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from policy.runtime.kinds import Choice, Cidr, Count, Duration, Items, Kind, Rates, Switch
from policy.runtime.reader import fields
from policy.runtime.sections import SHARED_KEYS, Governed, Settings

Schema = dict[str, Any]
_DURATION = r"([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+"
_OF_THE_CLUSTER = frozenset(
    {
        "metrics",
        "node",
        "policy.kubernetes.context",
        "policy.kubernetes.kubeconfig",
        "policy.kubernetes.podNamespace",
        "policy.manifests",
        "policy.source",
        "runtimeDir",
        "state",
    }
)
"""What follows from being in a cluster: other values of the chart say it."""


def config_schema() -> Schema:
    """Return the schema of nameward.yaml as a chart's user writes it."""
    return _section(Settings, "")


def _section(section: type[msgspec.Struct], path: str) -> Schema:
    properties: dict[str, Schema] = {}
    for field in fields(section):
        here = f"{path}.{field.name}" if path else field.name
        if here in _OF_THE_CLUSTER:
            continue
        if field.section is None:
            found = schema_of((field.key or SHARED_KEYS[field.attribute]).kind)
        else:
            found = _section(field.section, here)
            found = {"type": "array", "items": found} if field.many else found
        properties[field.name] = found
    made: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    required = [field.name for field in fields(section) if field.required]
    return made | ({"required": required} if required else {})


def schema_of(kind: Kind[Any]) -> Schema:
    """Return the schema of one kind of value; text of which no more can be said is just text."""
    return {"description": kind.what} | next(
        (make(kind) for known, make in _KINDS.items() if isinstance(kind, known)), {"type": "string"}
    )


def _items(kind: Items[Any]) -> Schema:
    return {"type": "array", "items": schema_of(kind.kind)}


def _governed(_: Governed) -> Schema:
    labels = {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}}
    by_label = {
        "type": "object",
        "additionalProperties": False,
        "required": ["matchLabels"],
        "properties": {"matchLabels": labels},
    }
    return {"anyOf": [{"type": "array", "minItems": 1, "items": {"type": "string"}}, by_label]}


_KINDS: Mapping[type, Callable[[Any], Schema]] = {
    Choice: lambda kind: {"enum": list(kind.options)},
    Switch: lambda _: {"type": "boolean"},
    Count: lambda kind: {"type": "integer", "minimum": kind.lowest, "maximum": kind.highest},
    Duration: lambda _: {"type": "string", "pattern": f"^{_DURATION}$"},
    Rates: lambda _: {"type": "string", "pattern": f"^[0-9]+/{_DURATION}$"},
    Cidr: lambda _: {"type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$"},
    Items: _items,
    Governed: _governed,
}


def written_into(text: str) -> str:
    """Return a values.schema.json with its ``config`` made anew."""
    whole = json.loads(text)
    whole["properties"]["config"] = config_schema()
    return json.dumps(whole, indent=2) + "\n"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(written_into(file.read_text()))
