"""Laws of names and patterns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policy.names import from_wire, is_permittable
from policy.patterns import Pattern, PatternError, parse_pattern
from policy.trie import PatternTrie

LABEL = st.text("abx1-_", min_size=1, max_size=4)
STARRED = st.text("ab*-", min_size=1, max_size=5).filter(lambda label: "**" not in label)
NAMES = st.lists(LABEL, min_size=1, max_size=5).map(".".join)


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    """Draw a pattern above example.com, near enough to the names to match now and then."""
    left = draw(st.lists(LABEL | STARRED, max_size=3))
    text = ".".join([*left, "x", "com"]) if draw(st.booleans()) else draw(NAMES)
    try:
        return parse_pattern(text)
    except PatternError:
        return parse_pattern("*.x.com")


@st.composite
def names_like(draw: st.DrawFn, pattern: Pattern) -> str:
    """Draw a name that the pattern could match, with its stars filled in."""
    filling = st.sampled_from(["", "a", "b", "ab", "x.a"])
    return "".join(draw(filling) if octet == "*" else octet for octet in pattern.text)


def _wire(labels: list[bytes]) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


@given(patterns())
def test_parse_of_print_is_identity(pattern: Pattern) -> None:
    """A pattern's canonical text parses to the same pattern."""
    assert parse_pattern(pattern.text) == pattern
    assert parse_pattern(pattern.text).text == pattern.text


@given(patterns())
def test_case_white_space_and_a_trailing_dot_change_nothing(pattern: Pattern) -> None:
    """Writing a pattern in capitals, with spaces around and a dot behind means the same."""
    assert parse_pattern(f"  {pattern.text.upper()}. ") == pattern


@given(st.data(), patterns())
def test_patterns_are_label_aligned(data: st.DataObject, pattern: Pattern) -> None:
    """What matches has the pattern's labels: each literal label whole, at its place from the right."""
    name = data.draw(NAMES | names_like(pattern))
    if not pattern.matches(name):
        return
    labels, wanted = name.split("."), list(pattern.labels)
    if wanted[0] == "*":
        assert len(labels) >= len(wanted)
        wanted = wanted[1:]
    else:
        assert len(labels) == len(wanted)
    for label, pattern_label in zip(reversed(labels), reversed(wanted), strict=False):
        if "*" not in pattern_label:
            assert label == pattern_label


@given(patterns(), NAMES)
def test_an_octet_glued_to_the_left_of_the_literal_part_never_matches(pattern: Pattern, name: str) -> None:
    """``*.example.com`` matches no ``evilexample.com``, whatever stands before it."""
    if pattern.text.startswith("*.") and "*" not in pattern.text[2:]:
        assert not pattern.matches(f"{name}.e{pattern.text[2:]}")


@given(st.data(), st.lists(patterns(), max_size=6))
def test_trie_agrees_with_matches(data: st.DataObject, found: list[Pattern]) -> None:
    """The trie returns the values of exactly the patterns that match, each as often as added."""
    trie: PatternTrie[int] = PatternTrie()
    for number, pattern in enumerate(found):
        trie.add(pattern, number)
    near = st.one_of([names_like(pattern) for pattern in found]) if found else NAMES
    name = data.draw(NAMES | near)
    expected = [number for number, pattern in enumerate(found) if pattern.matches(name)]
    assert sorted(trie.lookup(name)) == expected


@given(st.lists(st.binary(min_size=1, max_size=6), max_size=6))
def test_text_of_a_wire_name_is_safe_and_permittable_only_when_plain(labels: list[bytes]) -> None:
    """Any octets give printable ASCII; a name with odd octets, dots in labels too, is never permitted."""
    name = from_wire(_wire(labels))
    assert name.isascii()
    assert name.isprintable()
    plain = all(
        octet in b"abcdefghijklmnopqrstuvwxyz0123456789_-" for label in labels for octet in label.lower()
    )
    assert is_permittable(name) == (plain and bool(labels))
    if not plain:
        assert not parse_pattern("*").matches(name)


@given(st.lists(st.binary(min_size=1, max_size=6), max_size=6), st.lists(st.binary(min_size=1), max_size=6))
def test_text_of_wire_names_is_injective_up_to_case(one: list[bytes], two: list[bytes]) -> None:
    """Two wire names have one text only if they are the same name (RFC 1035, 2.3.3)."""
    same = [label.lower() for label in one] == [label.lower() for label in two]
    assert (from_wire(_wire(one)) == from_wire(_wire(two))) == same


@given(st.text(max_size=40))
def test_any_text_is_a_pattern_or_a_refusal_with_a_fix(text: str) -> None:
    """Parsing never fails in another way, and a refusal says what to write instead."""
    try:
        written = parse_pattern(text).text
    except PatternError as error:
        written = ""
        refusal = error
    if written:
        assert set(written) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.*")
    else:
        assert refusal.message
        assert refusal.fix
