"""What every ledger does, in memory and beside Redis; the latter leaves Redis equal to itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from enforcer.demo.stores import Store
from enforcer.ledger import Holding, Ledger, MemoryLedger, Past, parts
from enforcer.terms import MAX_REASONS, NEVER, term_of
from policy.addresses import to_packed
from policy.grants import Reason
from tests.sharing.publishing import A4, A6, B4, SharingNode, identity, opening, tuple_of

NOW = 1000.0
TO, OTHER, TO6 = (to_packed(text) for text in ("203.0.113.7", "203.0.113.8", "2001:db8::7"))


@pytest.fixture(params=["memory", "redis"])
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """Each implementation; after the test Redis is compared."""
    if request.param == "memory":
        yield MemoryLedger()
        return
    lasting: Store = request.getfixturevalue("lasting_store")
    node = SharingNode(lasting)
    node.door.redis.flushall()
    node.up()
    node.run(0.5)
    yield node.ledger
    node.run(0.5)
    assert node.differences() == {}
    node.run(200.0)
    assert node.shared() == node.wanted() == {}
    node.close()


def kept(holding: Holding, until: float, *names: str) -> Holding:
    """A copy as a revision makes it."""
    reasons = {Reason(name, "mcp/web", "allow"): until for name in names}
    term = term_of(holding.way, reasons, until, holding.realized_at)
    return Holding(holding.account, holding.destination, term)


class TestLedger:
    """The contract of ``enforcer.ledger.Ledger``."""

    def test_empty(self, ledger: Ledger) -> None:
        """Nothing is open."""
        assert (ledger.accounts, ledger.count) == ({}, 0)
        ledger.close_account(A4)

    def test_opened(self, ledger: Ledger) -> None:
        """A holding with its reason, its end and its first acknowledgement."""
        account = ledger.open_account(identity(A4))
        ledger.adopt(opening(account, TO, NOW + 60), NOW)
        (holding,) = account.holdings()
        assert ledger.accounts[A4] is account
        assert (ledger.count, account.count) == (1, 1)
        assert (holding.until, holding.realized_at) == (NOW + 60, NOW)
        assert holding.reasons == {Reason("api.example.com", "mcp/web", "allow"): NOW + 60}
        assert (holding.destination, holding.opens.first) == (TO, 443)

    def test_a_wide_range(self, ledger: Ledger) -> None:
        """Is many holdings of one destination."""
        account = ledger.open_account(identity(A6))
        ledger.adopt(opening(account, TO6, NOW + 60, first=4000, last=9000), NOW)
        assert ledger.count == account.count > 10
        assert list(account.destinations) == [TO6]

    def test_renewed(self, ledger: Ledger) -> None:
        """Lasts longer, never shorter; it was realized when it was first."""
        account = ledger.open_account(identity(A4))
        for until, now in ((NOW + 60, NOW), (NOW + 90, NOW + 30), (NOW + 70, NOW + 40)):
            ledger.adopt(opening(account, TO, until), now)
        (holding,) = account.holdings()
        assert (holding.until, holding.realized_at, ledger.count) == (NOW + 90, NOW, 1)

    def test_opened_again_after_its_end(self, ledger: Ledger) -> None:
        """Is realized anew."""
        account = ledger.open_account(identity(A4))
        ledger.adopt(opening(account, TO, NOW + 10), NOW)
        ledger.adopt(opening(account, TO, NOW + 90), NOW + 30)
        (holding,) = account.holdings()
        assert (holding.until, holding.realized_at) == (NOW + 90, NOW + 30)

    def test_several_reasons(self, ledger: Ledger) -> None:
        """Each with its own instant; it lasts as long as the longest."""
        account = ledger.open_account(identity(A4))
        ledger.adopt(opening(account, TO, NOW + 60, "a") + opening(account, TO, NOW + 30, "b"), NOW)
        (holding,) = account.holdings()
        assert {each.name: until for each, until in holding.reasons.items()} == {"a": NOW + 60, "b": NOW + 30}
        assert holding.until == NOW + 60

    def test_too_many_reasons(self, ledger: Ledger) -> None:
        """Those that end first make room."""
        account = ledger.open_account(identity(A4))
        for each in range(MAX_REASONS + 5):
            ledger.adopt(opening(account, TO, NOW + 10 + each, f"n{each}"), NOW)
        (holding,) = account.holdings()
        assert len(holding.reasons) == MAX_REASONS
        assert min(holding.reasons.values()) == NOW + 15

    def test_replaced(self, ledger: Ledger) -> None:
        """A revision takes one away, shortens one, gives one another reason, adds one."""
        account = ledger.open_account(identity(A4))
        for destination in (TO, OTHER, B4):
            ledger.adopt(opening(account, destination, NOW + 60), NOW)
        by = {each.destination: each for each in account.holdings()}
        _, to, way = parts(tuple_of(A4, TO, "udp", 53)[0])
        fresh = Holding(account, to, term_of(way, {Reason("new", "p", "r"): NOW + 40}, NOW + 40, NOW))
        ledger.replace(
            account, [kept(by[TO], NOW + 20, "api.example.com"), kept(by[B4], NOW + 60, "x"), fresh]
        )
        assert ledger.count == account.count == 3
        assert OTHER not in account.destinations
        assert {each.until for each in account.holdings()} == {NOW + 20, NOW + 40, NOW + 60}

    def test_replaced_by_one_that_admits_nothing_new(self, ledger: Ledger) -> None:
        """Stays held, for its flows."""
        account = ledger.open_account(identity(A4))
        ledger.adopt(opening(account, TO, NOW + 60), NOW)
        (holding,) = account.holdings()
        ledger.replace(account, [kept(holding, NEVER, "api.example.com")])
        assert ledger.count == 1
        ledger.adopt(opening(account, TO, NOW + 70), NOW + 1)
        (again,) = account.holdings()
        assert (again.until, again.realized_at) == (NOW + 70, NOW + 1)

    def test_replaced_by_nothing(self, ledger: Ledger) -> None:
        """All of it is gone."""
        account = ledger.open_account(identity(A4))
        ledger.adopt(opening(account, TO, NOW + 60, first=1, last=5000), NOW)
        ledger.replace(account, [])
        assert (ledger.count, account.count, account.destinations) == (0, 0, {})

    def test_forgotten(self, ledger: Ledger) -> None:
        """Is gone, and why it was there is remembered."""
        account = ledger.open_account(identity(A4))
        ledger.adopt(opening(account, TO, NOW + 60) + opening(account, OTHER, NOW + 60), NOW)
        holding = next(account.holdings())
        past = Past(next(iter(holding.reasons)), NOW + 60, revoked=True)
        ledger.forget(account, holding, past)
        ledger.forget(account, holding, None)
        assert (ledger.count, account.count, dict(account.past)) == (1, 1, {TO: past})

    def test_forgotten_and_opened_again(self, ledger: Ledger) -> None:
        """Is a new holding."""
        account = ledger.open_account(identity(A4))
        ledger.adopt(opening(account, TO, NOW + 60), NOW)
        ledger.forget(account, next(account.holdings()), None)
        ledger.adopt(opening(account, TO, NOW + 50, "other"), NOW + 1)
        (holding,) = account.holdings()
        assert (holding.until, [each.name for each in holding.reasons]) == (NOW + 50, ["other"])

    def test_stopped(self, ledger: Ledger) -> None:
        """Is held and admits nothing new."""
        account = ledger.open_account(identity(A4))
        ledger.adopt(opening(account, TO, NOW + 60), NOW)
        (holding,) = account.holdings()
        ledger.stop(holding)
        assert (holding.until, ledger.count) == (NEVER, 1)

    def test_closed(self, ledger: Ledger) -> None:
        """The address and all about it is forgotten; others stay."""
        for source in (A4, B4):
            ledger.adopt(opening(ledger.open_account(identity(source)), TO, NOW + 60), NOW)
        ledger.close_account(A4)
        assert (list(ledger.accounts), ledger.count) == ([B4], 1)

    def test_another_pod_at_the_address(self, ledger: Ledger) -> None:
        """Starts with nothing; what it opens is its own."""
        ledger.adopt(opening(ledger.open_account(identity(A4)), TO, NOW + 60), NOW)
        after = ledger.open_account(identity(A4, "uid-b", "mcp/b"))
        assert (ledger.count, after.count) == (0, 0)
        ledger.adopt(opening(after, TO, NOW + 30), NOW)
        assert ledger.accounts[A4].identity.uid == "uid-b"
