"""The authority decides by its own snapshot, opens in one transaction, and believes nothing."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from enforcer.authority import MAX_OPENINGS_A_TURN, MAX_OPENINGS_ELSEWHERE
from policy.addresses import to_packed
from tests.enforcer.rig import API, GRACE_S, OTHER, TTL_S, A, B, Rig, permit, policy

POLICY = policy(permit("api.example.com", "*.example.org"))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """An enforcer with one policy and two admitted pods."""
    return Rig(tmp_path).settled_with(POLICY)


def test_a_permitted_address_is_open_with_its_twin_before_the_answer(rig: Rig) -> None:
    """One transaction holds the grants element, with its timeout, and the live one, without."""
    answer = rig.ask("api.example.com", API)
    assert answer.outcomes == ("realized",)
    assert answer.remaining_s == TTL_S + GRACE_S
    assert answer.generation == rig.generation
    added = {change.element.set: change.element for change in rig.kernel.commits[-1]}
    assert added["grants4"].timeout_ms == pytest.approx((TTL_S + GRACE_S) * 1000, abs=2)
    assert added["live4"].timeout_ms == 0
    assert added["grants4"].comment.startswith(b"mcp/p/allow|api.example.com#")


def test_what_one_pod_resolved_opens_nothing_for_another(rig: Rig) -> None:
    """Every key begins with the asking pod's own address."""
    rig.ask("api.example.com", API, pod=B)
    assert {key[:4] for _, key in rig.open_now()} == {to_packed(B.addresses[0])}


def test_an_address_of_each_family_is_opened_for_the_pods_address_of_that_family(rig: Rig) -> None:
    """The question's family plays no part; without an address of the family there is no grant."""
    assert rig.ask("api.example.com", "2606:2800::1").outcomes == ("realized",)
    assert {(name, key[:16]) for name, key in rig.open_now()} == {("grants6", to_packed(A.addresses[1]))}
    assert rig.ask("api.example.com", "2606:2800::1", pod=B).outcomes == ("denied",)


@pytest.mark.parametrize(
    ("name", "address", "more"),
    [
        ("evil.example", API, {}),
        ("example.org", API, {}),
        ("api.example.com", "10.0.0.1", {}),
        ("api.example.com", "169.254.169.254", {}),
        ("api.example.com", "::ffff:10.0.0.1", {}),
        ("api.example.com", "100.64.0.3", {}),
        ("api.example.com", API, {"pod_uid": "uid-b"}),
        ("api.example.com", API, {"source": b"\x01\x02\x03\x04"}),
        ("api.example.com", API, {"source": b""}),
        ("api.example.com", API, {"addresses": (b"", b"abc", b"x" * 17)}),
        ("a" * 5000, API, {}),
        ("\x1b[31m.example.org", API, {}),
        ("", API, {}),
    ],
)
def test_a_hijacked_resolver_opens_nothing_that_the_policy_does_not(
    rig: Rig, name: str, address: str, more: dict[str, object]
) -> None:
    """Other names, pods, uids, guarded and malformed addresses are denied, and nothing is committed."""
    before = len(rig.kernel.commits)
    answer = rig.ask(name, address, **more)
    assert set(answer.outcomes) <= {"denied"}
    assert len(rig.kernel.commits) == before
    assert rig.ledger.count == 0


def test_the_ttl_that_a_resolver_claims_is_clamped(rig: Rig) -> None:
    """A grant never lasts longer than maxTTL and grace, nor shorter than a second and grace."""
    assert rig.ask("api.example.com", API, ttl_s=2**31).remaining_s == 60.0 + GRACE_S
    assert rig.ask("api.example.com", OTHER, ttl_s=-5).remaining_s == 1 + GRACE_S


def test_a_renewal_prolongs_and_never_shortens(rig: Rig) -> None:
    """The element lasts until the latest of its reasons."""
    rig.ask("api.example.com", API)
    rig.clock.at += 30
    rig.ask("x.example.org", API, ttl_s=1)
    assert rig.kernel.elements("grants4")[0].expires_ms == pytest.approx(90_000, abs=5)
    rig.ask("x.example.org", API)
    assert rig.kernel.elements("grants4")[0].expires_ms == pytest.approx(120_000, abs=5)
    (holding,) = rig.ledger.accounts[to_packed(A.addresses[0])].holdings()
    assert {reason.name for reason in holding.reasons} == {"api.example.com", "x.example.org"}


