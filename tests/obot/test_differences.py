"""What is written, and what is left alone."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from enforcer.obot.absence import CONFIRM_S, MANY_S, Absences
from enforcer.obot.difference import Differences, differences, hash_of
from enforcer.obot.naming import AVIATRIX, MANAGED_BY
from enforcer.obot.pace import FIRST_S, FORGIVEN_S, LONGEST_S, Pace
from enforcer.obot.translation import Shape, Wishes, wishes

Json = dict[str, Any]
SHAPE = Shape("obot-mcp", "nameward")
NAME = "obot-mnp1a-fw"


def wish(*names: str, domain: str = "a.example.com") -> Wishes:
    """Sources called mnp1NAME."""
    return wishes(
        [
            {
                "metadata": {"name": f"mnp1{name}", "uid": f"uid-{name}"},
                "spec": {
                    "mcpServerName": f"ms1{name}",
                    "podSelector": {"app": f"ms1{name}"},
                    "egressDomains": [domain],
                },
            }
            for name in names
        ],
        SHAPE,
    )


def standing(name: str = "a", **metadata: Any) -> Json:
    """The FirewallPolicy as the cluster has it."""
    body = deepcopy(wish(name).policies[f"obot-mnp1{name}-fw"].body)
    body["metadata"] |= {"uid": f"live-{name}", "resourceVersion": "7", "creationTimestamp": "2026"}
    body["metadata"] |= metadata
    return {"metadata": body["metadata"], "spec": body["spec"]}


def compare(wanted: Wishes, *live: Json, succeeded: tuple[str, ...] = (), served: Any = None) -> Differences:
    """Compare with what stands."""
    by_name = {each["metadata"]["name"]: each for each in live}
    return differences(wanted, by_name, served or {}, "nameward", succeeded)


def test_what_is_missing_is_created() -> None:
    """And what stands as wanted is not touched."""
    found = compare(wish("a", "b"), standing("a"))
    assert [(change.action, change.name) for change in found.changes] == [("create", "obot-mnp1b-fw")]
    assert (found.orphans, found.blocked) == ([], [])


def test_an_edit_is_put_right_from_the_version_that_was_seen() -> None:
    """The whole spec; others' labels and annotations stay."""
    edited = standing(annotations={"team": "x", "obot.ai/mcp-network-policy-uid": "uid-a"})
    edited["spec"]["rules"][0]["port"] = 80
    edited["metadata"]["labels"]["theirs"] = "y"
    [change] = compare(wish("a"), edited).changes
    assert change.action == "replace"
    assert change.body["metadata"]["resourceVersion"] == "7"
    assert change.body["metadata"]["labels"]["theirs"] == "y"
    assert change.body["metadata"]["annotations"]["team"] == "x"
    assert change.body["spec"] == wish("a").policies[NAME].body["spec"]


def test_a_field_that_somebody_added_goes() -> None:
    """A permit of more, beside what we wrote."""
    edited = standing()
    edited["spec"]["rules"].append({"name": "more", "action": "permit"})
    assert [change.action for change in compare(wish("a"), edited).changes] == ["replace"]


def test_a_label_that_was_taken_off_comes_back() -> None:
    """An object under our name without a provider's label is ours."""
    bare = standing(labels={})
    [change] = compare(wish("a"), bare).changes
    assert change.body["metadata"]["labels"][MANAGED_BY] == "nameward"


def test_another_providers_object_is_left_alone_unless_it_may_be_succeeded() -> None:
    """A sentence says so; with leave it is adopted, and theirs becomes ours."""
    theirs = standing()
    theirs["metadata"]["labels"][MANAGED_BY] = AVIATRIX
    found = compare(wish("a"), theirs)
    assert found.changes == []
    assert AVIATRIX in found.blocked[0]
    [change] = compare(wish("a"), theirs, succeeded=(AVIATRIX,)).changes
    assert change.action == "adopt"
    assert change.body["metadata"]["labels"][MANAGED_BY] == "nameward"


