"""Grants that one answer opened say why, and until when, in one value; what befalls one befalls no other."""

from __future__ import annotations

from pathlib import Path

from enforcer.ledger import Holding
from enforcer.terms import NEVER, Term
from policy.addresses import to_packed
from tests.enforcer.rig import A, Rig, permit, policy

NAME = "api.example.com"
SOURCE = to_packed(A.addresses[0])
ADDRESSES = tuple(to_packed(f"93.184.216.{number}") for number in range(1, 11))


def opened(tmp_path: Path) -> Rig:
    """An enforcer that has opened ten addresses of one name, on two ports."""
    rules = (permit("*.example.com"), permit("*.example.com", first=8443, name="other"))
    rig = Rig(tmp_path).settled_with(policy(*rules))
    ask(rig, NAME, ADDRESSES)
    return rig


def ask(rig: Rig, name: str, addresses: tuple[bytes, ...]) -> None:
    """Ask for them in one request."""
    request = rig.request(name, addresses=addresses)
    ((decided,), _) = rig.authority.answer([request], rig.clock())
    assert decided.answer.outcomes == ("realized",) * len(addresses)


def terms(rig: Rig) -> set[Term]:
    """The different terms of the pod's grants."""
    return set(rig.ledger.accounts[SOURCE].terms())


def holdings(rig: Rig, address: bytes) -> list[Holding]:
    """What is held of an address."""
    return rig.ledger.accounts[SOURCE].held(address)


def test_one_answer_is_one_term_for_each_way(tmp_path: Path) -> None:
    """Asked for, asked for again, and decided again: ten addresses on two ports are two terms."""
    rig = opened(tmp_path)
    assert rig.ledger.count == 20
    assert len(terms(rig)) == 2
    first = terms(rig)
    rig.clock.at += 30
    ask(rig, NAME, ADDRESSES)
    assert len(terms(rig)) == 2
    assert not terms(rig) & first
    rig.apply(policy(permit("*.example.com", name="renamed")))
    assert len(terms(rig)) == 1
    assert rig.ledger.count == 10


def test_what_is_prolonged_leaves_the_others_as_they_were(tmp_path: Path) -> None:
    """One address that is asked for again, or because of another name, lasts by itself."""
    rig = opened(tmp_path)
    rig.clock.at += 30
    ask(rig, NAME, ADDRESSES[:1])
    ask(rig, "cdn.example.com", ADDRESSES[1:2])
    assert {each.until for each in holdings(rig, ADDRESSES[0])} == {1150.0}
    assert {each.realized_at for each in holdings(rig, ADDRESSES[0])} == {1000.0}
    for each in holdings(rig, ADDRESSES[1]):
        assert {reason.name: until for reason, until in each.reasons.items()} == {
            NAME: 1120.0,
            "cdn.example.com": 1150.0,
        }
    for address in ADDRESSES[2:]:
        for each in holdings(rig, address):
            assert ([reason.name for reason in each.reasons], each.until) == ([NAME], 1120.0)


def test_what_is_stopped_leaves_the_others_open(tmp_path: Path) -> None:
    """One holding that admits nothing new; the other ports and addresses do."""
    rig = opened(tmp_path)
    stopped = holdings(rig, ADDRESSES[0])[0]
    rig.ledger.stop(stopped)
    ends = [each.until for address in ADDRESSES for each in holdings(rig, address)]
    assert sorted(ends) == [NEVER] + [1120.0] * 19
    assert stopped.until == NEVER
    assert stopped.reasons == {stopped.only: 1120.0}


def test_what_was_prolonged_meanwhile_is_not_collected(tmp_path: Path) -> None:
    """Over when flows were asked for, open again when they came: it stays."""
    rig = opened(tmp_path)
    rig.clock.at += 200
    rig.collection.begin()
    ask(rig, NAME, ADDRESSES[:1])
    rig.run_threads()
    left = {each.destination for account in rig.ledger.accounts.values() for each in account.holdings()}
    assert left == {ADDRESSES[0]}
