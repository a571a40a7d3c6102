"""The machine of a cluster's node is apart from the host, and leaves nothing, however its maker ends."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from enforcer.demo.failure import CannotRunHereError, LabFailureError
from enforcer.demo.kube import archives, binaries, machine
from enforcer.demo.kube.machine import Machine
from enforcer.demo.kube.program import Program
from enforcer.demo.processes import parent_of, wait_until
from enforcer.demo.spaces import Space

MAKER = """
import sys, time
from pathlib import Path
from enforcer.demo.kube.machine import Machine
from enforcer.demo.spaces import Space
made = Machine(Space("lost"), Path(sys.argv[1]))
made.start()
print(made.pid, made.cgroup, flush=True)
time.sleep(600)
"""


def pid_of(program: Program) -> int:
    """Its process, once what enters the machine has started it."""
    found: list[int] = []

    def is_there() -> bool:
        with contextlib.suppress(LabFailureError):
            found.append(program.pid)
        return bool(found)

    assert wait_until(is_there, 30.0), program.tail()
    return found[0]


@pytest.mark.kernel
def test_it_is_apart_from_the_host(tmp_path: Path) -> None:
    """Its processes, its /run, its interfaces; the host's settings that kubelet wants seem to be made."""
    before = Path("/proc/sys/vm/overcommit_memory").read_text()
    space = Space("apart")
    made = Machine(space, tmp_path / "log")
    try:
        made.start()
    except CannotRunHereError as error:
        space.close()
        pytest.skip(str(error))
    try:
        assert made.run(["sh", "-c", "echo $$"]) != ""
        assert made.run(["ls", "/sys/class/net"]).split() == ["lo"]
        assert made.run(["cat", "/proc/sys/vm/overcommit_memory"]).strip() == "1"
        made.run(["touch", "/run/only-here"])
        assert made.path("/run/only-here").exists()
        assert not Path("/run/only-here").exists()
        assert Path("/proc/sys/vm/overcommit_memory").read_text() == before
        program = made.program("sleeper", ["sleep", "600"], tmp_path / "sleeper.log")
        program.start()
        inside = pid_of(program)
        program.freeze()
        program.thaw()
    finally:
        made.stop()
        space.close()
    assert wait_until(lambda: parent_of(inside) is None, 10.0)
    program.stop(grace_s=0)
    assert machine.remove_leftovers() == []


@pytest.mark.kernel
def test_it_ends_with_a_maker_that_is_killed(tmp_path: Path) -> None:
    """The kernel ends every process of it; its control groups go with the next machine's start."""
    log = tmp_path / "log"
    maker = subprocess.Popen(
        [sys.executable, "-c", MAKER, str(log)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert maker.stdout is not None
    with maker.stdout as said:
        words = said.readline().split()
    if not words:
        maker.wait(30)
        pytest.skip("a machine cannot be made here")
    first, cgroup = int(words[0]), words[1]
    maker.send_signal(signal.SIGKILL)
    maker.wait(30)
    assert wait_until(lambda: parent_of(first) is None, 30.0)
    assert wait_until(lambda: cgroup in machine.remove_leftovers(), 30.0)


def test_the_programs_folder_is_the_users_or_named() -> None:
    """$NAMEWARD_CLUSTER_BIN, then the cache."""
    assert binaries.folder({"NAMEWARD_CLUSTER_BIN": "/opt/x"}) == Path("/opt/x")
    assert binaries.folder({"XDG_CACHE_HOME": "/c"}) == Path("/c/nameward-cluster/bin")
    assert binaries.folder({"HOME": "/u/x"}) == Path("/u/x/.cache/nameward-cluster/bin")


def test_missing_packages_are_named_once() -> None:
    """By their names in the distribution."""
    assert binaries.missing_packages(("ctr", "containerd", "etcd"), lambda _: None) == [
        "containerd",
        "etcd-server",
    ]
    assert binaries.missing_packages(("etcd",), lambda name: f"/usr/bin/{name}") == []


def test_an_image_holds_its_files_and_nothing_of_ours(tmp_path: Path) -> None:
    """One layer, its digest in the configuration, owned by root."""
    program = tmp_path / "program"
    program.write_bytes(b"content")
    archive = tmp_path / "image.tar"
    archives.write(archives.Image("lab.invalid/x:1", {"/bin/x": program}, ["/bin/x"]), archive)
    with tarfile.open(archive) as opened:
        assert sorted(opened.getnames()) == ["config.json", "layer.tar", "manifest.json"]
        layer = opened.extractfile("layer.tar")
        assert layer is not None
        with tarfile.open(fileobj=layer) as inside:
            [entry] = inside.getmembers()
    assert (entry.name, entry.mode, entry.uid, entry.uname) == ("bin/x", 0o755, 0, "")
    assert not archive.with_suffix(".layer").exists()