def test_only_what_has_our_label_is_an_orphan() -> None:
    """Not another provider's, not nobody's, not what is going already, not what cannot be read just now."""
    theirs, nobodys = standing("b"), standing("c", labels={})
    theirs["metadata"]["labels"][MANAGED_BY] = AVIATRIX
    going = standing("d", deletionTimestamp="2026-11-23T00:00:00Z")
    unreadable = Wishes({}, frozenset({"obot-mnp1e-fw"}), ())
    found = compare(unreadable, standing("a"), theirs, nobodys, going, standing("e"), succeeded=(AVIATRIX,))
    assert found.orphans == [NAME]
    assert found.changes == []


def test_what_the_server_makes_of_it_counts_as_written() -> None:
    """A foreign schema that prunes a field is no reason to write without end."""
    pruned = standing()
    del pruned["spec"]["rules"][0]["logging"]
    content = hash_of(wish("a").policies[NAME].body)
    assert compare(wish("a"), pruned, served={NAME: (content, pruned["spec"])}).changes == []
    changed = wish("a", domain="b.example.com")
    assert len(compare(changed, pruned, served={NAME: (content, pruned["spec"])}).changes) == 1


def test_one_list_without_it_is_no_proof() -> None:
    """Two that agree, some time apart."""
    absences = Absences()
    present = frozenset({"b", "c"})
    absences.listed(present, ["a"], 100.0)
    assert absences.gone() == frozenset()
    assert absences.next_at() == 100.0 + CONFIRM_S
    absences.listed(present, ["a"], 100.0 + CONFIRM_S / 2)
    assert absences.gone() == frozenset()
    absences.listed(present, ["a"], 100.0 + CONFIRM_S)
    assert absences.gone() == {"a"}
    assert absences.next_at() is None


def test_one_that_comes_back_begins_anew() -> None:
    """A LIST that has it ends the absence."""
    absences = Absences()
    absences.listed(frozenset({"b"}), ["a"], 0.0)
    absences.listed(frozenset({"a", "b"}), [], CONFIRM_S)
    absences.listed(frozenset({"b"}), ["a"], CONFIRM_S * 2)
    assert absences.gone() == frozenset()


def test_an_empty_list_takes_long_to_be_believed() -> None:
    """A new database lists nothing, and lists it well; so does one where more is missing than left."""
    for present, known in ((frozenset(), ["a"]), (frozenset("xy"), ["a", "b", "c", "d"])):
        absences = Absences()
        absences.listed(present, known, 0.0)
        absences.listed(present, known, CONFIRM_S * 2)
        assert absences.gone() == frozenset()
        absences.listed(present, known, MANY_S)
        assert absences.gone() == set(known)


def test_the_first_write_is_at_once_and_each_further_one_later() -> None:
    """Somebody who writes it back does not make us write as fast as we can; new content does not wait."""
    pace = Pace()
    assert pace.due_at("a", 1) < 0
    pace.writes("a", 1, 0.0)
    assert pace.due_at("a", 1) == FIRST_S
    pace.writes("a", 1, 1.0)
    assert pace.due_at("a", 1) == 1.0 + FIRST_S * 2
    assert pace.due_at("a", 2) < 0
    for _ in range(30):
        pace.writes("a", 1, 2.0)
    assert pace.due_at("a", 1) == 2.0 + LONGEST_S
    pace.writes("a", 1, 2.0 + FORGIVEN_S)
    assert pace.due_at("a", 1) == 2.0 + FORGIVEN_S + FIRST_S


def test_only_successes_are_counted_as_writes_in_a_row() -> None:
    """A write that failed is nobody's contradiction."""
    pace = Pace()
    pace.writes("a", 1, 0.0)
    pace.writes("a", 1, 1.0)
    assert pace.wrote("a") == 1
    pace.writes("a", 1, 2.0)
    assert pace.wrote("a") == 2
    pace.writes("a", 2, 3.0)
    assert pace.wrote("a") == 1


def test_whoever_is_gone_is_forgotten() -> None:
    """The pace holds what stands, and no more."""
    pace = Pace()
    pace.writes("a", 1, 0.0)
    pace.keep(frozenset({"b"}))
    assert pace.due_at("a", 1) < 0
