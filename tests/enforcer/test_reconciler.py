"""Changes: decided again at once, kernel first; pods that come and go; drift; a restart."""

from __future__ import annotations

import errno
from pathlib import Path

import msgspec
import pytest

from enforcer.elements import interface_key
from enforcer.terms import NEVER
from policy.addresses import to_packed
from tests.enforcer.rig import API, OTHER, A, B, Rig, permit, policy

POLICY = policy(permit("api.example.com", "*.example.org"))
NOTHING = policy(permit("else.example.net"))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """An enforcer with one policy and two admitted pods."""
    return Rig(tmp_path).settled_with(POLICY)


def test_a_pod_is_admitted_only_after_its_old_flows_are_deleted(tmp_path: Path) -> None:
    """Until then its address is in no set, and afterwards it can be granted."""
    rig = Rig(tmp_path)
    rig.begin().apply(POLICY)
    assert not rig.kernel.elements("governed4")
    assert rig.admissions == 0
    rig.run_threads()
    assert set(rig.flows.deleted) == {to_packed(text) for pod in (A, B) for text in pod.addresses}
    assert {each.key for each in rig.kernel.elements("governed4")} == {
        to_packed("100.64.0.2"),
        to_packed("100.64.0.3"),
    }
    assert rig.admissions == 1
    assert rig.records.events().count("pod.seen") == 3


def test_a_pod_whose_flows_cannot_be_deleted_is_not_admitted(tmp_path: Path) -> None:
    """It is said why, and tried again."""
    rig = Rig(tmp_path)
    rig.flows.error = OSError(errno.ENOENT, "nothing there")
    rig.begin().apply(POLICY)
    rig.run_threads()
    assert not rig.kernel.elements("governed4")
    assert "nf_conntrack_netlink" in rig.reconciler.trouble
    rig.flows.error = None
    rig.reconciler.retry()
    rig.run_threads()
    assert rig.kernel.elements("governed4")
    assert rig.reconciler.trouble == ""


def test_the_snapshot_is_published_after_the_kernel_has_it(rig: Rig) -> None:
    """A refused change is not published, and requests are decided by the old snapshot."""
    rig.kernel.refuse(errno.EBUSY)
    rig.ask("api.example.com", OTHER)
    rig.kernel.refuse(errno.EBUSY)
    rig.ask("api.example.com", API)
    before = list(rig.published)
    rig.kernel.refuse(errno.EBUSY)
    rig.apply(NOTHING, pods=(A,))
    assert not rig.outcome.done
    assert rig.published == before
    assert rig.authority.snapshot is not None
    assert rig.authority.snapshot.generation == before[-1]


def test_a_revoked_name_is_closed_at_once_with_its_flows(rig: Rig) -> None:
    """Both elements go in the transaction of the change; other grants stay."""
    rig.ask("api.example.com", API)
    rig.ask("x.example.org", OTHER)
    rig.apply(policy(permit("*.example.org")))
    assert {key[4:8] for _, key in rig.open_now() | rig.live_now()} == {to_packed(OTHER)}
    told = [fields for event, fields in rig.records.told if event == "grant.revoked"]
    assert [(each["name"], each["address"], each["port"]) for each in told] == [("api.example.com", API, 443)]


def test_with_keep_established_flows_may_finish(rig: Rig) -> None:
    """Only the grants element goes; the live one stays until it is collected."""
    rig.reconciler.on_revoke = "keep"
    rig.ask("api.example.com", API)
    rig.apply(NOTHING)
    assert not rig.open_now()
    assert len(rig.live_now()) == 1
    rig.apply(NOTHING, private_zones=("a.internal",))
    assert rig.records.events().count("grant.revoked") == 1
    rig.clock.at += 10
    rig.collection.begin()
    rig.run_threads()
    assert not rig.live_now()


def test_taking_one_reason_away_closes_nothing_that_another_opens(rig: Rig) -> None:
    """The element stays, until the other reason's time."""
    rig.ask("x.example.org", API, ttl_s=10)
    rig.ask("api.example.com", API)
    rig.apply(policy(permit("*.example.org")))
    (element,) = rig.kernel.elements("grants4")
    assert element.expires_ms == pytest.approx(70_000, abs=5)
    (holding,) = rig.ledger.accounts[to_packed(A.addresses[0])].holdings()
    assert [reason.name for reason in holding.reasons] == ["x.example.org"]


