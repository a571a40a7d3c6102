"""docs/redis.md is run: every shell block against a real server, what it shows compared with what comes.

``NAMEWARD_WRITE_PAGE=1`` writes what came into the page instead.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from enforcer.asked import Request
from enforcer.authority import Decided
from enforcer.demo.certificates import Certificates
from enforcer.demo.stores import Store, free_ports
from enforcer.sharing.records.seal import Keyring, NotBelieved, check, sealed
from enforcer.sharing.redis import finding
from enforcer.sharing.redis.credentials import Credentials
from policy.addresses import to_packed
from policy.authority import GrantAnswered, GrantRequested
from policy.pods import Pod
from policy.runtime.redis_url import parse_redis_url
from policy.runtime.settings import load_settings
from policy.snapshot import compile_snapshot
from policy.world import World
from tests.sharing.shown import CLUSTER, GRANT_S, SharingNode, Turns

PAGE = Path(__file__).parents[2] / "docs" / "redis.md"
SHARING = PAGE.parents[1] / "enforcer" / "sharing"
HOST = "redis.example.com"
WRITE = os.environ.get("NAMEWARD_WRITE_PAGE") == "1"

WRAPPER = """#!/bin/sh
# The page's server is this test's: {host} by its own name over TLS, the administrator's by the socket.
if [ "$1" = -h ]; then
    [ "$2" = {host} ] || exit 9
    shift 2
    exec /usr/bin/redis-cli -h 127.0.0.1 -p {port} --sni {host} "$@"
