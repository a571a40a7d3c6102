"""JSON that is read as such says what YAML says of the same text."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.manifest_yaml import read_documents

TEXTS = st.text(st.characters(max_codepoint=0x2030), max_size=8) | st.sampled_from(
    ["yes", "null", "1e3", "0x1f", "<<", "*a", "- b", "a: b", "#", "---", "...", "%", "!!int", "\\", '"']
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
WRITTEN = st.builds(
    json.dumps,
    st.dictionaries(TEXTS, VALUES, max_size=4),
    indent=st.sampled_from([None, 0, 2]),
    separators=st.sampled_from([(",", ":"), (", ", ": "), (" ,", " : ")]),
    ensure_ascii=st.booleans(),
)
TOKENS = st.sampled_from(
    ["{", "}", "[", "]", ":", ",", '"a"', '"b"', "1", "-0", "01", "true", "null", " ", "\n", "\t", "#", "'"]
)
MADE_UP = st.lists(TOKENS, max_size=12).map(lambda tokens: '{"a":' + "".join(tokens) + "}")


def _as_yaml(text: str) -> tuple[list[tuple[int, object, bool]], tuple[object, ...]]:
    """Read a text by YAML alone: a comment at its end is none of JSON's."""
    documents, findings = read_documents("f", text + "\n# no JSON")
    return [(each.number, each.value, each.damaged) for each in documents], findings


@settings(max_examples=400)
@given(WRITTEN | MADE_UP, st.sampled_from(["", "---\n", "\n", "--- ", "---"]))
def test_json_is_read_as_yaml_reads_it(text: str, before: str) -> None:
    """Values, damage and findings are the same, whichever way a text is read (but for where a text ends)."""
    documents, findings = read_documents("f", before + text)
    said = [(each.number, each.value, each.damaged) for each in documents]
    values, more = _as_yaml(before + text)
    assert repr(said) == repr(values)
    assert len(findings) == len(more)


def test_plain_json_is_not_read_as_yaml() -> None:
    """It works at all: what the provider writes needs no YAML."""
    text = json.dumps({"kind": "FirewallPolicy", "spec": {"rules": [{"name": "r", "port": 443}]}})
    events = len(list(yaml.parse(text, Loader=yaml.SafeLoader)))
    assert events > 10
    documents, _ = read_documents("f", text)
    assert documents[0].value == json.loads(text)