def test_an_expired_grant_is_opened_again(rig: Rig) -> None:
    """Its live twin is still there, its grants element has gone: one request brings it back."""
    rig.ask("api.example.com", API)
    rig.clock.at += 500
    assert not rig.open_now()
    assert rig.ask("api.example.com", API).outcomes == ("realized",)
    assert len(rig.open_now()) == 1


def test_requests_of_one_turn_share_a_transaction(rig: Rig) -> None:
    """Also where two of them open the same address."""
    before = len(rig.kernel.commits)
    requests = [rig.request(f"h{i}.example.org", API, OTHER) for i in range(20)]
    decided, _ = rig.authority.answer(requests, rig.clock())
    assert [each.answer.outcomes for each in decided] == [("realized", "realized")] * 20
    assert len(rig.kernel.commits) == before + 1
    assert len(rig.open_now()) == 2


def test_a_refusal_of_the_kernel_adopts_nothing(rig: Rig) -> None:
    """The answer is ``failed``; the ledger and the journal do not know of it."""
    rig.kernel.refuse(errno.ENFILE, 2)
    assert rig.ask("api.example.com", API).outcomes == ("failed",)
    assert rig.ledger.count == 0
    assert "api.example.com" not in (rig.folder / "journal").read_text()


def test_one_refused_request_does_not_fail_its_neighbours(rig: Rig) -> None:
    """A refused batch is tried request by request."""
    rig.kernel.refuse(errno.ENFILE, 2)
    decided, _ = rig.authority.answer(
        [rig.request("api.example.com", API), rig.request("api.example.com", OTHER)], rig.clock()
    )
    assert [each.answer.outcomes for each in decided] == [("failed",), ("realized",)]


def test_limits_leave_out_what_exceeds(tmp_path: Path) -> None:
    """Per pod and in all; what is open already counts nothing again."""
    rig = Rig(tmp_path, per_pod=2, total=3).settled_with(POLICY)
    answer = rig.ask("api.example.com", "8.0.0.1", "8.0.0.2", "8.0.0.3", "8.0.0.1")
    assert answer.outcomes == ("realized", "realized", "limit", "realized")
    assert answer.reason == "grant limit"
    assert rig.ask("api.example.com", "8.0.0.1", "8.0.0.2", pod=B).outcomes == ("realized", "limit")


def test_a_flood_of_claims_stays_within_the_limits(tmp_path: Path) -> None:
    """Addresses of an attacker's choice, names of his choice: memory is what the limits say."""
    rig = Rig(tmp_path, per_pod=50, total=60).settled_with(POLICY)
    for turn in range(20):
        requests = [
            rig.request(f"h{turn}-{i}.example.org", f"8.{turn}.{i}.1", f"8.{turn}.{i}.2") for i in range(100)
        ]
        rig.authority.answer(requests, rig.clock())
    assert rig.ledger.count == 50
    assert len(rig.live_now()) == 50


def test_an_address_that_is_named_often_is_opened_once(tmp_path: Path) -> None:
    """A request costs its different addresses; each place of it has its outcome all the same."""
    rig = Rig(tmp_path).settled_with(POLICY)
    rig.journal.flush()
    answer = rig.ask("api.example.com", *["8.0.0.1"] * 1000, "127.0.0.1", "8.0.0.1")
    assert answer.outcomes == (*["realized"] * 1000, "denied", "realized")
    rig.journal.flush()
    assert (tmp_path / "journal").read_text().count('"08000001"') == 1


def test_reasons_of_one_element_are_bounded(rig: Rig) -> None:
    """Ten thousand names for one address keep as many reasons as an element may have."""
    for turn in range(100):
        rig.authority.answer([rig.request(f"h{turn}-{i}.example.org", API) for i in range(100)], rig.clock())
    (holding,) = rig.ledger.accounts[to_packed(A.addresses[0])].holdings()
    assert len(holding.reasons) == 64