fi
exec /usr/bin/redis-cli -s {socket} "$@"
"""

VARYING = (
    (re.compile(r"\b\d{13}-\d+\b"), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
    (re.compile(r"(?<=/\S) \d+\.\d\b|(?<=\S) \d+\.\d(?=[\";])"), " <seconds>"),
    (re.compile(r"^\d{4,6}$", re.MULTILINE), "<ms>"),
)


class Block(NamedTuple):
    """One fenced block of the page; ``at`` is where its content begins."""

    language: str
    text: str
    at: int


def blocks() -> list[Block]:
    """All of the page, in their order."""
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [Block(each[1], each[2], each.start(2)) for each in found]


def shell() -> list[str]:
    """The blocks that are to be typed."""
    return [block.text for block in blocks() if block.language == "bash"]


def the_one(word: str) -> str:
    """The block to be typed that has this in it."""
    [found] = [text for text in shell() if word in text]
    return found


def normal(text: str) -> str:
    """What must be equal of an output."""
    for varying, word in VARYING:
        text = varying.sub(word, text)
    return text


class Page:
    """The page's hosts and files, in a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self.etc = folder / "nameward"
        self.etc.mkdir()
        authority = Certificates(folder / "certificates", (HOST, "127.0.0.1"))
        (self.etc / "redis-ca.crt").write_text(authority.ca_file.read_text())
        for name in ("redis-password", "view-password"):
            (self.etc / name).write_text(f"{name}-of-the-test\n")
        [port] = free_ports(1)
        settings = {"tls-auth-clients": "no"}
        self.store = Store(folder / "store", port=port, certificates=authority, settings=settings)
        self.place = parse_redis_url(f"rediss://nameward@127.0.0.1:{port}/0")
        self._bin = folder / "bin"
        self._bin.mkdir()
        wrapper = self._bin / "redis-cli"
        wrapper.write_text(WRAPPER.format(host=HOST, port=port, socket=self.store.path))
        wrapper.chmod(0o755)

    def run(self, script: str, etc: Path | None = None) -> str:
        """Run what the page says, with its files here."""
        text = script.replace("/etc/nameward", str(etc or self.etc))
        path = f"{self._bin}:{os.environ['PATH']}"
        done = subprocess.run(
            ["/bin/bash", "-eu", "-o", "pipefail", "-c", text],
            capture_output=True, text=True, check=False, timeout=120, env={"PATH": path, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), script
        return done.stdout

    def as_user(self, user: str, password: str, *words: str) -> str:
        """One command as a user, and what Redis says."""
        done = subprocess.run(
            ["redis-cli", "-s", str(self.store.path), "--user", user, "--no-auth-warning", *words],
            capture_output=True, text=True, check=False, timeout=60,
            env={"REDISCLI_AUTH": password, **os.environ},
        )  # fmt: skip
        return done.stdout.strip()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A server as the page sets it up: with its users, and TLS."""
    made = Page(tmp_path_factory.mktemp("page"))
    with made.store:
        made.run(the_one("keys.1/previous"))
        made.run(the_one("ACL SETUSER nameward "))
        yield made


@pytest.fixture(scope="module")
def shown(page: Page) -> Iterator[list[SharingNode]]:
    """The cluster that the page shows: node-a and node-b live, node-b behind; node-c was lost."""
    turns = Turns()
    a, b, c = (
        SharingNode(turns, page.place, page.etc, name, session, **facts)
        for name, session, facts in (
            ("node-a", "5d0c7a1e", {}),
            ("node-b", "91b2e604", {"generation": 41, "policy_hash": "c07d2b55", "pending": 3}),
            ("node-c", "0f3a99d2", {}),
        )
    )
    nodes = [a, b, c]
    for node in nodes:
        node.start()
    a.add_pod("crm-1", ("10.244.0.10", "fd44::10"), "crm")
    a.grant("10.244.0.10", "203.0.113.7", "crm.example.com", "crm")
    a.grant("10.244.0.10", "203.0.113.7", "shop.example.com", "crm", lasts_s=GRANT_S / 2)
    a.grant("fd44::10", "2001:db8::7", "crm.example.com", "crm")
    b.add_pod("search-1", ("10.244.1.20",), "search")
    b.grant("10.244.1.20", "203.0.113.7", "cdn.example.net", "search")
    b.grant("10.244.1.20", "198.51.100.9", "api.example.net", "search")
    c.add_pod("mail-1", ("10.244.2.30",), "mail")
    c.grant("10.244.2.30", "203.0.113.7", "cdn.example.net", "mail")
    a.refuse("crm-1", "10.244.0.10", "drop.example.net", 7)
    a.refuse("crm-1", "10.244.0.10", "", 2, address="44.66.0.66")
    b.refuse("search-1", "10.244.1.20", "telemetry.example.org", 4)
    for node in nodes:
        node.settle()
    store = page.store
    streams = [f"nameward:{CLUSTER}:{{{name}}}:blocked" for name in ("node-a", "node-b")]
    owners = [f"nameward:{CLUSTER}:owner:{address}" for address in ("10.244.0.10", "10.244.1.20")]
    wanted = [f"nameward:{CLUSTER}:{{node-c}}:pod:10.244.2.30", *streams, *owners]
    turns.until(lambda: [key for key in wanted if store.cli("EXISTS", key) != "1"] == [])
    c.stop()
    store.cli("DEL", f"nameward:{CLUSTER}:{{node-c}}:node")  # its ten seconds are over
    yield nodes
    for node in (a, b):
        node.stop()


def commands(text: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with what the page shows of it."""
    parts = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)
    assert parts[0] == ""
    return list(zip(parts[1::2], parts[2::2], strict=True))


SHOWN = [each for block in blocks() if block.language == "console" for each in commands(block.text)]


@pytest.mark.parametrize(("command", "output"), SHOWN, ids=[command for command, _ in SHOWN])
def test_the_page_shows_what_comes(page: Page, shown: list[SharingNode], command: str, output: str) -> None:
    """Each command, with the functions of the page, as the user who looks."""
    for node in shown[:2]:
        node.settle()
    with ThreadPoolExecutor(1) as shell:  # their heartbeats go on beside it, however slow it is
        running = shell.submit(page.run, f"{the_one('rows()')}\n{command}")
        shown[0].turns.until(running.done, 120.0)
    came = running.result()
    if WRITE:
        text = PAGE.read_text()
        PAGE.write_text(text.replace(f"$ {command}\n{output}", f"$ {command}\n{came}", 1))
        return
    assert normal(came) == normal(output)


