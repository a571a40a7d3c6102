"""The bridge, between a storage with Obot's habits and a real API server that grants it its Role alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from enforcer.obot.absence import CONFIRM_S, MANY_S
from enforcer.obot.naming import AVIATRIX, MANAGED_BY
from tests.obot.obots import Obot
from tests.obot.rig import Rig
from tests.obot.storage import POLICIES, Storage

pytestmark = pytest.mark.cluster
Json = dict[str, Any]


@pytest.fixture
def rig(tmp_path: Path, storage: Storage, obot: Obot) -> Iterator[Rig]:
    """A bridge that runs, as the account of its pod."""
    with Rig(tmp_path, storage, obot.bridge_access, obot.mcp) as running:
        yield running


def edit(obot: Obot, name: str, patch: str) -> None:
    """An administrator's edit of a FirewallPolicy."""
    obot.api.kubectl("patch", "fwp", name, "-n", obot.mcp, "--type=json", "-p", patch)


def test_what_obot_holds_stands_in_the_cluster(rig: Rig, storage: Storage, obot: Obot) -> None:
    """Created, changed, denied everything; the schema and the Role let it."""
    storage.server("a", "b.example.com", "a.example.com")
    storage.server("b", deny=True)
    storage.server("c")
    wanted = {
        "obot-mnp1a-fw": ["a.example.com", "b.example.com"],
        "obot-mnp1b-fw": [],
        "obot-mnp1c-fw": ["*"],
    }
    rig.until(lambda: rig.domains() == wanted, "three policies")
    storage.server("a", "c.example.com")
    rig.until(lambda: rig.domains()["obot-mnp1a-fw"] == ["c.example.com"], "the change")
    assert rig.bridge.problems == []
    verbs = {event["verb"] for event in obot.api.audit(f"system:serviceaccount:{obot.home}:default")}
    assert verbs <= {"list", "watch", "create", "update", "delete"}


def test_edits_and_deletions_are_put_right(rig: Rig, storage: Storage, obot: Obot) -> None:
    """A wider permit, a label taken off, an object deleted: as Obot says again."""
    storage.server("a", "a.example.com")
    rig.until(lambda: len(rig.policies()) == 1, "the policy")
    before = rig.policies()["obot-mnp1a-fw"]
    edit(
        obot,
        "obot-mnp1a-fw",
        '[{"op": "add", "path": "/spec/webGroups/0/domains/-", "value": "*.evil.example"}]',
    )
    rig.until(lambda: rig.domains() == {"obot-mnp1a-fw": ["a.example.com"]}, "the edit undone")
    edit(obot, "obot-mnp1a-fw", '[{"op": "remove", "path": "/metadata/labels"}]')
    rig.until(
        lambda: rig.policies()["obot-mnp1a-fw"]["metadata"].get("labels") == before["metadata"]["labels"],
        "the labels",
    )
    obot.api.kubectl("delete", "fwp", "obot-mnp1a-fw", "-n", obot.mcp)
    rig.until(lambda: rig.domains() == {"obot-mnp1a-fw": ["a.example.com"]}, "the policy again")


def test_what_obot_deletes_goes_after_two_lists(rig: Rig, storage: Storage) -> None:
    """And the others stay."""
    for name in "abcde":
        storage.server(name, f"{name}.example.com")
    rig.until(lambda: len(rig.policies()) == 5, "five policies")
    lists = storage.lists
    storage.remove("mnp1a")
    rig.until(lambda: storage.lists > lists, "a LIST")
    rig.later(CONFIRM_S)
    rig.until(lambda: set(rig.policies()) == {f"obot-mnp1{name}-fw" for name in "bcde"}, "one gone")
    assert storage.lists >= lists + 2


def test_a_new_database_is_not_believed_soon(rig: Rig, storage: Storage) -> None:
    """It lists nothing, and lists it well. What comes back in time never went."""
    for name in "ab":
        storage.server(name, f"{name}.example.com")
    rig.until(lambda: len(rig.policies()) == 2, "two policies")
    kept = rig.policies()["obot-mnp1a-fw"]["metadata"]["uid"]
    storage.reset()
    storage.close_watches()
    for _ in range(3):
        lists = storage.lists
        rig.later(CONFIRM_S)
        rig.watch_of_storage.again()
        rig.until(lambda before=lists: storage.lists > before, "a LIST")  # type: ignore[misc]
    assert len(rig.policies()) == 2
    storage.server("a", "a.example.com")
    rig.until(
        lambda: (
            rig.policies()["obot-mnp1a-fw"]["metadata"]["annotations"].get("obot.ai/mcp-network-policy-uid")
            == storage.listed({})["items"][0]["metadata"]["uid"]
        ),
        "the new source's uid",
    )
    rig.later(MANY_S)
    rig.until(lambda: set(rig.policies()) == {"obot-mnp1a-fw"}, "the other gone")
    assert rig.policies()["obot-mnp1a-fw"]["metadata"]["uid"] == kept


