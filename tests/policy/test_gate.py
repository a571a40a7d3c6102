"""What a pod is told of itself survives its record, and nothing unreadable counts as enforced."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policy import gate


def strings(record: bytes) -> list[str]:
    """The character-strings of a TXT record's RDATA."""
    found, at = [], 0
    while at < len(record):
        end = at + 1 + record[at]
        found.append(record[at + 1 : end].decode())
        at = end
    return found


def test_what_is_said_is_read() -> None:
    """There and back."""
    said = gate.Said("obot-mcp/ms1abc", "b1f6", 12, is_governed=True, is_enforced=True)
    assert gate.read_texts(strings(gate.as_record(said))) == said


@given(st.lists(st.text(max_size=40)))
def test_nothing_unreadable_counts(texts: list[str]) -> None:
    """Only the very words; a number that is none is no generation."""
    said = gate.read_texts([text for text in texts if text != "enforced=yes"])
    assert not said.is_enforced
    assert gate.read_texts([*texts, "generation=²", "enforced=yes"])[2:] == (0, said.is_governed, True)


def test_long_names_are_cut_to_what_a_string_holds() -> None:
    """253 octets of a pod's name and 63 of its namespace are more than one string holds."""
    record = gate.as_record(gate.Said("n" * 63 + "/" + "p" * 253, "u"))
    assert max(len(each) for each in strings(record)) == 255
    assert gate.read_texts(strings(record)).pod == ("n" * 63 + "/" + "p" * 253)[: gate.LONGEST_POD]
