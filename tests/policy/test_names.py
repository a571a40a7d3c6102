"""Names: from wire octets to text, and the questions about one name."""

from __future__ import annotations

import pytest

from policy.names import canonical_zone, from_wire, is_permittable, is_under, registrable_domain


def test_wire_names_become_lower_case_text() -> None:
    """Labels are joined by dots, lower-cased, without a trailing dot; the root is empty."""
    assert from_wire(b"\x03API\x07eXample\x03com\x00") == "api.example.com"
    assert from_wire(b"\x03api\x03com") == "api.com"
    assert from_wire(b"\x00") == ""
    assert from_wire(b"") == ""


def test_odd_octets_are_escaped() -> None:
    """Dots inside a label, control characters and high octets can be mistaken for nothing else."""
    assert from_wire(b"\x07a.b\x1b[2J\x03com\x00") == "a\\046b\\027\\0912j.com"
    assert from_wire(b"\x02\xff\\\x00") == "\\255\\092"


@pytest.mark.parametrize(
    "wire",
    [
        b"\xc0\x0c",
        b"\x40a",
        b"\x05ab",
        b"\x01a\x00\x01b",
        b"\x3f" + b"a" * 63 + (b"\x3f" + b"b" * 63) * 3 + b"\0",
    ],
)
def test_what_is_no_wire_name_is_refused(wire: bytes) -> None:
    """Pointers, unknown label types, short labels, octets after the root and over-long names raise."""
    with pytest.raises(ValueError, match=r"label|octets"):
        from_wire(wire)


def test_only_plain_names_within_bounds_are_permittable() -> None:
    """Octets outside a-z, 0-9, - and _, empty labels and too long ones are never permitted."""
    assert is_permittable("_sip._tcp.a-b.example.com")
    longest = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
    assert len(longest) == 253
    assert is_permittable(longest)
    for name in ("", "a..b", "A.com", "a\\046b.com", "é.com", "a" * 64, longest + "d", "a.com."):
        assert not is_permittable(name)


def test_is_under_is_label_aligned() -> None:
    """A zone holds itself and what ends in a dot and it, nothing else."""
    assert is_under("example.com", "example.com")
    assert is_under("a.example.com", "example.com")
    assert not is_under("evilexample.com", "example.com")
    assert is_under("anything", "")
    assert canonical_zone(" Corp.Internal. ") == "corp.internal"


def test_registrable_domain_knows_public_suffixes() -> None:
    """Public suffix plus one label; a suffix, a single label and the root are their own."""
    assert registrable_domain("a.b.example.co.uk") == "example.co.uk"
    assert registrable_domain("x.y.github.io") == "y.github.io"
    assert registrable_domain("co.uk") == "co.uk"
    assert registrable_domain("localhost") == "localhost"
    assert registrable_domain("a.b.internal") == "b.internal"
    assert registrable_domain("") == ""