def test_others_objects_are_not_touched(tmp_path: Path, storage: Storage, obot: Obot) -> None:
    """No orphan without our label; another provider's is a problem, or is taken over where that is wanted."""
    api = obot.api
    storage.server("a", "a.example.com")
    with Rig(tmp_path, storage, obot.bridge_access, obot.mcp) as first:
        first.until(lambda: len(first.policies()) == 1, "the policy")
    body = first.policies()["obot-mnp1a-fw"]
    body["metadata"]["labels"][MANAGED_BY] = AVIATRIX
    body["spec"]["webGroups"][0]["domains"] = ["theirs.example.com"]
    api.kubectl("replace", "-f", "-", text=_text(body))
    own = {**body, "metadata": {"name": "by-hand", "namespace": obot.mcp}}
    theirs = {
        **body,
        "metadata": {"name": "obot-mnp1z-fw", "namespace": obot.mcp, "labels": {MANAGED_BY: AVIATRIX}},
    }
    api.apply(_text(own), _text(theirs))
    with Rig(tmp_path, storage, obot.bridge_access, obot.mcp, adopt=()) as second:
        second.until(lambda: any(AVIATRIX in said for said in second.bridge.problems), "the problem")
        assert second.domains()["obot-mnp1a-fw"] == ["theirs.example.com"]
    with Rig(tmp_path, storage, obot.bridge_access, obot.mcp) as third:
        third.until(lambda: third.domains()["obot-mnp1a-fw"] == ["a.example.com"], "taken over")
        third.later(MANY_S)
        storage.server("b", "b.example.com")
        third.until(lambda: "obot-mnp1b-fw" in third.policies(), "another one")
        assert {"by-hand", "obot-mnp1z-fw"} <= set(third.policies())


def test_a_rotated_token_is_read_again(rig: Rig, storage: Storage) -> None:
    """Obot answers an expired one with 403, as to somebody it does not know."""
    storage.server("a", "a.example.com")
    rig.until(lambda: len(rig.policies()) == 1, "the policy")
    storage.tokens = {"osa1-2-second"}
    rig.token_file.write_text("osa1-2-second")
    storage.close_watches()
    storage.server("b", "b.example.com")
    rig.until(lambda: len(rig.policies()) == 2, "the second policy")


def test_a_token_that_obot_does_not_know_is_said(rig: Rig, storage: Storage) -> None:
    """What stands stays; the sentence names the file; a good token ends it."""
    storage.server("a", "a.example.com")
    rig.until(lambda: len(rig.policies()) == 1, "the policy")
    storage.tokens = {"osa1-2-second"}
    storage.close_watches()
    rig.until(lambda: any(str(rig.token_file) in said for said in rig.bridge.problems), "the problem")
    assert 403 in storage.refused
    assert set(rig.policies()) == {"obot-mnp1a-fw"}
    rig.token_file.write_text("osa1-2-second")
    rig.until(lambda: rig.bridge.problems == [], "its end")


def test_versions_that_go_down_hide_nothing(rig: Rig, storage: Storage) -> None:
    """After a compaction the storage uses numbers again that the bridge has seen already."""
    for name in "abc":
        storage.server(name, f"{name}.example.com")
    rig.until(lambda: len(rig.policies()) == 3, "three policies")
    for name in "bc":
        storage.remove(f"mnp1{name}")
    storage.compact()
    highest = int(storage.listed({})["metadata"]["resourceVersion"])
    storage.server("d", "d.example.com")
    assert int(storage.listed({})["metadata"]["resourceVersion"]) == highest + 1 < 6
    storage.close_watches()
    rig.until(lambda: "obot-mnp1d-fw" in rig.policies(), "the one with an old number")
    storage.compact()
    storage.server("a", "z.example.com")
    storage.close_watches()
    rig.until(lambda: rig.domains()["obot-mnp1a-fw"] == ["z.example.com"], "the change")


def test_a_version_too_old_is_a_new_list(rig: Rig, storage: Storage) -> None:
    """410, as an answer or as an event of the watch."""
    storage.server("a", "a.example.com")
    rig.until(lambda: len(rig.policies()) == 1, "the policy")
    storage.server("a", "b.example.com")
    storage.compact()
    storage.server("b", "b.example.com")
    storage.close_watches()
    rig.until(lambda: rig.domains().get("obot-mnp1b-fw") == ["b.example.com"], "both")
    assert rig.domains()["obot-mnp1a-fw"] == ["b.example.com"]


def test_a_storage_that_is_not_there_yet_is_waited_for(tmp_path: Path, storage: Storage, obot: Obot) -> None:
    """Obot begins to answer after its provider is ready: nothing is written or deleted before."""
    storage.server("a", "a.example.com")
    with Rig(tmp_path, storage, obot.bridge_access, obot.mcp) as first:
        first.until(lambda: len(first.policies()) == 1, "the policy")
    storage.stop()
    with Rig(tmp_path, storage, obot.bridge_access, obot.mcp) as rig:
        rig.until(lambda: any("Obot's storage" in said for said in rig.bridge.problems), "the problem")
        rig.later(MANY_S)
        assert set(rig.policies()) == {"obot-mnp1a-fw"}
        assert rig.bridge.numbers().storage_up is False
        storage.server("b", "b.example.com")
        storage.start()
        rig.until(lambda: len(rig.policies()) == 2, "both")
        rig.until(lambda: rig.bridge.problems == [], "no problem")


