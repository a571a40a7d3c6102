"""What the controller writes, and when: the board with a clock of its own and a server that stores."""

from __future__ import annotations

from typing import Any

import pytest

from enforcer.controller.pace import BURST, GAP_S, RATE, REPAIR_S
from enforcer.controller.statuses import cut_status
from policy.manifest import GovernedNamespaces
from tests.controller.world import AT, LATER, Cluster, namespace, node, policy

Json = dict[str, Any]


def test_a_policy_gets_a_status_of_its_own_and_the_same_on_itself() -> None:
    """Two requests, and none after them."""
    cluster = Cluster()
    cluster.lists(policy())
    written = cluster.runs(5)
    assert [write.act for write in written] == ["create", "mirror"]
    assert cluster.status()["Accepted"]["status"] == "True"
    mirrored = next(iter(cluster.mirrored.values()))
    assert mirrored["conditions"] == cluster.stored["space", "firewallpolicy-good"]["status"]["conditions"]
    assert mirrored["enforcement"] == {"rules": 1, "pods": 0, "rejected": 0}
    assert cluster.runs(3600) == []


def test_nothing_is_said_before_everything_is_listed() -> None:
    """Without namespaces nobody knows what is governed."""
    cluster = Cluster()
    cluster.list_of("FirewallPolicy", policy())
    assert cluster.runs(60) == []
    cluster.list_of("Namespace", namespace())
    cluster.list_of("Service")
    assert [write.act for write in cluster.runs(60)] == ["mirror"]


def test_a_kind_that_is_not_served_counts_as_empty_after_a_while() -> None:
    """NodeStatus is missing: what the nodes do is unknown, and said so."""
    cluster = Cluster()
    cluster.list_of("Namespace", namespace())
    cluster.list_of("Service")
    cluster.list_of("FirewallPolicy", policy())
    cluster.board.statuses_listed([], cluster.now)
    assert cluster.runs(5) == []
    assert cluster.runs(10) != []
    assert cluster.status()["Realized"]["reason"] == "NoNodeStatus"


def test_without_a_place_on_the_policy_only_the_object_is_written() -> None:
    """Another product's definition prunes conditions; applying them would be answered by an error."""
    cluster = Cluster(fields=frozenset())
    cluster.lists(policy())
    assert [write.act for write in cluster.runs(5)] == ["create"]


def test_a_place_that_comes_later_is_used() -> None:
    """The definition was replaced by ours."""
    cluster = Cluster(fields=frozenset())
    cluster.lists(policy())
    cluster.runs(5)
    cluster.board.fields_known("FirewallPolicy", frozenset({"conditions"}), cluster.now)
    assert [write.act for write in cluster.runs(5)] == ["mirror"]
    assert next(iter(cluster.mirrored.values())).keys() == {"conditions"}


def test_what_is_stored_already_is_not_written_again() -> None:
    """A replica that begins to lead finds what the last one wrote."""
    cluster = Cluster(fields=frozenset())
    cluster.lists(policy(), nodes=(node("a", policy()),))
    cluster.runs(5)
    other = Cluster(fields=frozenset())
    other.stored = cluster.stored
    other.lists(policy(), nodes=(node("a", policy()),))
    assert other.runs(600, at=LATER) == []


def test_an_author_sees_the_outcome_of_a_change_soon() -> None:
    """A new generation is read within a second and a half, and the times of conditions stay."""
    cluster = Cluster()
    cluster.lists(policy())
    cluster.runs(10)
    cluster.changes(policy(generation=2, action="deny", webGroups=[{"name": "approved"}]))
    written = cluster.runs(1.5, at=LATER)
    assert [write.act for write in written] == ["replace", "mirror"]
    assert cluster.status()["observedGeneration"] == 2
    assert cluster.status()["Accepted"]["lastTransitionTime"] == AT


def test_a_condition_that_turns_has_a_new_time() -> None:
    """Accepted becomes False: that is when."""
    cluster = Cluster()
    cluster.lists(policy())
    cluster.runs(10)
    cluster.changes(policy(generation=2, destinationSmartGroups=[{"name": "gone"}]))
    cluster.runs(2, at=LATER)
    assert cluster.status()["Accepted"]["status"] == "False"
    assert cluster.status()["Accepted"]["lastTransitionTime"] == LATER
    assert cluster.status()["Realized"]["lastTransitionTime"] == AT


