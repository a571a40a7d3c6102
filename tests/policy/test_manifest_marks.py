"""Annotations of Namespaces that are ours: bounded, and never a reason to lose the Namespace."""

from __future__ import annotations

import json

import pytest

from policy.manifest import EVERY_NAMESPACE, Loaded, load_manifests

BREAK_GLASS = "nameward.dev/break-glass-until"


def load(annotations: object, name: str = "shop", file: str = "a.yaml") -> Loaded:
    """What one Namespace with these annotations says."""
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"tier": "agents"}, "annotations": annotations},
    }
    return load_manifests({file: json.dumps(namespace)}, EVERY_NAMESPACE)


def test_marks_of_a_namespace_are_kept() -> None:
    """Ours are kept word for word, those of other programs are not."""
    loaded = load(
        {BREAK_GLASS: "2026-11-23T10:00:00Z", "example.com/nameward.dev": "x", "nameward.dev/": "y"}
    )
    assert loaded.marks == {"shop": {BREAK_GLASS: "2026-11-23T10:00:00Z"}}
    assert loaded.namespaces["shop"]["tier"] == "agents"


def test_a_namespace_without_marks_is_not_among_them() -> None:
    """No annotations, none of ours: nothing."""
    assert load(None).marks == load({}).marks == load({"example.com/a": "b"}).marks == {}


@pytest.mark.parametrize("value", [5, None, ["2026-11-23T10:00:00Z"], {"a": "b"}, "x" * 2000])
def test_a_bad_mark_is_left_out_and_said(value: object) -> None:
    """It is a warning: an error would take the Namespace's labels from it, and so govern it."""
    loaded = load({BREAK_GLASS: value, "nameward.dev/other": "kept"})
    assert loaded.marks == {"shop": {"nameward.dev/other": "kept"}}
    assert [(each.severity, each.pointer) for each in loaded.findings] == [
        ("warning", "/metadata/annotations/nameward.dev~1break-glass-until")
    ]
    assert loaded.namespaces["shop"]["tier"] == "agents"


@pytest.mark.parametrize(
    "annotations", ["text", 7, ["nameward.dev/a"], {7: "x"}, {"nameward.dev/\x1b[31m": "x"}]
)
def test_what_are_no_annotations_are_none(annotations: object) -> None:
    """Shapes that no API server stores."""
    loaded = load(annotations)
    assert loaded.marks == {}
    assert "shop" in loaded.namespaces


def test_marks_are_bounded() -> None:
    """Sixteen of them, always the same ones; a warning says that there are more."""
    loaded = load({f"nameward.dev/mark-{number:03}": "x" for number in reversed(range(500))})
    assert list(loaded.marks["shop"]) == [f"nameward.dev/mark-{number:03}" for number in range(16)]
    assert [each.severity for each in loaded.findings] == ["warning"]


def test_two_namespaces_of_one_name_have_no_marks() -> None:
    """Nobody can say which of two different ones is meant."""
    text = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    marked = text.replace('"shop"', '"shop", "annotations": {"nameward.dev/break-glass-until": "x"}')
    loaded = load_manifests({"a": text, "b": marked}, EVERY_NAMESPACE)
    assert loaded.marks == {}
    assert [each.severity for each in loaded.findings] == ["error", "error"]