def test_a_request_for_a_pod_that_is_not_admitted_waits(tmp_path: Path) -> None:
    """Declared, and old flows of its address not deleted yet: it is neither opened nor refused."""
    rig = Rig(tmp_path)
    rig.begin().apply(POLICY)
    decided, waiting = rig.authority.answer([rig.request("api.example.com", API)], rig.clock())
    assert (decided, len(waiting)) == ([], 1)
    rig.run_threads()
    decided, waiting = rig.authority.answer(waiting, rig.clock())
    assert decided[0].answer.outcomes == ("realized",)


def test_a_turn_opens_a_bounded_number_of_elements(tmp_path: Path) -> None:
    """A permit of many ports is hundreds of elements an address: the rest waits, nothing is lost."""
    wide = permit("*.example.org", first=1, last=65534, name="wide")
    rig = Rig(tmp_path, per_pod=100_000, total=100_000).settled_with(policy(wide))
    waiting = [rig.request(f"h{i}.example.org", f"8.0.{i}.1", f"8.0.{i}.2") for i in range(60)]
    turns = 0
    while waiting:
        before = rig.ledger.count
        decided, waiting = rig.authority.answer(waiting, rig.clock())
        assert {each.answer.outcomes for each in decided} == {("realized", "realized")}
        assert 0 < rig.ledger.count - before < MAX_OPENINGS_A_TURN + 600
        turns += 1
    assert turns > 2


def test_what_other_nodes_ask_comes_last_and_opens_little(tmp_path: Path) -> None:
    """However wide the permit and long the answer: ours are decided first, and the turn stays short."""
    wide = permit("*.example.org", first=1, last=65534, name="wide")
    rig = Rig(tmp_path, per_pod=100_000, total=100_000).settled_with(policy(wide))
    ours = [rig.request("ours.example.org", "8.1.0.1")]
    theirs = [rig.request(f"h{i}.example.org", *(f"8.0.{i}.{j}" for j in range(1, 101))) for i in range(3)]
    decided, waiting = rig.authority.answer(ours, rig.clock(), theirs)
    assert [each.request for each in decided] == [*ours, theirs[0]]
    assert waiting == theirs[1:]
    assert decided[0].answer.outcomes == ("realized",)
    realized = decided[1].answer.outcomes.count("realized")
    assert set(decided[1].answer.outcomes[realized:]) == {"limit"}
    width = decided[0].work
    assert realized == -(-MAX_OPENINGS_ELSEWHERE // width)
    assert rig.ledger.count == width * (realized + 1)


def test_what_is_beyond_a_limit_is_work_too(tmp_path: Path) -> None:
    """A pod that has nearly all its grants: each wide address is tried in vain, and costs its turn."""
    wide = permit("*.example.org", first=1, last=65534, name="wide")
    rig = Rig(tmp_path, per_pod=300, total=100_000).settled_with(policy(wide))
    many = [rig.request(f"h{i}.example.org", *(f"8.0.{i}.{j}" for j in range(1, 101))) for i in range(3)]
    decided, waiting = rig.authority.answer([], rig.clock(), many)
    assert [set(each.answer.outcomes) for each in decided] == [{"limit"}]
    assert decided[0].work < 2 * MAX_OPENINGS_ELSEWHERE
    assert waiting == many[1:]


def test_ranges_and_any_port_are_opened(tmp_path: Path) -> None:
    """Each shape of a permit finds its set."""
    rules = [
        permit("r.example.com", first=8000, last=8010, name="range"),
        permit("w.example.com", first=1000, last=9000, name="wide"),
        permit("u.example.com", first=0, last=65535, protocol="udp", name="all-udp"),
    ]
    rig = Rig(tmp_path, per_pod=1000).settled_with(policy(*rules))
    assert rig.ask("r.example.com", "8.0.0.1").outcomes == ("realized",)
    assert len(rig.open_now()) == 11
    assert rig.ask("w.example.com", "8.0.0.2").outcomes == ("realized",)
    assert rig.ask("u.example.com", "8.0.0.3").outcomes == ("realized",)
    assert {name for name, _ in rig.open_now()} == {
        "grants4",
        "grants_block4",
        "grants_span4",
        "grants_protocol4",
    }