def test_the_configurations_of_the_page_are_accepted(tmp_path: Path) -> None:
    """All of its YAML, and each URL of its table."""
    configurations = [block.text for block in blocks() if block.language == "yaml"]
    assert configurations
    for number, text in enumerate(configurations):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        assert load_settings(path, {}).state.redis is not None
    urls = re.findall(r"\| `([a-z+]+://[^`]+)` \|", PAGE.read_text())
    assert len(urls) >= 5
    for url in urls:
        assert parse_redis_url(url).user == "nameward"


def keyring(etc: Path) -> Keyring:
    """What a node with these files seals and believes with."""
    files = Credentials(
        hmac_key_file=str(etc / "keys" / "current"), previous_hmac_key_file=str(etc / "keys" / "previous")
    )
    files.refresh()
    assert files.keys is not None, files.problem
    return Keyring(*files.keys)


def believes(reader: Keyring, writer: Keyring) -> bool:
    """Whether one node believes another's records."""
    key = b"nameward:prod:{node-a}:node"
    try:
        check(reader, key, sealed(writer, key, {"node": "node-a"}))
    except NotBelieved:
        return False
    return True


def test_the_key_changes_without_a_gap(page: Page, tmp_path: Path) -> None:
    """At each step and between two nodes' steps, each believes what the other writes."""
    nodes = [tmp_path / name for name in ("a", "b")]
    for node in nodes:
        node.mkdir()
        page.run(the_one("keys.1/previous"), node)
    first, second = nodes
    for name in ("current", "previous"):
        (second / "keys.1" / name).write_text((first / "keys.1" / name).read_text())
    old = keyring(first)
    for step in ("keys.2/previous", "keys.3/previous", "keys.4/previous"):
        for node in nodes:
            page.run(the_one(step), node)
            if step.startswith("keys.2"):
                (second / "keys.2").mkdir(exist_ok=True)
                (second / "keys.2" / "previous").write_text((first / "keys.2" / "previous").read_text())
            rings = [keyring(each) for each in nodes]
            assert believes(rings[0], rings[1]), step
            assert believes(rings[1], rings[0]), step
    assert not believes(keyring(first), old)
    assert not believes(keyring(second), old)


def permitted(user: str) -> set[str]:
    """The commands that the page permits a user."""
    line = next(part for part in the_one("ACL SETUSER nameward ").split("redis-cli") if f" {user} " in part)
    return set(re.findall(r"\+(\S+)", line))


def test_the_line_has_no_more_than_the_door_tests() -> None:
    """At every connection the door tries what it will send; the line permits that, and nothing else."""
    needed = finding.needed_commands(b"nameward:c:{n}:node", is_cluster=False)
    names = {command[0].decode().lower() for command in (*needed, *((each,) for each in finding.ALWAYS))}
    assert permitted("nameward") == names


