"""The trial Redis: its password comes from a file and is nobody's argument."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.demo.stores import free_ports
from tests.charts.renders import EVERYTHING, RANGES, RELEASE, configuration, containers, one, rendered

pytestmark = pytest.mark.cluster

PASSWORD = "a \\ password of \"$several\" 'words'"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A server started by the container's own command, with the password in a file."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is missing: apt-get install redis-server")
    [number] = free_ports(1)
    (tmp_path / "password").write_text(PASSWORD)
    *shell, script = containers(rendered(*EVERYTHING), "Deployment", f"{RELEASE}-redis")["redis"]["command"]
    assert "/etc/nameward-redis/password" in script
    here = script.replace("/etc/nameward-redis", str(tmp_path))
    here = here.replace("appendonly no", rf"appendonly no\nbind 127.0.0.1\nport {number}")
    server = subprocess.Popen([*shell, here], cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True)
    yield number
    os.killpg(server.pid, signal.SIGTERM)  # the shell, and the server behind its pipe
    server.wait(30)


def test_it_asks_for_the_password(port: int) -> None:
    """Started as in its pod: who has no password is told nothing, and no process shows it."""
    deadline = time.monotonic() + 30
    while "NOAUTH" not in asked(port, "ping"):
        assert time.monotonic() < deadline, "it did not start"
        time.sleep(0.05)
    assert asked(port, "-a", PASSWORD, "--no-auth-warning", "ping").strip() == "PONG"
    assert "$several" not in subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout
    limit = asked(port, "-a", PASSWORD, "--no-auth-warning", "config", "get", "maxmemory")
    assert limit.split() == ["maxmemory", str(256 << 20)]


def asked(port: int, *words: str) -> str:
    """What redis-cli prints, errors too."""
    done = subprocess.run(["redis-cli", "-p", str(port), *words], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_only_nodes_may_ask_it() -> None:
    """The agents are on the nodes' network: its NetworkPolicy names addresses, and lets it ask nobody."""
    policy = one(rendered(*EVERYTHING), "NetworkPolicy", f"{RELEASE}-redis")["spec"]
    assert policy["egress"] == []
    assert policy["ingress"][0]["from"] == [{"ipBlock": {"cidr": "192.168.0.0/24"}}]


def test_an_external_one_is_reached_with_the_files_of_the_secret() -> None:
    """Each key of the Secret that is named becomes a file; hmac-key is always there."""
    external = (
        *RANGES,
        *("--set", "redis.mode=external,redis.existingSecret=shared"),
        *("--set", "redis.url=rediss+sentinel://nameward@s1:26379\\,s2:26379/main"),
        *("--set", "redis.secretKeys={password,sentinel-password,previous-hmac-key,ca.crt,tls.crt,tls.key}"),
    )
    redis = configuration(*external)["state"]["redis"]
    assert redis == {
        "url": "rediss+sentinel://nameward@s1:26379,s2:26379/main",
        "hmacKeyFile": "/etc/nameward-redis/hmac-key",
        "passwordFile": "/etc/nameward-redis/password",
        "sentinelPasswordFile": "/etc/nameward-redis/sentinel-password",
        "previousHmacKeyFile": "/etc/nameward-redis/previous-hmac-key",
        "caFile": "/etc/nameward-redis/ca.crt",
        "certFile": "/etc/nameward-redis/tls.crt",
        "keyFile": "/etc/nameward-redis/tls.key",
    }
    assert not any(each["metadata"]["name"] == f"{RELEASE}-redis" for each in rendered(*external))
