"""The Redis servers of tests and demo: they start, break as told, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from enforcer.demo.certificates import Certificates
from enforcer.demo.failure import LabFailureError
from enforcer.demo.processes import parent_of, wait_until
from enforcer.demo.spaces import Space
from enforcer.demo.stores import Ring, Store, Trio, free_ports

DEADLINE_S = 60.0


def is_gone(pid: int) -> bool:
    """Whether no such process lives."""
    return parent_of(pid) is None


def test_killed_it_comes_back_empty_frozen_it_comes_back_whole() -> None:
    """On its socket and its port; its folder is removed in the end."""
    with Store(port=free_ports(1)[0]) as store:
        assert store.cli("set", "a", "1") == "OK"
        store.freeze()
        assert Path(f"/proc/{store.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        store.thaw()
        assert store.cli("get", "a") == "1"
        pid = store.pid
        store.kill()
        assert not store.runs
        assert is_gone(pid)
        with pytest.raises(LabFailureError, match="does not run"):
            store.freeze()
        store.start()
        assert store.cli("get", "a") == ""
        with pytest.raises(LabFailureError, match="ERR"):
            store.cli("no-such-command")
        folder, pid = store.folder, store.pid
    assert not folder.exists()
    assert is_gone(pid)


def test_a_frozen_one_ends_too(tmp_path: Path) -> None:
    """A folder that was given stays."""
    store = Store(tmp_path / "kept").start()
    pid = store.pid
    store.freeze()
    store.stop()
    assert is_gone(pid)
    assert (tmp_path / "kept" / "log").exists()


def test_it_dies_with_whoever_started_it() -> None:
    """SIGKILL of this process leaves no server, frozen or not."""
    program = (
        "import time; from enforcer.demo.stores import Store\n"
        "stores = [Store().start(), Store().start()]\n"
        "stores[0].freeze()\n"
        "print(*(store.pid for store in stores), *(store.folder for store in stores), flush=True)\n"
        "time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert child.stdout is not None
    one, other, *folders = child.stdout.readline().decode().split()
    pids = [int(one), int(other)]
    assert all(Path(folder).exists() for folder in folders)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert wait_until(lambda: all(map(is_gone, pids)), DEADLINE_S)
    with Store():
        assert not any(Path(folder).exists() for folder in folders), "the next one tidies up"


def test_one_that_cannot_start_says_why(tmp_path: Path) -> None:
    """With Redis's own words."""
    with pytest.raises(LabFailureError, match="Bad directive"):
        Store(tmp_path, settings={"no-such-setting": "1"}).start()


def test_passwords_and_users() -> None:
    """The default user's password can change; users come from lines."""
    with Store(more="user nameward on >x ~n:* +get\n") as store:
        assert "nameward" in store.cli("acl", "list")
        store.set_password("first")
        assert store.cli("ping") == "PONG"
        store.set_password("")
        assert store.cli("ping") == "PONG"


@pytest.mark.kernel
def test_it_lives_in_a_namespace() -> None:
    """Its port is that namespace's; its Unix socket is everybody's."""
    space = Space("store")
    try:
        with space.entered():
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        with Store(space=space, port=6379) as store, space.entered():
            said = subprocess.run(
                ["redis-cli", "-p", "6379", "ping"], capture_output=True, text=True, check=False
            )
            assert said.stdout == "PONG\n"
            assert store.cli("ping") == "PONG"
    finally:
        space.close()


def test_tls_with_certificates_of_its_own(tmp_path: Path) -> None:
    """redis-cli with the client's certificate; and none without."""
    signed = Certificates(tmp_path)
    assert (tmp_path / "client.key").stat().st_mode & 0o077 == 0
    with Store(port=free_ports(1)[0], certificates=signed) as store:
        assert store.url.startswith("rediss://127.0.0.1:")
        tls = ["redis-cli", "-p", str(store.port), "--tls", "--cacert", str(signed.ca_file)]
        mine = ["--cert", str(signed.cert_file), "--key", str(signed.key_file)]
        said = subprocess.run([*tls, *mine, "ping"], capture_output=True, text=True, check=False)
        assert said.stdout == "PONG\n", said.stderr
        assert (
            "PONG" not in subprocess.run([*tls, "ping"], capture_output=True, text=True, check=False).stdout
        )


def test_a_trio_changes_its_master_and_a_ring_serves_all_slots() -> None:
    """What is killed is replaced; all sixteen thousand slots have a server."""
    with Trio() as trio:
        assert trio.master() is trio.servers[0]
        trio.servers[0].kill()
        assert wait_until(lambda: trio.master() is trio.servers[1], DEADLINE_S, 0.1)
        folder = trio.folder
    assert not folder.exists()
    with Ring() as ring:
        assert "cluster_slots_ok:16384" in ring.servers[2].cli("cluster", "info")
        folder = ring.folder
    assert not folder.exists()
