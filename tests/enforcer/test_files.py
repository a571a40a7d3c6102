"""The source of files on a real file system: what inotify names is looked at, and everything now and then."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from enforcer.sources import Seen
from enforcer.sources.files import POLL_S, FilesSource
from policy.manifest import EVERY_NAMESPACE
from policy.runtime.clock import now

POD = """
apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: n, uid: u-NAME}
status: {podIPs: [{ip: 100.64.0.2}]}
"""


class _Source:
    """A source in a loop that this test turns, and what it has said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reactor = EPollReactor()  # type: ignore[no-untyped-call]
        self.reactor.seconds = now
        self.threads = ThreadPool(1, 1)
        self.threads.start()
        self.failures: list[Failure] = []
        self.source = FilesSource(
            self.reactor, self.threads, [str(folder)], EVERY_NAMESPACE, self.failures.append
        )
        self.seen: list[Seen] = []
        self.source.start(self.seen.append)

    def write(self, name: str, *pods: str) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("---".join(POD.replace("NAME", pod) for pod in pods))

    def move(self, name: str, *pods: str) -> None:
        """Write it beside, and rename it into place."""
        self.write(f"{name}.new", *pods)
        os.replace(self.folder / f"{name}.new", self.folder / name)

    def pods(self) -> set[str]:
        return {pod.name for pod in self.seen[-1].loaded.pods} if self.seen else set()

    def until(self, what: Callable[[], bool]) -> None:
        deadline = now() + 60
        while not what():
            assert now() < deadline, (self.pods(), self.failures)
            self.reactor.runUntilCurrent()
            self.reactor.doIteration(0.01)

    def close(self) -> None:
        self.source.stop()
        self.threads.stop()
        for _ in range(3):
            self.reactor.runUntilCurrent()
            self.reactor.doIteration(0.01)
        self.reactor.removeAll()
        for internal in list(self.reactor._internalReaders):
            internal.connectionLost(Failure(RuntimeError()))
        self.reactor._poller.close()
        assert not self.failures


@pytest.fixture
def source(tmp_path: Path) -> Iterator[_Source]:
    """A source of a folder with two files and one in a folder below."""
    for name in ("a", "b", "c"):
        (tmp_path / "m").mkdir(exist_ok=True)
        (tmp_path / "m" / f"{name}.yaml").write_text(POD.replace("NAME", name))
    made = _Source(tmp_path / "m")
    made.write("below/d.yaml", "d")
    made.until(lambda: made.pods() == {"a", "b", "c", "d"})
    made.until(lambda: str(tmp_path / "m" / "below") in made.source.watched)
    looks = made.source.looks
    made.until(lambda: made.source.looks > looks)  # what nobody could say before it was watched
    yield made
    made.close()


def polls_since(began_at: float) -> float:
    """How often everything may have been looked at since, with nothing to say so."""
    return 1 + (now() - began_at) / POLL_S


def test_what_is_named_is_all_that_is_looked_at(source: _Source) -> None:
    """Files that are written, renamed into place, new or deleted: none makes a look at everything."""
    looks, began_at = source.source.looks, now()
    source.write("a.yaml", "a2")
    source.until(lambda: source.pods() == {"a2", "b", "c", "d"})
    source.move("below/d.yaml", "d2")
    source.until(lambda: source.pods() == {"a2", "b", "c", "d2"})
    source.write("e.yaml", "e")
    source.until(lambda: source.pods() == {"a2", "b", "c", "d2", "e"})
    (source.folder / "b.yaml").unlink()
    source.until(lambda: source.pods() == {"a2", "c", "d2", "e"})
    assert source.source.looks <= looks + polls_since(began_at)


def test_what_is_renamed_is_never_missing(source: _Source) -> None:
    """One name goes, another comes: in every state that was told, the pod is there."""
    os.replace(source.folder / "a.yaml", source.folder / "below" / "z.yaml")
    source.write("new.yaml", "new")
    source.until(lambda: source.pods() == {"a", "b", "c", "d", "new"})
    assert all("a" in {pod.name for pod in seen.loaded.pods} for seen in source.seen)


def test_a_folder_that_comes_or_goes_is_followed(source: _Source) -> None:
    """Files in a new folder count, and are watched there; those of one that was removed are gone."""
    source.write("fresh/x.yaml", "x")
    source.until(lambda: "x" in source.pods())
    source.until(lambda: str(source.folder / "fresh") in source.source.watched)
    source.move("fresh/x.yaml", "y")
    source.until(lambda: "y" in source.pods())
    (source.folder / "below" / "d.yaml").unlink()
    (source.folder / "below").rmdir()
    source.until(lambda: source.pods() == {"a", "b", "c", "y"})
    source.write("below/d.yaml", "d3")
    source.until(lambda: "d3" in source.pods())
    source.until(lambda: str(source.folder / "below") in source.source.watched)
    looks, began_at = source.source.looks, now()
    source.move("below/d.yaml", "d4")
    source.until(lambda: "d4" in source.pods())
    assert source.source.looks <= looks + polls_since(began_at)


def test_a_folder_that_is_removed_keeps_what_it_held(source: _Source) -> None:
    """The configured folder itself is not no policies; it counts again once it is back."""
    os.rename(source.folder, source.folder.with_name("away"))
    source.until(lambda: bool(source.seen[-1].problems))
    assert source.pods() == {"a", "b", "c", "d"}
    source.write("a.yaml", "back")
    source.until(lambda: source.pods() == {"back"})