def test_another_replicas_changes_are_found(rig: Rig, storage: Storage) -> None:
    """They come two seconds later: no harm."""
    storage.poll_s = 0.5
    storage.server("a", "a.example.com")
    rig.until(lambda: len(rig.policies()) == 1, "the policy")


def test_a_watch_that_says_nothing_is_not_relied_on(tmp_path: Path, storage: Storage, obot: Obot) -> None:
    """The next LIST, after the watch has ended by time, brings what it kept back."""
    storage.is_frozen = True
    storage.watch_s = 1.0
    with Rig(tmp_path, storage, obot.bridge_access, obot.mcp) as rig:
        rig.until(lambda: storage.watches > 0, "a watch")
        storage.server("a", "a.example.com")
        rig.until(lambda: len(rig.policies()) == 1, "the policy")


def test_nothing_is_asked_that_obot_does_not_have(rig: Rig, storage: Storage) -> None:
    """One path, no version to match, no wish for first events; a new LIST names no version."""
    storage.server("a", "a.example.com")
    rig.until(lambda: len(rig.policies()) == 1, "the policy")
    assert {path for path, _ in storage.asked} == {POLICIES}
    for _, query in storage.asked:
        assert not {"resourceVersionMatch", "sendInitialEvents"} & query.keys()
        assert "watch" in query or "resourceVersion" not in query
    assert storage.refused == []


def test_the_certificate_can_be_pinned(tmp_path: Path, storage: Storage, obot: Obot) -> None:
    """Obot's own and no other; nothing stands by a server that shows another one."""
    storage.server("a", "a.example.com")
    with Rig(tmp_path, storage, obot.bridge_access, obot.mcp, fingerprint=storage.fingerprint) as good:
        good.until(lambda: len(good.policies()) == 1, "the policy")
        storage.stop()
        storage.server("b", "b.example.com")
        storage.start()
        good.until(lambda: any("TLS" in said for said in good.bridge.problems), "the problem")
        assert set(good.policies()) == {"obot-mnp1a-fw"}


def test_a_bad_source_stops_no_other(rig: Rig, storage: Storage) -> None:
    """It is said, counted, and leaves what stands for it as it is."""
    storage.server("a", "a.example.com")
    rig.until(lambda: len(rig.policies()) == 1, "the policy")
    storage.put("mnp1a", mcpServerName="ms1a", podSelector={}, egressDomains=["b.example.com"])
    storage.put(
        "mnp1b", mcpServerName="ms1b", podSelector={"app": "ms1b"}, egressDomains=["1.2.3.4", "x.example"]
    )
    rig.until(lambda: rig.domains().get("obot-mnp1b-fw") == ["x.example"], "the other")
    rig.until(lambda: len(rig.bridge.problems) == 1, "the problem")
    rig.later(MANY_S)
    assert rig.domains()["obot-mnp1a-fw"] == ["a.example.com"]
    numbers = rig.bridge.numbers()
    assert (numbers.sources, numbers.policies, numbers.refused, numbers.left_out) == (2, 1, 1, 1)
    assert any("1.2.3.4" in str(fields["reason"]) for _, fields in rig.told.all)


def test_somebody_who_writes_it_back_is_named_and_does_not_drive_us(
    rig: Rig, storage: Storage, obot: Obot
) -> None:
    """Each further write waits longer, and a sentence says that somebody else writes."""
    storage.server("a", "a.example.com")
    rig.until(lambda: len(rig.policies()) == 1, "the policy")
    patch = '[{"op": "replace", "path": "/spec/webGroups/0/domains", "value": ["theirs.example.com"]}]'
    for _ in range(4):
        edit(obot, "obot-mnp1a-fw", patch)
        rig.until(lambda: rig.domains()["obot-mnp1a-fw"] == ["a.example.com"], "the edit undone")
    edit(obot, "obot-mnp1a-fw", patch)
    rig.until(lambda: any("times in a row" in said for said in rig.bridge.problems), "the sentence")


def test_a_role_that_lacks_a_verb_is_said(rig: Rig, storage: Storage, obot: Obot) -> None:
    """In the API server's words; with the verb it goes on by itself."""
    role = obot.api.get("role", "obot-network-policy-provider", "-n", obot.mcp)
    less = {**role, "rules": [{**role["rules"][0], "verbs": ["list", "watch"]}]}
    obot.api.kubectl("replace", "-f", "-", text=_text(less))
    storage.server("a", "a.example.com")
    rig.until(lambda: any("cannot create" in said for said in rig.bridge.problems), "the problem")
    del role["metadata"]["resourceVersion"]
    obot.api.kubectl("replace", "-f", "-", text=_text(role))
    rig.until(lambda: len(rig.policies()) == 1, "the policy")
    rig.until(lambda: rig.bridge.problems == [], "no problem")


def _text(body: Json) -> str:
    import json

    return json.dumps(body)
