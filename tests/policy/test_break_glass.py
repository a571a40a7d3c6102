"""Break-glass: how it is written, and what it opens beside what stays closed."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from policy.addresses import to_packed
from policy.break_glass import REASON_MARK, UNTIL_MARK, Asked, BreakGlass, Unreadable, read_marks, rfc3339
from policy.manifest import EVERY_NAMESPACE, load_manifests
from policy.pods import Pod
from policy.rules import Ceiling, CeilingAllowed, CeilingDenied, Destination, Policy, Rule
from policy.snapshot import Snapshot, compile_snapshot
from policy.world import World

SERVER = Pod(namespace="obot-mcp", name="ms1abc", uid="u1", addresses=("10.244.0.5",))
OTHER = Pod(namespace="shop", name="web", uid="u2", addresses=("10.244.0.6",))
PUBLIC, PRIVATE, METADATA = (to_packed(each) for each in ("93.184.216.34", "192.168.1.1", "169.254.169.254"))
OPENED = BreakGlass("obot-mcp", "2026-11-23T10:00:00Z", "the vendor's names have changed")


def snapshot(*, ceiling: Ceiling | None = None, policies: tuple[Policy, ...] = ()) -> Snapshot:
    """Two pods, one of them in the namespace that is open."""
    return compile_snapshot(
        World(
            generation=1,
            pods=(SERVER, OTHER),
            policies=policies,
            ceiling=ceiling or Ceiling(),
            break_glass=(OPENED,),
        )
    )


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-23T10:00:00Z", datetime(2026, 11, 23, 10, tzinfo=UTC)),
        ("2026-11-23t10:00:00z", datetime(2026, 11, 23, 10, tzinfo=UTC)),
        (" 2026-11-23T10:00:00.25+02:00\n", datetime(2026, 11, 23, 8, 0, 0, 250_000, tzinfo=UTC)),
        ("2026-11-23T10:00:00-23:59", datetime(2026, 11, 24, 9, 59, tzinfo=UTC)),
    ],
)
def test_a_time_is_read(text: str, at: datetime) -> None:
    """RFC 3339, with its zone; said again in UTC."""
    found = read_marks("obot-mcp", {UNTIL_MARK: text, REASON_MARK: " because \x1b[31m"})
    assert isinstance(found, Asked)
    assert found.until_at == at.timestamp()
    assert found.glass == BreakGlass("obot-mcp", rfc3339(at.timestamp()), "because \\u001b[31m")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "true",
        "4h",
        "2026-11-23",
        "2026-11-23T10:00:00",
        "2026-11-23 10:00:00Z",
        "2026-11-23T10:00Z",
        "2026-13-23T10:00:00Z",
        "2026-11-23T25:00:00Z",
        "2026-11-23T10:00:00+99:00",
        "0001-01-01T00:00:00+23:00",
        "9999-12-31T23:59:59-23:00",
        "20261123T100000Z",
        "1795000000",
        "٢٠٢٦-11-23T10:00:00Z",
        "2026-11-23T10:00:00Z; drop",
        "x" * 1024,
    ],
)
def test_what_is_no_time_opens_nothing_and_is_said(text: str) -> None:
    """A finding at the annotation; the Namespace keeps its labels."""
    assert isinstance(read_marks("obot-mcp", {UNTIL_MARK: text}), Unreadable)
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "obot-mcp", "labels": {"a": "b"}, "annotations": {UNTIL_MARK: text}},
    }
    loaded = load_manifests({"a.yaml": json.dumps(namespace)}, EVERY_NAMESPACE)
    assert loaded.namespaces["obot-mcp"]["a"] == "b"
    [finding] = loaded.findings
    assert finding.severity == "error"
    assert finding.pointer == "/metadata/annotations/nameward.dev~1break-glass-until"
    assert "nothing is opened" in finding.message
    assert "2026-01-31T17:30:00Z" in finding.fix


def test_a_reason_alone_asks_for_nothing() -> None:
    """Without a time there is no break-glass, and nothing to say."""
    assert read_marks("obot-mcp", {REASON_MARK: "x"}) is None


def test_a_long_reason_is_cut() -> None:
    """It stands in records and listings."""
    found = read_marks("obot-mcp", {UNTIL_MARK: OPENED.until, REASON_MARK: "é" * 1000})
    assert isinstance(found, Asked)
    assert len(found.glass.reason) <= 512
    assert found.glass.reason.isascii()


def test_it_opens_every_name_and_public_address() -> None:
    """For a pod that no policy selects; the record names break-glass and the namespace."""
    compiled = snapshot()
    access = compiled.access(SERVER, "anything.example.com")
    assert access.resolvable
    [permit] = access.at(PUBLIC).permits
    assert (permit.protocol, permit.policy, permit.rule) == ("any", "break-glass", "obot-mcp")
    assert compiled.decide(SERVER, None, PUBLIC, "udp", 9999).permitted
    assert any(box.first <= PUBLIC <= box.last for box in compiled.static_boxes(SERVER))
    assert not compiled.access(OTHER, "anything.example.com").resolvable
    assert not compiled.static_boxes(OTHER)


def test_what_is_guarded_stays_closed() -> None:
    """Private addresses, the metadata service, in answers too; DNS past the resolver."""
    compiled = snapshot()
    for address in (PRIVATE, METADATA, to_packed("fd00::1"), to_packed("64:ff9b::a9fe:a9fe")):
        assert not compiled.decide(SERVER, None, address, "tcp", 443).permitted
        assert not compiled.access(SERVER, "rebinding.example.com").at(address).permits
    assert not compiled.decide(SERVER, None, PUBLIC, "udp", 53).permitted
    assert not compiled.decide(SERVER, None, PUBLIC, "tcp", 853).permitted


def test_the_ceilings_denied_holds_and_its_allowed_does_not() -> None:
    """What is denied everywhere stays so; the list of what may be permitted at all is for policies."""
    ceiling = Ceiling(
        denied=CeilingDenied(names=("*.pastebin.example",), cidrs=("93.184.0.0/16",)),
        allowed=(CeilingAllowed(namespace="obot-mcp", names=("only.example.com",)),),
    )
    compiled = snapshot(ceiling=ceiling)
    assert not compiled.access(SERVER, "a.pastebin.example").resolvable
    assert not compiled.decide(SERVER, "a.com", PUBLIC, "tcp", 443).permitted
    assert compiled.decide(SERVER, "a.com", to_packed("8.8.8.8"), "tcp", 443).permitted
    assert compiled.decide(SERVER, None, to_packed("8.8.8.8"), "tcp", 22).permitted


def test_denies_of_policies_do_not_bind_it() -> None:
    """Neither an explicit one nor one that nobody understands: broken policies are why it exists."""
    anywhere = (Destination(kind="anywhere"),)
    deny = Rule(name="d", action="deny", destinations=anywhere, protocol="tcp", understood=False)
    named = Rule(name="n", action="deny", destinations=anywhere, web_groups=("a.com",))
    policy = Policy(namespace="obot-mcp", name="p", kind="FirewallPolicy", rules=(named, deny))
    assert snapshot(policies=(policy,)).decide(SERVER, "a.com", PUBLIC, "tcp", 443).permitted


def test_the_hash_of_the_policy_tells_it() -> None:
    """Two nodes of which one has the namespace open differ visibly; without any, nothing has changed."""
    world = snapshot().world
    closed = compile_snapshot(World(generation=1, pods=world.pods))
    assert snapshot().policy_hash != closed.policy_hash