def test_renaming_a_rule_cuts_nothing(rig: Rig) -> None:
    """What is still permitted is kept, untouched in the kernel, and attributed to the rule of today."""
    rig.ask("api.example.com", API)
    before = len(rig.kernel.commits)
    rig.apply(policy(permit("api.example.com", name="renamed"), name="q"))
    assert len(rig.kernel.commits) == before
    (holding,) = rig.ledger.accounts[to_packed(A.addresses[0])].holdings()
    assert [(reason.policy, reason.rule) for reason in holding.reasons] == [("mcp/q", "renamed")]


def test_newly_permitted_ports_of_a_live_answer_are_added(rig: Rig) -> None:
    """They last as long as the answer; an answer that is over opens nothing."""
    rig.ask("api.example.com", API)
    both = policy(permit("api.example.com"), permit("api.example.com", first=8443, name="more"))
    rig.clock.at += 20
    rig.apply(both)
    assert sorted(each.expires_ms for each in rig.kernel.elements("grants4")) == pytest.approx(
        [100_000] * 2, abs=5
    )
    rig.clock.at += 200
    rig.apply(both, policy(permit("api.example.com", first=9443), name="third"))
    assert not rig.open_now()
    assert len(rig.live_now()) == 2


def test_a_flow_whose_permit_takes_another_form_goes_on(rig: Rig) -> None:
    """Port 443 alone becomes all ports, after the grant has expired: the flow's live element moves."""
    rig.ask("api.example.com", API)
    rig.clock.at += 500
    rig.apply(policy(permit("api.example.com", first=0, last=65535)))
    assert {name for name, _ in rig.live_now()} == {"grants_protocol4"}
    assert not rig.open_now()


def test_a_pod_that_goes_leaves_nothing(rig: Rig) -> None:
    """Grants, flows, membership and conntrack entries; a later request for it is denied."""
    rig.ask("api.example.com", API)
    rig.flows.deleted.clear()
    rig.apply(POLICY, pods=(B,))
    rig.run_threads()
    assert not rig.open_now() | rig.live_now()
    assert to_packed(A.addresses[0]) in rig.flows.deleted
    assert {each.key for each in rig.kernel.elements("governed4")} == {to_packed(B.addresses[0])}
    assert rig.ask("api.example.com", API).outcomes == ("denied",)
    assert "pod.gone" in rig.records.events()


def test_a_new_pod_with_an_old_pods_address_inherits_nothing(rig: Rig) -> None:
    """In one change: the old one's grants go before the new one is admitted."""
    rig.ask("api.example.com", API)
    new = msgspec.structs.replace(B, addresses=(A.addresses[0],), uid="uid-new", name="new")
    rig.apply(POLICY, pods=(new,))
    assert not rig.open_now() | rig.live_now()
    assert to_packed(A.addresses[0]) not in {each.key for each in rig.kernel.elements("governed4")}
    rig.run_threads()
    assert to_packed(A.addresses[0]) in {each.key for each in rig.kernel.elements("governed4")}


def test_an_address_that_two_pods_claim_is_governed_and_granted_to_neither(rig: Rig) -> None:
    """It has no interface, so every packet from it is dropped."""
    twin = msgspec.structs.replace(B, addresses=(A.addresses[0],))
    rig.apply(POLICY, pods=(A, twin))
    rig.run_threads()
    assert to_packed(A.addresses[0]) in {each.key for each in rig.kernel.elements("governed4")}
    assert not [
        each for each in rig.kernel.elements("podsrc4") if each.key.endswith(to_packed(A.addresses[0]))
    ]
    assert rig.ask("api.example.com", API).outcomes == ("denied",)


