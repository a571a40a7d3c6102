"""Objects of any shape: what the controller reads of them, and that it never stumbles."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from enforcer.controller.fleet import MAX_PODS, Fleet, Held, NodeCut, cut_node
from enforcer.controller.schema import mirrored_fields
from enforcer.controller.statuses import Mirrored, cut_mirrored, cut_status, name_of
from enforcer.controller.verdicts import Key
from policy.manifest_shapes import is_object_name
from tests.cluster.foreign import FIREWALL_SPEC, FIREWALL_STATUS, definition
from tests.controller.world import node, policy

Json = dict[str, Any]
CRDS = Path(__file__).parents[2] / "deploy" / "charts" / "nameward" / "crds"

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=6,
)
FIELDS = ("name", "uid", "generation", "pods", "policies", "status", "enforcing", "conditions", "type")
OBJECTS = st.dictionaries(
    st.sampled_from(("metadata", "status", "policy", *FIELDS)),
    VALUES
    | st.dictionaries(
        st.sampled_from(FIELDS), VALUES | st.lists(st.dictionaries(st.sampled_from(FIELDS), VALUES))
    ),
)


@given(OBJECTS)
def test_no_object_is_too_strange(fields: Json) -> None:
    """Whatever a foreign writer stored: it is cut, and the cut means something."""
    cut = cut_node(fields)
    assert all(0 < held.pods <= MAX_PODS for held in cut.policies.values())
    fleet = Fleet()
    fleet.put(cut)
    assert len(fleet) == 1
    assert isinstance(cut_status(fields).policy_uid, str)
    assert set(cut_mirrored(fields).conditions) <= {"Accepted", "Realized"}
    mirrored_fields(fields)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.booleans(),
            st.dictionaries(
                st.sampled_from("xyz"), st.tuples(st.integers(1, 3), st.integers(1, 3)), max_size=3
            ),
        )
    )
)
def test_what_is_touched_is_everything_that_changed(
    turns: list[tuple[str, bool, dict[str, tuple[int, int]]]],
) -> None:
    """Heard one by one or at once, the same is known of the nodes; and no change is missed."""
    fleet = Fleet()
    last: dict[str, NodeCut] = {}
    for name, enforcing, policies in turns:
        held = {uid: Held(*each) for uid, each in policies.items()}
        cut = NodeCut(name, is_enforcing=enforcing, is_truncated=False, policies=held)
        before = {uid: fleet.reach(uid, 2) for uid in "xyz"}
        touched = fleet.put(cut)
        last[name] = cut
        after = {uid: fleet.reach(uid, 2) for uid in "xyz"}
        changed = {
            uid for uid in "xyz" if before[uid]._replace(all_nodes=0) != after[uid]._replace(all_nodes=0)
        }
        assert changed <= touched
    fresh = Fleet()
    fresh.replace(last.values())
    assert {uid: fleet.reach(uid, 2) for uid in "xyz"} == {uid: fresh.reach(uid, 2) for uid in "xyz"}
    for name in last:
        fleet.drop(name)
    assert len(fleet) == 0
    assert fleet.reach("x", 1).nodes == 0


def test_a_node_speaks_for_the_pods_it_can_have() -> None:
    """A lying one cannot say more of a policy than its own bounded share."""
    said = node("liar", policy(), pods=10**18)
    said["status"]["policies"] *= 1000
    fleet = Fleet()
    fleet.put(cut_node(said))
    assert fleet.reach("uid-good", 1).pods == MAX_PODS


@pytest.mark.parametrize(
    "change",
    [{"enforcing": "true"}, {"enforcing": 1}, {"enforcing": None}, {"removed": True}],
)
def test_enforcing_is_true_and_nothing_like_it(change: Json) -> None:
    """What is not plainly said is not enforced."""
    said = node("a", policy(), **change)
    assert not cut_node(said).is_enforcing
    assert cut_node(node("a", policy())).is_enforcing


NAMES = st.lists(st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?\Z"), min_size=1, max_size=12).map(
    ".".join
)


@given(NAMES.filter(lambda name: len(name) <= 253))
def test_every_status_has_a_name_that_kubernetes_takes(name: str) -> None:
    """However long the policy's is."""
    found = name_of(Key("FirewallPolicy", "space", name))
    assert is_object_name(found)
    assert found != name_of(Key("WebgroupPolicy", "space", name))


def test_long_names_stay_apart() -> None:
    """Two that are equal in their first 230 characters."""
    stem = ".".join(["a" * 60] * 4)
    one, other = (name_of(Key("FirewallPolicy", "space", f"{stem}.{end}")) for end in ("x", "y"))
    assert one != other
    assert is_object_name(one)


def test_our_definitions_have_a_place_for_both() -> None:
    """As the chart has them."""
    for path in CRDS.glob("networking*.yaml"):
        assert mirrored_fields(yaml.safe_load(path.read_text())) == {"conditions", "enforcement"}


def test_foreign_definitions_have_none() -> None:
    """Nor has one whose status is no subresource, or whose version is not served."""
    theirs = definition("FirewallPolicy", "firewallpolicies", FIREWALL_SPEC, FIREWALL_STATUS)
    assert mirrored_fields(theirs) == frozenset()
    path = CRDS / "networking.aviatrix.com_firewallpolicies.yaml"
    ours = yaml.safe_load(path.read_text())
    for field in ("subresources", "served"):
        changed = copy.deepcopy(ours)
        del changed["spec"]["versions"][0][field]
        assert mirrored_fields(changed) == frozenset()
    assert mirrored_fields({}) == frozenset()


def test_conditions_of_others_are_not_ours() -> None:
    """Another writer's conditions on the policy are neither read nor compared."""
    status = {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Accepted", "status": "True"}, 7]}
    assert cut_mirrored({"status": status}) == Mirrored(
        {"Accepted": {"type": "Accepted", "status": "True"}}, None
    )