def test_all_that_a_node_does_is_permitted(page: Page) -> None:
    """As that user: grants, renewals, removals, pods, refusals, requests, claims, listings, following."""
    turns = Turns()
    asker, owner = (
        SharingNode(turns, page.place, page.etc, name, session)
        for name, session in (("node-d", "d0d0d0d0"), ("node-e", "e0e0e0e0"))
    )
    page.store.cli("ACL", "LOG", "RESET")
    followed: list[object] = []
    for node in (asker, owner):
        node.start()
    end = asker.view.follow(Request("blocked", follow=True), followed.append, followed.append)
    owner.add_pod("pod-1", ("10.244.5.50",), "crm")
    owner.grant("10.244.5.50", "203.0.113.50", "crm.example.com", "crm")
    owner.grant("10.244.5.50", "203.0.113.51", "crm.example.com", "crm")
    owner.settle()
    owner.grant("10.244.5.50", "203.0.113.50", "crm.example.com", "crm", lasts_s=2 * GRANT_S)
    owner.settle()
    claim = f"nameward:{CLUSTER}:owner:10.244.5.50"
    turns.until(lambda: page.store.cli("EXISTS", claim) == "1")

    answers: list[GrantAnswered] = []
    source = to_packed("10.244.5.50")
    asked = GrantRequested(1, 42, "uid-pod-1", source, "crm.example.com", (to_packed("203.0.113.50"),), 60)
    pod = Pod(namespace="obot-mcp", name="pod-1", uid="uid-pod-1", addresses=("10.244.5.50",), node="node-e")
    owner.snapshot = compile_snapshot(World(generation=42, pods=(pod,)))
    asker.remote.ask(asked, pod, answers.append)
    turns.until(lambda: bool(owner.remote.waiting) or bool(answers))
    [request] = owner.remote.take(10, 100)
    owner.remote.answered([Decided(request, GrantAnswered(request.id, 42, ("realized",), 120.0))])
    turns.until(lambda: bool(answers))
    assert answers[0].outcomes == ("realized",), answers

    turns.until(lambda: bool(asker.remote.counts["realized"]))
    owner.refuse("pod-1", "10.244.5.50", "drop.example.net", 3)
    turns.until(lambda: bool(followed))
    for command in ("grants", "blocked", "status", "inventory"):
        found = asker.found(command=command)
        assert found.warnings == ()
        assert any(row["node"] == "node-e" for part in found.parts for row in part), command
    end()
    owner.remove_pod("pod-1")
    gone = f"nameward:{CLUSTER}:{{node-e}}:grant:10.244.5.50:203.0.113.50:tcp:443"
    turns.until(lambda: page.store.cli("EXISTS", gone) == "0")
    assert asker.troubles == owner.troubles == []
    for node in (asker, owner):
        node.stop()
    assert page.store.cli("ACL", "LOG") == ""


def test_the_troubles_of_the_page_are_those_of_the_code() -> None:
    """What the page quotes is what some module says."""
    table = PAGE.read_text().partition("\n## When something is wrong\n")[2]
    quoted = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(quoted) > 20
    code = " ".join(path.read_text() for path in sorted(SHARING.rglob("*.py")))
    assert [words for words in quoted if words not in code] == []


REFUSED = (
    ("HSET", "nameward:staging:{node-a}:node", "a", "b"),
    ("HSET", "other", "a", "b"),
    ("HGETALL", "other"),
    ("XADD", "nameward:staging:{node-a}:requests", "*", "a", "b"),
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("CONFIG", "GET", "maxmemory"),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("KEYS", "*"),
    ("EVAL", "return 1", "0"),
    ("ACL", "LIST"),
    ("CLIENT", "LIST"),
    ("SHUTDOWN",),
    ("MONITOR",),
    ("SUBSCRIBE", "nameward:prod:x"),
    ("REPLICAOF", "NO", "ONE"),
    ("SAVE",),
)


@pytest.mark.parametrize("user", ["nameward", "nameward-view"])
@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_nothing_else_is_permitted(page: Page, user: str, words: tuple[str, ...]) -> None:
    """Other keys, and commands of the server's administrator."""
    name = "redis-password" if user == "nameward" else "view-password"
    said = page.as_user(user, (page.etc / name).read_text().strip(), *words)
    assert said.startswith("NOPERM"), said


@pytest.mark.parametrize("words", [("HSET", "nameward:prod:x", "a", "b"), ("DEL", "nameward:prod:x")])
def test_who_looks_changes_nothing(page: Page, words: tuple[str, ...]) -> None:
    """The second user only reads."""
    said = page.as_user("nameward-view", (page.etc / "view-password").read_text().strip(), *words)
    assert said.startswith("NOPERM"), said
