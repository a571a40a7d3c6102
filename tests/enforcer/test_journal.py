"""The journal survives what happens to files: torn lines, another boot, compaction under way."""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.journal import Answer, Journal, Kept, replay

TO = b"\x08\x08\x08\x08"
OTHER = b"\x08\x08\x04\x04"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """An empty journal of boot ``b``."""
    made = Journal(tmp_path / "journal", "b")
    made.open(7, ["t1"], [])
    return made


def _granted(journal: Journal, name: str, until: float, *to: bytes) -> None:
    journal.granted(Answer(("t1", "t2"), name, to or (TO,), until, 1.0))


def test_what_was_flushed_is_replayed(journal: Journal, tmp_path: Path) -> None:
    """Names, instants, generation and who was admitted; for each identity of the pod."""
    _granted(journal, "a.example", 10.5, TO, OTHER)
    journal.admitted("t2")
    journal.published(9)
    journal.flush()
    found = replay(tmp_path / "journal", "b")
    assert found.generation == 9
    assert found.admitted == {"t1", "t2"}
    assert found.answers["t2"][OTHER] == {"a.example": Kept(10.5, 1.0)}
    assert found.torn_lines == 0


def test_what_was_not_flushed_is_lost_with_the_process(journal: Journal, tmp_path: Path) -> None:
    """Nothing is written before the turn's end; the answer has not left either."""
    _granted(journal, "a.example", 10.0)
    assert replay(tmp_path / "journal", "b").answers == {}


def test_every_prefix_of_the_file_is_less_knowledge(journal: Journal, tmp_path: Path) -> None:
    """Wherever the file is torn, what is read was once written."""
    for number in range(5):
        _granted(journal, f"n{number}.example", 10.0 + number)
    journal.flush()
    whole = (tmp_path / "journal").read_bytes()
    complete = replay(tmp_path / "journal", "b").answers["t1"][TO]
    for length in range(len(whole)):
        torn = tmp_path / "torn"
        torn.write_bytes(whole[:length])
        names = replay(torn, "b").answers.get("t1", {}).get(TO, {})
        assert names.items() <= complete.items()


def test_garbage_between_lines_is_counted_and_passed_over(journal: Journal, tmp_path: Path) -> None:
    """Bytes of any kind, and JSON that is no line of a journal."""
    _granted(journal, "a.example", 10.0)
    journal.flush()
    with (tmp_path / "journal").open("ab") as file:
        file.write(b'\xff\xfe\x00{\n["g",1,2]\n["g",["t1"],"x",["zz"],1,1]\n{"a":1}\n[]\n["g",["t1"]')
    _granted(journal, "b.example", 10.0)
    found = replay(tmp_path / "journal", "b")
    assert set(found.answers["t1"][TO]) == {"a.example"}
    assert found.torn_lines == 6


def test_another_boots_journal_explains_nothing_but_its_generation(journal: Journal, tmp_path: Path) -> None:
    """Identity ends with the boot."""
    _granted(journal, "a.example", 10.0)
    journal.flush()
    found = replay(tmp_path / "journal", "c")
    assert (found.answers, found.admitted, found.generation) == ({}, frozenset(), 7)


def test_revoked_and_gone_are_not_replayed(journal: Journal, tmp_path: Path) -> None:
    """Each takes away what it names."""
    _granted(journal, "a.example", 10.0)
    _granted(journal, "b.example", 10.0)
    journal.revoked("t1", TO, ["a.example"])
    journal.gone("t2")
    journal.flush()
    found = replay(tmp_path / "journal", "b")
    assert set(found.answers["t1"][TO]) == {"b.example"}
    assert "t2" not in found.answers
    assert "t2" not in found.admitted


def test_compaction_loses_nothing_that_comes_meanwhile(journal: Journal, tmp_path: Path) -> None:
    """Lines go to both files until the new one takes the old one's place."""
    for number in range(100):
        _granted(journal, f"old{number}.example", 10.0)
    journal.flush()
    size = journal.size_bytes
    journal.begin_compaction(["t1"], (Answer(("t1",), f"k{i}.example", (TO,), 20.0, 1.0) for i in range(5)))
    assert journal.compact_step(2)
    _granted(journal, "meanwhile.example", 30.0)
    journal.flush()
    while journal.compact_step(2):
        pass
    _granted(journal, "after.example", 30.0)
    journal.flush()
    found = replay(tmp_path / "journal", "b")
    assert set(found.answers["t1"][TO]) == {
        *(f"k{i}.example" for i in range(5)),
        "meanwhile.example",
        "after.example",
    }
    assert found.generation == 7
    assert journal.size_bytes < size
    journal.close()


def test_no_journal_is_no_knowledge(tmp_path: Path) -> None:
    """A first start."""
    found = replay(tmp_path / "journal", "b")
    assert (found.generation, found.answers, found.torn_lines) == (0, {}, 0)
