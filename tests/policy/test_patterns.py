"""The pattern language, row by row of the specification's table."""

from __future__ import annotations

import pytest

from policy.patterns import PatternError, label_matches, parse_pattern
from policy.trie import PatternTrie


@pytest.mark.parametrize(
    ("pattern", "name", "matched"),
    [
        ("api.example.com", "api.example.com", True),
        ("api.example.com", "x.api.example.com", False),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "a.b.c.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "evilexample.com", False),
        ("a.*.example.com", "a.b.example.com", True),
        ("a.*.example.com", "a.b.c.example.com", False),
        ("a.*.example.com", "a.example.com", False),
        ("api-*.example.com", "api-.example.com", True),
        ("api-*.example.com", "api-x.example.com", True),
        ("api-*.example.com", "api-x.y.example.com", False),
        ("*-api.example.com", "x-api.example.com", True),
        ("*-api.example.com", "y.x-api.example.com", False),
        ("a*b*c.example.com", "aXXbYYc.example.com".lower(), True),
        ("a*b*c.example.com", "ac.example.com", False),
        ("*.s3.*.amazonaws.com", "x.y.s3.eu-west-1.amazonaws.com", True),
        ("*.s3.*.amazonaws.com", "s3.eu-west-1.amazonaws.com", False),
        ("*.*.example.com", "a.b.example.com", True),
        ("*.*.example.com", "b.example.com", False),
        ("*", "anything.at.all", True),
        ("*", "com", True),
        ("*", "", False),
        ("*", "a\\046b.com", False),
        ("_sip.example.com", "_sip.example.com", True),
    ],
)
def test_what_a_pattern_matches(pattern: str, name: str, matched: bool) -> None:
    """Patterns match label by label; the trie agrees."""
    parsed = parse_pattern(pattern)
    trie: PatternTrie[str] = PatternTrie()
    trie.add(parsed, "found")
    assert parsed.matches(name) is matched
    assert trie.lookup(name) == (("found",) if matched else ())


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (" API.Example.COM. ", "api.example.com"),
        ("*.", "*"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.Straße.example", "*.xn--strae-oqa.example"),
        ("api。example。com", "api.example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("*.co.uk", "*.co.uk"),
        ("localhost", "localhost"),
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    """Trimmed, lower-case, without the trailing dot, in A-labels (IDNA 2008, UTS 46)."""
    assert parse_pattern(text).text == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        (" . ", "empty"),
        ("**.example.com", r"\*\*"),
        ("a**.example.com", r"\*\*"),
        ("93.184.216.34", "IP address"),
        ("2001:db8::1", "IP address"),
        ("[2001:db8::1]", "IP address"),
        ("10.0.0", "IP address"),
        ("0x7f.0.0.1", "IP address"),
        ("*.1.2.3", "IP address"),
        ("https://api.example.com/x", "scheme"),
        ("api.example.com:443", "port"),
        ("api.example.com/v1", "path"),
        ("a..example.com", "empty label"),
        (".example.com", "empty label"),
        ("a" * 64 + ".com", "64 octets"),
        (".".join(["a" * 60] * 5), "304 characters"),
        ("*example.com", "registered"),
        ("api-*.com", "registered"),
        ("example.*", "registered"),
        ("*.*.com", "registered"),
        ("a.*.co.uk", "registered"),
        ("*.*", "registered"),
        ("api example.com", "contains ' '"),
        ("api?.example.com", r"contains '\?'"),
        ("a\x1b[2J.example.com", "contains"),
        ("bü*.example.com", "mixes"),
        ("\uff0a.example.com", r"looks like \*"),
        ("\u202eabc.example", "internationalized"),
    ],
)
def test_what_is_refused_says_why_and_what_to_write(text: str, message: str) -> None:
    """Each refusal names its cause and a fix."""
    with pytest.raises(PatternError, match=message) as refused:
        parse_pattern(text)
    assert refused.value.fix


def test_the_fix_of_a_url_is_its_host() -> None:
    """Who writes a URL is told the name in it."""
    with pytest.raises(PatternError) as refused:
        parse_pattern("https://user@api.example.com:8443/x")
    assert "api.example.com" in refused.value.fix
    assert "8443" not in refused.value.fix


def test_over_broad_patterns_say_so() -> None:
    """``*`` and a wildcard right above a public suffix name many owners; others do not."""
    for text in ("*", "*.com", "*.co.uk", "*.github.io"):
        assert parse_pattern(text).over_broad
    for text in ("com", "*.example.com", "*.example.co.uk", "a.*.example.com"):
        assert parse_pattern(text).over_broad is None


def test_a_label_with_many_stars_costs_no_backtracking() -> None:
    """A hostile label pattern is matched in one pass (this would never end otherwise)."""
    wanted = "*a" * 30 + "*b"
    assert not label_matches(wanted, "a" * 63)
    assert label_matches("*a" * 30 + "*", "a" * 63)


def test_patterns_are_values() -> None:
    """Equal texts are equal patterns."""
    assert parse_pattern("A.com") == parse_pattern("a.com.")
    assert len({parse_pattern("A.com"), parse_pattern("a.com")}) == 1
    assert "a.com" in repr(parse_pattern("a.com"))
