"""What counts as read: no half-written file, no vanished folder, no file system gone."""

from __future__ import annotations

import os
from pathlib import Path

from enforcer.sources.tree import MOVE_S, SETTLE_S, Tree
from policy.runtime.clock import wall_seconds

POLICY = """
apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: n, uid: u}
status: {podIPs: [{ip: 100.64.0.2}]}
"""


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(exist_ok=True)
        self.tree = Tree([str(path)])
        self.now = 0.0

    def write(self, name: str, pod: str) -> None:
        (self.path / name).write_text(POLICY.replace("NAME", pod))

    def look(self, *writing: str) -> bool:
        """Look until nothing is unsettled; True if anything changed."""
        changed = False
        for _ in range(5):
            took, again = self.tree.look(self.now, frozenset(writing))
            changed |= took
            self.now += SETTLE_S
            if not again:
                return changed
        raise AssertionError("never settles")

    def pods(self) -> list[str]:
        return [entry.value.name for read in self.tree.reads() for entry in read.entries]


def test_a_file_is_read_once_it_stands_still(tmp_path: Path) -> None:
    """Not at the first sight of a new state."""
    folder = _Folder(tmp_path / "m")
    folder.write("a.yaml", "one")
    assert folder.tree.look(0.0) == (False, True)
    assert not folder.tree.complete
    assert folder.look()
    assert folder.pods() == ["one"]
    assert folder.tree.complete
    assert not folder.look()


def test_a_file_that_is_old_already_is_read_at_once(tmp_path: Path) -> None:
    """An enforcer that comes back does not wait for what nobody has touched; a rename is a touch."""
    folder = _Folder(tmp_path / "m")
    folder.write("a.yaml", "one")
    path = folder.path / "a.yaml"
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert folder.tree.look(0.0) == (False, True), "its times were changed just now"
    ahead = wall_seconds() + 3600.0
    assert Tree([str(folder.path)], wall=lambda: ahead).look(0.0) == (True, False)


def test_a_change_that_does_not_parse_keeps_the_last_good_content(tmp_path: Path) -> None:
    """And says so, until it is right again."""
    folder = _Folder(tmp_path / "m")
    folder.write("a.yaml", "one")
    folder.look()
    (folder.path / "a.yaml").write_text("kind: Pod\nmetadata: {name: two, ")
    assert folder.look()
    assert folder.pods() == ["one"]
    assert "last good content stays in force" in folder.tree.problems[0]
    folder.write("a.yaml", "two")
    assert folder.look()
    assert folder.pods() == ["two"]
    assert folder.tree.problems == ()


def test_a_file_somebody_is_writing_is_not_read(tmp_path: Path) -> None:
    """However valid what is there so far may be."""
    folder = _Folder(tmp_path / "m")
    folder.write("a.yaml", "one")
    folder.look()
    folder.write("a.yaml", "two")
    folder.look(str(folder.path / "a.yaml"))
    assert folder.pods() == ["one"]
    folder.look()
    assert folder.pods() == ["two"]


def test_a_folder_that_vanishes_is_not_no_policies(tmp_path: Path) -> None:
    """What was read stays; when it comes back it counts again, deletions too."""
    folder = _Folder(tmp_path / "m")
    folder.write("a.yaml", "one")
    folder.write("b.yaml", "two")
    folder.look()
    os.rename(folder.path, tmp_path / "away")
    assert folder.look()
    assert folder.pods() == ["one", "two"]
    assert "stays in force" in folder.tree.problems[0]
    (tmp_path / "away" / "a.yaml").unlink()
    os.rename(tmp_path / "away", folder.path)
    assert folder.look()
    assert folder.pods() == ["two"]


def test_a_folder_that_never_was_is_incomplete(tmp_path: Path) -> None:
    """Nothing was loaded: that is not the same as nothing to load."""
    tree = Tree([str(tmp_path / "missing"), str(tmp_path)])
    tree.look(0.0)
    assert not tree.complete
    assert "missing" in tree.problems[0]
    (tmp_path / "missing").mkdir()
    tree.look(1.0)
    assert tree.complete


def test_a_deleted_file_is_a_deletion(tmp_path: Path) -> None:
    """In a folder that is there, what is gone is gone."""
    folder = _Folder(tmp_path / "m")
    folder.write("a.yaml", "one")
    folder.write("b.yaml", "two")
    folder.look()
    (folder.path / "a.yaml").unlink()
    assert folder.look()
    assert folder.pods() == ["two"]


def test_hidden_files_and_other_endings_are_not_manifests(tmp_path: Path) -> None:
    """An editor's swap files, a ConfigMap's ``..data``."""
    folder = _Folder(tmp_path / "m")
    for name in (".a.yaml.swp", "a.yaml~", "notes.txt"):
        folder.write(name, "hidden")
    (folder.path / "..data").mkdir()
    (folder.path / "..data" / "x.yaml").write_text(POLICY)
    (folder.path / "sub").mkdir()
    folder.write("sub/b.yml", "seen")
    folder.look()
    assert folder.pods() == ["seen"]


def test_what_is_no_text_file_is_a_problem_and_nothing_waits_for_it(tmp_path: Path) -> None:
    """A FIFO, a dangling link, octets that are no UTF-8."""
    folder = _Folder(tmp_path / "m")
    os.mkfifo(folder.path / "a.yaml")
    (folder.path / "b.yaml").symlink_to("nowhere")
    (folder.path / "c.yaml").write_bytes(b"\xff\xfe")
    folder.write("d.yaml", "good")
    folder.look()
    assert folder.pods() == ["good"]
    assert len(folder.tree.problems) == 3


def test_a_renamed_file_is_never_missing(tmp_path: Path) -> None:
    """Between the old name's end and the new one's first reading nothing that it permits is cut."""
    folder = _Folder(tmp_path / "m")
    folder.write("a.yaml", "one")
    folder.look()
    (folder.path / "a.yaml").rename(folder.path / "b.yaml")
    assert folder.tree.look(folder.now) == (False, True)
    assert folder.pods() == ["one"]
    folder.now += SETTLE_S
    assert folder.tree.look(folder.now) == (True, False)
    assert folder.pods() == ["one"]


def test_a_file_that_is_gone_does_not_wait_for_others_for_ever(tmp_path: Path) -> None:
    """Whoever changes another file again and again does not put off a deletion."""
    folder = _Folder(tmp_path / "m")
    folder.write("a.yaml", "one")
    folder.write("b.yaml", "two")
    folder.look()
    (folder.path / "a.yaml").unlink()
    looks = int(MOVE_S / SETTLE_S) * 3
    for number in range(looks):
        folder.write("b.yaml", f"two-{number}")
        changed, _ = folder.tree.look(folder.now)
        folder.now += SETTLE_S / 2
        if changed:
            break
    assert folder.pods() == ["two"]
    assert number < looks - 1
