"""Which of our fields a kind's definition has a place for.

Pure. Owns that question, asked of a CustomResourceDefinition. Invariant: a field that the API server would
prune, or stumble over, is never called known.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

MIRRORED = {"conditions": "array", "enforcement": "object"}
"""Fields of ``status`` and their types."""


def mirrored_fields(definition: Json, version: str = "v1alpha1") -> frozenset[str]:
    """Return which of ``MIRRORED`` the served version declares. Total."""
    versions = _at(definition, "spec", "versions")
    for each in versions if isinstance(versions, list) else ():
        if _at(each, "name") == version and _at(each, "served") is True:
            if not isinstance(_at(each, "subresources", "status"), dict):
                return frozenset()
            fields = _at(each, "schema", "openAPIV3Schema", "properties", "status", "properties")
            return frozenset(name for name, kind in MIRRORED.items() if _at(fields, name, "type") == kind)
    return frozenset()


def _at(value: object, *steps: str) -> object:
    for step in steps:
        value = value.get(step) if isinstance(value, dict) else None
    return value