def test_an_address_that_a_pod_of_another_node_has_too_loses_its_grants(rig: Rig) -> None:
    """The source names two: neither node knows whose it is, so what was open is open no more."""
    rig.ask("api.example.com", API)
    source = to_packed(A.addresses[0])
    assert rig.open_now()
    twin = msgspec.structs.replace(B, addresses=(A.addresses[0],), node="another")
    rig.apply(POLICY, pods=(A, twin))
    rig.run_threads()
    assert not [each for each in rig.open_now() | rig.live_now() if source in each[1]]
    assert source in {each.key for each in rig.kernel.elements("governed4")}
    assert not [each for each in rig.kernel.elements("podsrc4") if each.key.endswith(source)]
    rig.apply(POLICY, pods=(A,))
    rig.run_threads()
    assert rig.ask("api.example.com", API).outcomes == ("realized",)


def test_a_pod_whose_interface_changes_is_another(rig: Rig) -> None:
    """Identity is address, interface, uid and boot: its grants go, and it is admitted anew."""
    rig.ask("api.example.com", API)
    rig.host.renamed[to_packed(A.addresses[0])] = "veth99"
    rig.reconciler.host_changed()
    assert not rig.open_now() | rig.live_now()
    rig.run_threads()
    assert rig.ask("api.example.com", API).outcomes == ("realized",)


def test_a_pod_behind_an_uplink_is_never_admitted(rig: Rig) -> None:
    """Or packets from outside would count as the pod's."""
    rig.host.renamed[to_packed(B.addresses[0])] = "eth0"
    rig.reconciler.host_changed()
    rig.run_threads()
    assert not [each for each in rig.kernel.elements("podsrc4") if each.key.startswith(b"eth0")]


def test_a_newer_snapshot_overtakes_an_admission_under_way(tmp_path: Path) -> None:
    """The pod went before its admission: what was begun for it comes to nothing."""
    rig = Rig(tmp_path)
    rig.begin().apply(POLICY)
    rig.apply(POLICY, pods=(B,))
    rig.run_threads()
    assert {each.key for each in rig.kernel.elements("governed4")} == {to_packed(B.addresses[0])}


def test_who_comes_later_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Pods come faster than conntrack is walked: each walk admits whom it was begun for, two do for all."""
    rig = Rig(tmp_path)
    pods = [
        msgspec.structs.replace(B, name=f"p{n}", uid=f"uid-{n}", addresses=(f"100.64.0.{n}",))
        for n in range(10, 30)
    ]
    rig.begin()
    for count in range(1, len(pods) + 1):
        rig.apply(POLICY, pods=tuple(pods[:count]))
    assert len(rig.threads) == 1
    work, done = rig.threads.popleft()
    done(work())
    assert set(rig.ledger.accounts) == {to_packed(pods[0].addresses[0])}
    assert len(rig.threads) == 1
    rig.run_threads()
    assert rig.admissions == 2
    assert set(rig.ledger.accounts) == {to_packed(pod.addresses[0]) for pod in pods}
    assert sorted(rig.flows.deleted) == sorted(rig.ledger.accounts)


def test_who_could_not_be_admitted_is_tried_again_beside_who_comes(tmp_path: Path) -> None:
    """The kernel refused it, or the walk failed: it is said until all are admitted, whoever else is."""
    rig = Rig(tmp_path)
    rig.begin().apply(POLICY, pods=(A,))
    rig.kernel.refuse(errno.ENFILE)
    rig.run_threads()
    assert "refused to admit" in rig.reconciler.trouble
    assert not rig.ledger.accounts
    rig.flows.error = OSError(errno.ENOMEM, "no room")
    rig.apply(POLICY)
    rig.run_threads()
    assert "no room" in rig.reconciler.trouble
    assert not rig.threads
    rig.flows.error = None
    rig.reconciler.retry()
    rig.run_threads()
    assert len(rig.ledger.accounts) == 3
    assert rig.reconciler.trouble == ""


def test_who_became_another_during_the_walk_is_walked_for_again(tmp_path: Path) -> None:
    """Also who was not there in between: what he may have opened meanwhile is not his."""
    rig = Rig(tmp_path)
    rig.begin().apply(POLICY)
    again = msgspec.structs.replace(B, uid="uid-b2")
    rig.apply(POLICY, pods=(again,))
    rig.apply(POLICY, pods=(A, again))
    work, done = rig.threads.popleft()
    done(work())
    assert not rig.ledger.accounts
    assert not rig.kernel.elements("governed4")
    rig.flows.deleted.clear()
    rig.run_threads()
    assert (
        set(rig.flows.deleted)
        == set(rig.ledger.accounts)
        == {to_packed(text) for pod in (A, again) for text in pod.addresses}
    )


@pytest.mark.parametrize("harm", ["flush", "meddle"])
def test_drift_is_repaired_with_all_elements_and_their_remaining_times(rig: Rig, harm: str) -> None:
    """Somebody's ``nft flush ruleset``, or a rule he added."""
    rig.ask("api.example.com", API)
    rig.clock.at += 30
    before = rig.open_now(), rig.live_now()
    getattr(rig.kernel, harm)()
    assert rig.reconciler.repair(deep=False)
    assert (rig.open_now(), rig.live_now()) == before
    assert rig.kernel.elements("grants4")[0].expires_ms == pytest.approx(90_000, abs=5)
    assert rig.kernel.elements("settled")
    assert rig.installation.doubts == []
    assert not rig.reconciler.repair(deep=True)


