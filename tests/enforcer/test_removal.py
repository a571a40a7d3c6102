"""Whether the mark on Nameward's namespace is meant for this pod; what is taken away."""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.cli.uninstall import Nodes, await_nodes, said
from enforcer.removal import MARK, OUR_FILES, Removal, clear, forget_removed, is_removed, take_away
from enforcer.sources import Seen
from policy.manifest import Loaded
from tests.enforcer.rig import KeptRecords

OURS = "nameward-system"
NOON = 1_700_000_000.0
LATER, EARLIER = "2023-11-14T23:00:00Z", "2023-11-14T22:00:00+00:00"
"""Noon is 22:13:20."""


class Pod:
    """A pod's removal, and what it told."""

    def __init__(self, folder: Path, uid: str = "uid-1", wall: float = NOON) -> None:
        self.asked = 0
        self.records = KeptRecords()
        self.heard: list[Seen] = []
        self.removal = Removal(
            folder=folder,
            namespace=OURS,
            pod=uid,
            wall=wall,
            records=self.records,
            asked=self._ask,
            seen=self.heard.append,
        )

    def _ask(self) -> None:
        self.asked += 1

    def sees(self, text: str | None, *, complete: bool = True, is_fresh: bool = True) -> None:
        """The source says how the namespace is marked."""
        marks = {OURS: {MARK: text}} if text is not None else {}
        self.removal.look(Seen(Loaded((), (), (), {}, (), marks), complete, (), 0.0, is_fresh))


def test_a_mark_after_the_pods_first_start_is_meant_for_it(tmp_path: Path) -> None:
    """It is noted for the next enforcer, who takes everything away; nothing more is heard."""
    pod = Pod(tmp_path)
    pod.sees(None)
    assert (pod.asked, len(pod.heard)) == (0, 1)
    pod.sees(LATER)
    assert (pod.asked, len(pod.heard)) == (1, 1)
    assert is_removed(tmp_path, "uid-1")
    assert not is_removed(tmp_path, "uid-2")
    forget_removed(tmp_path)
    assert not is_removed(tmp_path, "uid-1")


def test_a_mark_before_it_is_another_installations(tmp_path: Path) -> None:
    """However often the pod's containers start again; the next pod counts from its own start."""
    for wall in (NOON, NOON + 3600, NOON + 7200):
        pod = Pod(tmp_path, wall=wall)
        pod.sees(EARLIER)
        assert pod.asked == 0
    pod.sees(LATER)
    assert pod.asked == 1
    younger = Pod(tmp_path, "uid-2", wall=NOON + 7200)
    younger.sees(LATER)
    assert younger.asked == 0


@pytest.mark.parametrize("place", [{"complete": False}, {"is_fresh": False}])
def test_what_is_old_or_incomplete_takes_nothing_away(tmp_path: Path, place: dict[str, bool]) -> None:
    """A copy of what an API server said once is no word of today."""
    pod = Pod(tmp_path)
    pod.sees(LATER, **place)
    assert (pod.asked, len(pod.heard)) == (0, 1)


@pytest.mark.parametrize("text", ["now", "2023-11-14", "2023-11-14T23:00:00", "x" * 5000])
def test_what_is_no_time_is_told_once(tmp_path: Path, text: str) -> None:
    """With its zone, as RFC 3339 has it."""
    pod = Pod(tmp_path)
    pod.sees(text)
    pod.sees(text)
    assert (pod.asked, len(pod.heard)) == (0, 2)
    assert [event for event, *_ in pod.records.told] == ["enforcer.not_removed"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"pod": 1}', b"\xff" * 100])
def test_a_broken_note_is_none(tmp_path: Path, content: bytes) -> None:
    """It counts from now on, and nothing is away."""
    for name in ("installed", "removed"):
        (tmp_path / name).write_bytes(content)
    assert not is_removed(tmp_path, "uid-1")
    assert Pod(tmp_path).removal.since == NOON


def test_a_clock_that_went_back_counts_anew(tmp_path: Path) -> None:
    """A start in the future would hold every mark for an old one."""
    Pod(tmp_path, wall=NOON + 1e6)
    assert Pod(tmp_path).removal.since == NOON


def test_the_tables_go_before_the_route() -> None:
    """What they mark would find no way without it."""
    done: list[str] = []

    class Doors:
        def remove(self) -> tuple[str, ...]:
            done.append("tables")
            return ("inet nameward",)

        def remove_dns_rule(self) -> None:
            done.append("route")

    assert take_away(Doors(), Doors()) == ("inet nameward",)
    assert done == ["tables", "route"]


def test_only_our_own_files_go(tmp_path: Path) -> None:
    """The folder goes too, unless somebody keeps something in it."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (*OUR_FILES, "lock", "another's"):
        (folder / name).touch()
    clear(folder)
    assert [path.name for path in folder.iterdir()] == ["another's"]
    (folder / "another's").unlink()
    clear(folder)
    assert not folder.exists()


def test_nodes_are_waited_for_until_all_have_said_so() -> None:
    """Or until the time is over: then they are named, twenty at most."""
    clock = iter(range(100))
    answers = iter([Nodes((), ("a", "b")), Nodes(("a",), ("b",)), Nodes(("a", "b"), ())])
    assert await_nodes(lambda: next(answers), 60, lambda: next(clock), lambda _s: None) == Nodes(
        ("a", "b"), ()
    )
    never = Nodes((), tuple(f"node-{number:02}" for number in range(30)))
    found = await_nodes(lambda: never, 5, lambda: next(clock), lambda _s: None)
    lines = said(found, 5)
    assert lines[0].startswith("30 of 30 nodes did not answer within 5 s: node-00, node-01,")
    assert lines[0].endswith("node-19 and 10 more")