def test_a_namespace_that_loses_its_label() -> None:
    """The policy is not accepted any more, and nothing of it is realized."""
    cluster = Cluster()
    cluster.lists(policy(), nodes=(node("a", policy()),))
    cluster.runs(10)
    assert cluster.status()["Realized"]["status"] == "True"
    cluster.changes(namespace("space", other="label"))
    cluster.runs(5)
    assert cluster.status()["Accepted"]["reason"] == "NamespaceNotGoverned"
    assert cluster.status()["Realized"]["status"] == "False"


def test_governing_by_name_says_how() -> None:
    """Where namespaces are named in the configuration, a label would not help."""
    cluster = Cluster(GovernedNamespaces(names=("elsewhere",)))
    cluster.lists(policy())
    cluster.runs(5)
    assert "policy.governedNamespaces" in cluster.status()["Accepted"]["message"]


def test_nodes_that_change_all_the_time_cost_one_write_a_gap() -> None:
    """A policy's counters are written no more often than its gap allows."""
    cluster = Cluster(fields=frozenset())
    cluster.lists(policy())
    cluster.runs(10)
    cluster.writes.clear()
    for count in range(1, 600):
        cluster.reports(node("a", policy(), pods=count))
        cluster.runs(0.1)
    cluster.runs(GAP_S)
    assert len(cluster.writes) <= 60 / GAP_S + 2
    assert cluster.status()["pods"] == 599


def test_all_writes_together_are_bounded() -> None:
    """A thousand policies at once: a burst, then so many a second, and in the end all of them."""
    cluster = Cluster(fields=frozenset())
    cluster.lists(*(policy(f"p{number}") for number in range(1000)))
    written = cluster.runs(2)
    assert len(written) <= BURST + 2 * RATE
    cluster.runs(60)
    assert len(cluster.stored) == 1000


def test_one_that_is_refused_does_not_hold_up_the_others() -> None:
    """It is tried again, and ever later."""
    cluster = Cluster(fields=frozenset())
    cluster.lists(policy())
    refused = cluster.runs(600, takes=False)
    assert 5 <= len(refused) <= 12
    cluster.changes(policy("other"))
    assert [write.name for write in cluster.runs(2)] == ["firewallpolicy-other"]


def test_after_a_hold_nothing_goes_out_until_it_ends() -> None:
    """The API server asked for it, or does not answer."""
    cluster = Cluster()
    cluster.lists(policy())
    cluster.board.pace.hold(cluster.now + 30)
    assert cluster.runs(29) == []
    assert len(cluster.runs(5)) == 2


def test_somebody_elses_change_is_repaired_but_not_fought_over() -> None:
    """Who overwrites our status again and again makes us write once a minute."""
    cluster = Cluster(fields=frozenset())
    cluster.lists(policy())
    cluster.runs(10)
    right = cluster.stored["space", "firewallpolicy-good"]
    cluster.writes.clear()
    for _ in range(600):
        if cluster.status()["rules"] == 1:
            cluster.stores(right | {"status": right["status"] | {"rules": 99}})
        cluster.runs(1)
    assert 5 <= len(cluster.writes) <= 600 / REPAIR_S + 1


def test_a_deleted_status_is_made_anew() -> None:
    """Within the time of a repair."""
    cluster = Cluster(fields=frozenset())
    cluster.lists(policy())
    cluster.runs(10)
    gone = cluster.stored.pop(("space", "firewallpolicy-good"))
    cluster.board.status_changed(cut_status(gone), cluster.now, is_gone=True)
    assert [write.act for write in cluster.runs(REPAIR_S + 5)] == ["create"]


def test_a_policy_made_anew_under_its_name_takes_the_status_over() -> None:
    """The old object's status is not taken for the new one's."""
    cluster = Cluster()
    cluster.lists(policy(uid="old"))
    cluster.runs(10)
    cluster.changes(policy(uid="old"), is_gone=True)
    cluster.changes(policy(uid="new"))
    written = cluster.runs(10)
    assert [write.act for write in written] == ["replace", "mirror"]
    stored = cluster.stored["space", "firewallpolicy-good"]
    assert stored["metadata"]["ownerReferences"][0]["uid"] == stored["policy"]["uid"] == "new"


