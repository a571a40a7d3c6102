"""Text to documents: what YAML allows, what it costs, and what one broken document does to others."""

from __future__ import annotations

import math

import pytest
import yaml
from yaml.events import NodeEvent

from policy.manifest_builder import MAX_ALIASED_NODES, MAX_DEPTH, Budget, Builder, Unreadable
from policy.manifest_findings import Place, Report
from policy.manifest_scalars import plain_value
from policy.manifest_yaml import MAX_DOCUMENTS, MAX_FILE_BYTES, read_documents


def values(text: str | bytes) -> list[object]:
    """The documents' values; there must be no findings."""
    documents, findings = read_documents("f", text)
    assert not findings
    return [document.value for document in documents]


def problems(text: str | bytes) -> list[tuple[int, str]]:
    """(document, message) of each finding."""
    return [(finding.document, finding.message) for finding in read_documents("f", text)[1]]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("443", 443),
        ("-1", -1),
        ("0x1BB", 443),
        ("0o17", 15),
        ("017", 15),
        ("1_000", 1000),
        ("1e3", 1000.0),
        ("4.5", 4.5),
        (".5", 0.5),
        ("089", 89.0),
        (".inf", math.inf),
        ("9" * 100, math.inf),
        ("yes", True),
        ("Off", False),
        ("~", None),
        ("", None),
        ("NULL", None),
        ("yEs", "yEs"),
        ("y", "y"),
        ("2026-01-01", "2026-01-01"),
        ("22:22", "22:22"),
        ("2001:10:20:30:40:50:10:20", "2001:10:20:30:40:50:10:20"),
        ("10.0.0.1", "10.0.0.1"),
        ("0x", "0x"),
        ("0b2", "0b2"),
        ("+", "+"),
        (".", "."),
        ("-.", "-."),
        ("1.2.3", "1.2.3"),
        ("١٢", "١٢"),
    ],
)
def test_plain_scalars_mean_what_kubectl_takes_them_for(text: str, value: object) -> None:
    """Numbers, booleans and null as in YAML 1.1, but dates and base-60 numbers are text."""
    assert plain_value(text) == value
    assert type(plain_value(text)) is type(value)


def test_quoted_scalars_are_text() -> None:
    """Quotes and the tag !!str keep text."""
    assert values("""{a: "443", b: 'yes', c: !!str 443, d: "", e: ! 7}""") == [
        {"a": "443", "b": "yes", "c": "443", "d": "", "e": "7"}
    ]


def test_json_is_yaml() -> None:
    """JSON with tabs, escapes and unicode is read as it stands."""
    assert values('{\n\t"a": [1, 2.5, true, null, "\\u00e9\\/"]\n}\n') == [{"a": [1, 2.5, True, None, "é/"]}]


def test_keys_are_text_as_written() -> None:
    """Keys that look like numbers, booleans or null stay the words they are."""
    assert values("{1: a, yes: b, null: c, 1.50: d}") == [{"1": "a", "yes": "b", "null": "c", "1.50": "d"}]


def test_documents_are_counted_as_yaml_counts_them() -> None:
    """Each --- begins one; empty ones count and are left out; a head of comments is none."""
    documents, _ = read_documents("f", "# head\n%YAML 1.1\n---\n---\na: 1\n...\n--- # third\nb: 2\n---\n")
    assert [(document.number, document.value) for document in documents] == [(2, {"a": 1}), (3, {"b": 2})]
    documents, _ = read_documents("f", "a: 1\n---\nb: 2\n")
    assert [document.number for document in documents] == [1, 2]
    documents, findings = read_documents("f", "a: 1\n...\nb: 2\n---\nc: 3\n")
    assert [document.number for document in documents] == [1, 3]
    assert [finding.document for finding in findings] == [2]