def test_elements_that_others_took_or_put_are_put_right(rig: Rig) -> None:
    """A deep look compares grants with the ledger."""
    from enforcer.elements import Add, Element, Remove

    rig.ask("api.example.com", API)
    (_, key) = next(iter(rig.open_now()))
    foreign = to_packed(A.addresses[0]) + to_packed(OTHER) + key[8:]
    rig.kernel.commit([Remove("live4", key), Add(Element("grants4", foreign, b"", 9_000))])
    assert "grants" in rig.reconciler.repair(deep=True)
    assert rig.live_now() == rig.open_now() == {("grants4", key)}


def test_a_restart_adopts_with_names_and_rules(rig: Rig) -> None:
    """After kill -9: nothing is lost, nothing renewed, nobody's flows deleted, no generation repeated."""
    rig.ask("api.example.com", API)
    rig.ask("x.example.org", API, OTHER)
    before = rig.open_now(), rig.live_now()
    rig.clock.at += 10
    again = rig.killed()
    again.begin().apply(POLICY)
    again.run_threads()
    assert (again.open_now(), again.live_now()) == before
    assert again.flows.deleted == []
    assert again.published[0] > rig.published[-1]
    holdings = list(again.ledger.accounts[to_packed(A.addresses[0])].holdings())
    assert {(r.name, r.policy, r.rule) for each in holdings for r in each.reasons} == {
        ("api.example.com", "mcp/p", "allow"),
        ("x.example.org", "mcp/p", "allow"),
    }
    assert all(each.until == pytest.approx(again.clock() + 110, abs=0.01) for each in holdings)
    assert again.installation.doubts == []


def test_a_restart_revokes_what_is_no_longer_permitted_and_what_nobody_explains(rig: Rig) -> None:
    """The policy changed and the journal lost a line while nobody was there."""
    rig.ask("api.example.com", API)
    rig.ask("x.example.org", OTHER)
    rig.ask("y.example.org", "8.8.8.8")
    journal = rig.folder / "journal"
    journal.write_bytes(
        b"".join(
            line for line in journal.read_bytes().splitlines(keepends=True) if b"y.example.org" not in line
        )
    )
    again = rig.killed()
    again.begin().apply(policy(permit("*.example.org")))
    again.run_threads()
    assert {key[4:8] for _, key in again.open_now() | again.live_now()} == {to_packed(OTHER)}


def test_a_restart_after_a_flush_restores_live_answers(rig: Rig) -> None:
    """The journal's answers that still hold are opened again, under the policy of today."""
    rig.ask("api.example.com", API)
    rig.kernel.flush()
    rig.clock.at += 10
    again = rig.killed()
    again.begin().apply(POLICY)
    again.run_threads()
    assert len(again.open_now()) == len(again.live_now()) == 1


def test_a_restart_under_another_structure_keeps_the_grants(rig: Rig) -> None:
    """An upgrade: the table is rebuilt and refilled before it is settled."""
    rig.ask("api.example.com", API)
    (rig.folder / "structure").unlink()
    again = rig.killed()
    again.begin().apply(POLICY)
    again.run_threads()
    assert len(again.open_now()) == len(again.live_now()) == 1
    assert again.installation.doubts == []