def test_the_status_of_a_policy_that_has_gone_is_removed_after_a_while() -> None:
    """By its uid, where garbage collection has not done it; a young one is left to that."""
    cluster = Cluster()
    cluster.lists(policy(), policy("other"))
    cluster.runs(10)
    cluster.changes(policy(), is_gone=True)
    assert cluster.runs(25) == []
    uid = cluster.stored["space", "firewallpolicy-good"]["metadata"]["uid"]
    written = cluster.runs(60)
    assert [(write.act, write.name, write.uid) for write in written] == [
        ("delete", "firewallpolicy-good", uid)
    ]
    assert ("space", "firewallpolicy-other") in cluster.stored


def test_nothing_is_removed_while_policies_are_unknown() -> None:
    """An API server that does not serve the policies is no reason to remove what is said of them."""
    cluster = Cluster()
    cluster.lists(policy())
    cluster.runs(10)
    other = Cluster()
    other.stored = cluster.stored
    other.list_of("Namespace", namespace())
    other.list_of("Service")
    other.board.nodes_listed([], other.now)
    other.board.statuses_listed(map(cut_status, other.stored.values()), other.now)
    assert other.runs(600) == []


@pytest.mark.parametrize(
    ("nodes", "status", "reason", "words"),
    [
        ((), "Unknown", "NoNodeStatus", "no node has said"),
        ((node("a"),), "Unknown", "NoPods", "no node says that it has pods"),
        ((node("a", truncated=True),), "Unknown", "NoPods", "1 of them have more policies than they list"),
        ((node("a", policy()),), "True", "InForce", "in the kernel of 1 node, for 1 pod"),
        ((node("a", policy(), truncated=True),), "True", "InForce", "in the kernel of 1 node, for 1 pod"),
        (
            (node("a", policy()), node("b", truncated=True)),
            "Unknown",
            "NodesTruncated",
            "1 node has it; 1 of the others have more policies than they list",
        ),
        ((node("a", policy()), node("b", policy(), pods=2)), "True", "InForce", "2 nodes, for 3 pods"),
        ((node("a", policy(), enforcing=False),), "False", "NodesNotEnforcing", "not enforcing: a"),
        ((node("a", policy(), removed=True),), "False", "NodesNotEnforcing", "0 of 1 nodes have it"),
        ((node("a", policy(uid="another")),), "Unknown", "NoPods", "no node says"),
    ],
)
def test_realized_is_what_nodes_say(nodes: tuple[Json, ...], status: str, reason: str, words: str) -> None:
    """And Unknown where they say nothing."""
    cluster = Cluster()
    cluster.lists(policy(), nodes=nodes)
    cluster.runs(15)
    said = cluster.status()["Realized"]
    assert (said["status"], said["reason"]) == (status, reason)
    assert words in said["message"]


def test_nodes_that_are_behind_are_named() -> None:
    """The first three of them."""
    cluster = Cluster()
    behind = [node(f"node-{number}", policy()) for number in range(9)]
    cluster.lists(policy(generation=2), nodes=(*behind, node("new", policy(generation=2))))
    cluster.runs(10)
    said = cluster.status()["Realized"]
    assert said["reason"] == "NodesBehind"
    assert said["message"].startswith("1 of 10 nodes have it")
    assert said["message"].endswith("on node-0, node-1, node-2")
    assert cluster.status()["realizedNodes"] == "1/10"


def test_a_node_that_cannot_list_all_it_has_concerns_every_policy() -> None:
    """As long as it cannot, nobody knows what is in force there; then they are true again."""
    cluster = Cluster()
    cluster.lists(policy(), nodes=(node("a", policy()), node("b")))
    cluster.runs(10)
    assert cluster.status()["Realized"]["reason"] == "InForce"
    cluster.reports(node("b", truncated=True))
    cluster.runs(15)
    assert cluster.status()["Realized"]["reason"] == "NodesTruncated"
    cluster.reports(node("b"), is_gone=True)
    cluster.runs(15)
    assert cluster.status()["Realized"]["reason"] == "InForce"


def test_the_first_and_the_last_node_concern_every_policy() -> None:
    """From "nobody said anything" to "nobody has pods of it", and back."""
    cluster = Cluster()
    cluster.lists(policy())
    cluster.runs(10)
    cluster.reports(node("a"))
    cluster.runs(5)
    assert cluster.status()["Realized"]["reason"] == "NoPods"
    cluster.reports(node("a"), is_gone=True)
    cluster.runs(5)
    assert cluster.status()["Realized"]["reason"] == "NoNodeStatus"
