"""What is left of the resolver's privileges, as the kernel tells it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have something to give up")

_BEFORE = """
import json, os, socket, sys, errno
from pathlib import Path
from policy.runtime.clock import install_reactor
from resolver.privileges import drop

def attempt(what):
    try:
        what()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

held = [socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]
unbound = socket.socket()
filtered = drop(65353)
fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
seen = {name: value.strip() for name, value in fields.items()}
"""


def dropped(code):
    """Run code in a child after drop(); return what it printed as JSON."""
    ran = subprocess.run(
        [sys.executable, "-c", _BEFORE + code], capture_output=True, text=True, timeout=30, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@ROOT
def test_nothing_is_left():
    """No capability anywhere, the bounding set empty, no groups, no_new_privs, seccomp if installed."""
    seen = dropped("print(json.dumps({'filtered': filtered, **seen}))")
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(seen[name], 16) == 0, name
    assert seen["Uid"].split() == ["65353"] * 4
    assert seen["Gid"].split() == ["65353"] * 4
    assert seen["Groups"] == ""
    assert seen["NoNewPrivs"] == "1"
    assert seen["Seccomp"] == ("2" if seen["filtered"] else "0")


@ROOT
def test_nothing_comes_back():
    """Becoming root again, running a program, writing a file, raw sockets: refused."""
    seen = dropped(
        "print(json.dumps({"
        "'root': attempt(lambda: os.setuid(0)),"
        "'file': attempt(lambda: os.open('/tmp/x', os.O_WRONLY | os.O_CREAT)),"
        "'device': attempt(lambda: os.open('/dev/null', os.O_RDWR)),"
        "'raw': attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),"
        "'secret': attempt(lambda: os.open('/etc/shadow', os.O_RDONLY)),"
        "'port': attempt(lambda: unbound.bind(('127.0.0.1', 53))),"
        "}))"
    )
    if seen.pop("device") == "done":
        pytest.skip("no seccomp binding here")
    assert set(seen.values()) <= {"EPERM", "EACCES"}


@ROOT
def test_the_filter_leaves_no_way_to_other_processes():
    """With seccomp: no fork, no exec, no packet or netlink socket, no kill, no ptrace."""
    seen = dropped(
        "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n"
        "def call(name, *args):\n"
        "    return 'done' if getattr(libc, name)(*args) >= 0 else errno.errorcode[ctypes.get_errno()]\n"
        "print(json.dumps({'filtered': filtered,"
        "'fork': attempt(os.fork) if filtered else 'EPERM',"
        "'exec': attempt(lambda: os.execv('/bin/true', ['true'])) if filtered else 'EPERM',"
        "'netlink': attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)),"
        "'packet': attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)),"
        "'kill': attempt(lambda: os.kill(1, 0)),"
        "'listen': attempt(lambda: unbound.listen(1)),"
        "'ptrace': call('ptrace', 16, 1, 0, 0)}))"
    )
    if not seen.pop("filtered"):
        pytest.skip("no seccomp binding here")
    assert set(seen.values()) == {"EPERM"}


@ROOT
def test_what_the_resolver_does_still_works():
    """A reactor with timers, UDP and TCP out, UNIX sockets, reading a file, many descriptors."""
    seen = dropped(
        "reactor = install_reactor()\n"
        "one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)\n"
        "one.bind(('127.0.0.1', 0)); one.connect(one.getsockname()); one.send(b'x')\n"
        "import ssl, importlib\n"
        "ssl.create_default_context()\n"
        "importlib.import_module('wave')\n"
        "got = []\n"
        "reactor.callLater(0.01, lambda: got.append(one.recv(1)))\n"
        "reactor.callLater(0.02, reactor.stop)\n"
        "reactor.run()\n"
        "Path('/etc/hostname').read_text()\n"
        "import resource\n"
        "print(json.dumps({'got': got[0].decode(), 'files': resource.getrlimit(resource.RLIMIT_NOFILE)}))"
    )
    assert seen["got"] == "x"
    assert seen["files"][0] == seen["files"][1]