def test_a_restart_gives_nothing_to_another_pod_with_the_address(rig: Rig) -> None:
    """The journal's word is for an identity, not for an address."""
    rig.ask("api.example.com", API)
    new = msgspec.structs.replace(A, uid="uid-new")
    again = rig.killed()
    again.begin().apply(POLICY, pods=(new,))
    assert not again.open_now() | again.live_now()
    again.run_threads()
    assert to_packed(A.addresses[0]) in again.flows.deleted


def test_reasons_outlive_the_grant_while_a_flow_lives(rig: Rig) -> None:
    """Also over a restart; then the collection lets them go."""
    rig.ask("api.example.com", API)
    rig.clock.at += 1000
    flow = (to_packed(A.addresses[0]), to_packed(API), "tcp", 443)
    rig.flows.flows = {flow}
    rig.collection.begin()
    rig.run_threads()
    assert len(rig.live_now()) == 1
    again = rig.killed()
    again.begin().apply(POLICY)
    again.run_threads()
    (holding,) = again.ledger.accounts[to_packed(A.addresses[0])].holdings()
    assert [reason.name for reason in holding.reasons] == ["api.example.com"]
    assert holding.until == NEVER
    again.collection.begin()
    again.run_threads()
    assert not again.live_now()
    assert again.ledger.count == 0


def test_a_grant_renewed_during_the_dump_is_not_collected(rig: Rig) -> None:
    """What was judged is looked at again before it goes."""
    rig.ask("api.example.com", API)
    rig.clock.at += 1000
    rig.collection.begin()
    rig.ask("api.example.com", API)
    rig.run_threads()
    assert len(rig.open_now()) == len(rig.live_now()) == 1


def test_before_anything_is_loaded_the_structure_stands_and_nothing_is_open(tmp_path: Path) -> None:
    """Default deny comes first."""
    rig = Rig(tmp_path).begin()
    assert rig.kernel.fingerprint()
    assert rig.kernel.guard_fingerprint()
    assert not rig.kernel.elements("settled")


def test_an_uplink_is_never_taken_for_a_pods_interface(tmp_path: Path) -> None:
    """Also where that is a veth, and before anything is loaded."""
    rig = Rig(tmp_path).begin()
    assert [each.key for each in rig.kernel.elements("uplinks")] == [interface_key("eth0")]
    rig.kernel.flush()
    assert rig.kernel.fingerprint() == ""
    rig.apply(POLICY)
    assert [each.key for each in rig.kernel.elements("uplinks")] == [interface_key("eth0")]


def test_a_source_that_cannot_be_read_vouches_for_nobody_new(rig: Rig) -> None:
    """Who is admitted stays; a pod that came, or came back elsewhere, waits until the source is read."""
    rig.ask("api.example.com", API)
    rig.reconciler.believes_new = False
    new = msgspec.structs.replace(B, name="c", uid="uid-c", addresses=("100.64.0.9",))
    rig.apply(POLICY, pods=(A, B, new))
    rig.host.renamed[to_packed(B.addresses[0])] = "veth99"
    rig.reconciler.host_changed()
    rig.run_threads()
    assert rig.live_now()
    assert set(rig.ledger.accounts) == {to_packed(text) for text in A.addresses}
    rig.reconciler.believes_new = True
    rig.apply(POLICY, pods=(A, B, new))
    rig.run_threads()
    assert len(rig.ledger.accounts) == 4


def test_a_restart_on_a_saved_copy_admits_who_was_admitted(rig: Rig) -> None:
    """The same address at the same interface in the same boot; anybody else is denied."""
    rig.ask("api.example.com", API)
    before = rig.open_now()
    again = rig.killed()
    again.host.renamed[to_packed(B.addresses[0])] = "veth99"
    again.reconciler.believes_new = False
    again.begin().apply(POLICY)
    again.run_threads()
    assert again.open_now() == before
    assert set(again.ledger.accounts) == {to_packed(text) for text in A.addresses}