def test_a_divider_inside_a_value_is_one_only_at_the_start_of_a_line() -> None:
    """Block text may hold indented dashes; --- at the start of a line always divides."""
    assert values("a: |\n  x\n  ---\n  y\n---\nb: --- c\n") == [{"a": "x\n---\ny\n"}, {"b": "--- c"}]


@pytest.mark.parametrize(
    "broken", ["a: [", "a: 'x", "\t- a", "a: b: c", "a: *x", "a: !x y", "a: \x00", "? [a]\n: b"]
)
def test_a_broken_document_hides_no_other(broken: str) -> None:
    """Those before and after are read; the finding names the broken one and its line."""
    documents, findings = read_documents("f", f"a: 1\n---\n{broken}\n---\nb: 2\n")
    assert [document.value for document in documents] == [{"a": 1}, {"b": 2}]
    (finding,) = findings
    assert finding.document == 2
    assert "(line 3" in finding.message or "(line 4" in finding.message


def test_a_key_that_stands_twice_is_reported_where_it_stands() -> None:
    """The first value is kept, and the document is marked as damaged."""
    documents, findings = read_documents("f", "a: {b/c: [{x: 1}, {x: 1, x: 2}]}\n")
    assert documents[0].value == {"a": {"b/c": [{"x": 1}, {"x": 1}]}}
    assert documents[0].damaged
    assert [finding.pointer for finding in findings] == ["/a/b~1c/1/x"]


def test_merge_keys_fill_in_what_is_not_written() -> None:
    """<< takes a mapping or a list of them; the first that has a key wins, and what is written most."""
    text = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz: {<<: [*x, *y], c: 3}\nq: {'<<': 1}\n"
    (value,) = values(text)
    assert isinstance(value, dict)
    assert value["z"] == {"a": 1, "b": 1, "c": 3}
    assert value["q"] == {"<<": 1}


def test_an_alias_may_be_a_key() -> None:
    """An alias of text is text, as a key too."""
    assert values("{a: &k name, *k : 1}") == [{"a": "name", "name": 1}]


def test_aliases_that_multiply_are_stopped() -> None:
    """A kilobyte that stands for a gigabyte is refused without building it."""
    bomb = "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
    bomb += "".join(
        f"{b}: &{b} [{','.join(['*' + a] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    ((document, message),) = problems(bomb)
    assert document == 1
    assert str(MAX_ALIASED_NODES) in message


def test_nesting_is_bounded() -> None:
    """Brackets by the hundred thousand end in one finding."""
    assert not problems("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    for text in ("[" * 100_000, "{a: " * 100_000, "- " * 100_000):
        ((_, message),) = problems(text)
        assert "nested deeper" in message


def test_size_and_counts_are_bounded() -> None:
    """Files, documents and values beyond the bounds are refused with a finding."""
    assert "larger than" in problems(b" " * (MAX_FILE_BYTES + 1))[0][1]
    assert "documents" in problems("---\n" * (MAX_DOCUMENTS + 1))[0][1]
    builder = Builder(Place(Report("f", 1)), Budget(nodes=3))
    events = [event for event in yaml.parse("[1, 2, 3]") if isinstance(event, NodeEvent)]
    for event in events[:3]:
        builder.feed(event)
    with pytest.raises(Unreadable, match="values"):
        builder.feed(events[3])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings_are_refused(encoding: str) -> None:
    """A file that is not UTF-8 says so; nothing is guessed."""
    assert problems("a: 1\n".encode(encoding))


def test_a_byte_order_mark_and_windows_line_ends_are_read() -> None:
    """What Windows editors add does not matter."""
    assert values(b"\xef\xbb\xbfa: 1\r\n---\r\nb: 2\r\n") == [{"a": 1}, {"b": 2}]


def test_a_file_without_documents_is_a_warning() -> None:
    """An empty file is suspicious (half-written?), but no error."""
    for text in ("", "\n# nothing\n", "---\n---\n"):
        (finding,) = read_documents("f", text)[1]
        assert (finding.severity, finding.document) == ("warning", 0)
