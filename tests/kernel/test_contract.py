"""One contract for the fake kernel and the real one: what callers rely on."""

from __future__ import annotations

import errno
import os
import time

import pytest

from enforcer.elements import (
    PREFIX_SETS,
    Add,
    Element,
    InstalledElement,
    KnownPod,
    Remove,
    Renew,
    node_elements,
    settled,
)
from enforcer.kernel import Kernel, KernelRejected
from enforcer.ruleset import Layout, guard, structure
from enforcer.ways import permitted
from policy.decision import Permit
from tests.fakes import FakeKernel

KEY = bytes((10, 0, 0, 1, 45, 0, 0, 1, 6, 0, 0, 0, 1, 187, 0, 0))
NEXT = KEY[:7] + b"\2" + KEY[8:]


def grant(key: bytes = KEY, timeout_ms: int = 60_000, comment: bytes = b"") -> Element:
    """A grant element."""
    return Element("grants4", key, b"", timeout_ms, comment)


class KernelContract:
    """Every test runs against both; ``pass_time`` lets seconds go by, ``clock_ms`` says how many have."""

    SIZED = Layout(grants=-65_536 + 3)  # sets of 3 elements

    @pytest.fixture
    def layout(self) -> Layout:
        """Default structure."""
        return Layout()

    @pytest.fixture
    def built(self, kernel, layout):
        """A kernel with our structure."""
        kernel.install(structure(layout))
        return kernel

    def is_whole(self, found: InstalledElement, before: float) -> bool:
        """Say that a minute was given it after ``before``, however long ago that is."""
        return (found.expires_ms or 0) + self.clock_ms() - before > 59_850

    def refused(self, kernel, changes) -> KernelRejected:
        """Commit something that is refused."""
        with pytest.raises(KernelRejected) as caught:
            kernel.commit(changes)
        return caught.value

    def test_what_was_committed_is_there_with_its_comment(self, built):
        """Elements come back with key, remaining time and comment."""
        before = self.clock_ms()
        built.commit([Add(grant(comment=b"ns/policy/rule|api.example")), Add(Element("live4", KEY))])
        (found,) = built.elements("grants4")
        assert (found.key, found.comment) == (KEY, b"ns/policy/rule|api.example")
        assert found.expires_ms is not None
        assert found.expires_ms <= 60_000
        assert self.is_whole(found, before)
        (live,) = built.elements("live4")
        assert live.expires_ms is None

    def test_grants_come_with_their_twins_and_are_prolonged_without(self, built):
        """The short way does what the long one does; a second prolonging changes the first's time alone."""
        (by,) = permitted([Permit("tcp", 443, 443, "ns/policy", "rule")], 4)
        built.commit_grants([(by.way, KEY[:8], 60_000, b"ns/policy/rule|api.example", False)])
        self.pass_time(0.2)
        assert (built.elements("grants4")[0].expires_ms or 0) <= 59_850
        before = self.clock_ms()
        built.commit_grants([(by.way, KEY[:8], 60_000, b"another", True)])
        (found,) = built.elements("grants4")
        assert (found.key, found.comment) == (KEY, b"ns/policy/rule|api.example")
        assert self.is_whole(found, before)
        assert [(each.key, each.expires_ms) for each in built.elements("live4")] == [(KEY, None)]

    def test_what_ends_is_gone_whether_it_was_there_or_not(self, built):
        """Of live elements; the grants' end by themselves."""
        (by,) = permitted([Permit("tcp", 443, 443, "p", "r")], 4)
        built.commit_grants([(by.way, KEY[:8], 60_000, b"", False)])
        built.commit_ends([(by.way, KEY[:8]), (by.way, NEXT[:8])])
        assert (built.elements("live4"), len(built.elements("grants4"))) == ([], 1)

    def test_a_refusal_of_grants_opens_none(self, kernel):
        """Without the table: neither of two."""
        (by,) = permitted([Permit("tcp", 443, 443, "p", "r")], 4)
        two = [(by.way, KEY[:8], 60_000, b"", False), (by.way, NEXT[:8], 60_000, b"", False)]
        with pytest.raises(KernelRejected) as refused:
            kernel.commit_grants(two)
        assert refused.value.errno == errno.ENOENT

    def test_adding_again_changes_nothing(self, built):
        """Neither time nor comment: only a removal before it, in the same transaction, does."""
        built.commit([Add(grant(timeout_ms=5_000, comment=b"old"))])
        built.commit([Add(grant(timeout_ms=5_000, comment=b"new"))])
        assert built.elements("grants4")[0].comment == b"old"
        built.commit([Remove("grants4", KEY), Add(grant(comment=b"new"))])
        assert built.elements("grants4")[0].comment == b"new"

    def test_renewing_gives_the_whole_time_again(self, built):
        """Also with the same timeout as before; a renewal of what is not there adds it."""
        built.commit([Renew(grant(timeout_ms=60_000), expires_ms=0)])
        self.pass_time(0.2)
        assert (built.elements("grants4")[0].expires_ms or 0) <= 59_850
        before = self.clock_ms()
        built.commit([Renew(grant(timeout_ms=60_000))])
        assert self.is_whole(built.elements("grants4")[0], before)

    def test_a_refused_transaction_changed_nothing_and_says_which_change(self, built):
        """The removal of what is not there fails all, by its index."""
        refused = self.refused(built, [Add(grant()), Add(Element("live4", KEY)), Remove("live4", NEXT)])
        assert (refused.errno, refused.index) == (errno.ENOENT, 2)
        assert built.elements("grants4") == []
        many = [Add(grant(KEY[:12] + i.to_bytes(2, "big") + b"\0\0")) for i in range(3000)]
        refused = self.refused(built, [*many, Remove("grants4", NEXT)])
        assert (refused.errno, refused.index) == (errno.ENOENT, 3000)

    def test_a_refusal_of_one_set_is_heard_though_the_last_is_acknowledged(self, built):
        """The acknowledgement of the last message says nothing of those before it."""
        caught = self.refused(built, [Remove("grants4", KEY), Add(Element("live4", KEY))])
        assert (caught.errno, caught.index) == (errno.ENOENT, 0)
        assert not built.elements("live4")

    def test_an_expired_element_is_gone_and_cannot_be_removed(self, built):
        """Removing it fails with ENOENT, adding it works."""
        built.commit([Add(grant(timeout_ms=50))])
        self.pass_time(0.1)
        assert built.elements("grants4") == []
        assert self.refused(built, [Remove("grants4", KEY)]).errno == errno.ENOENT
        built.commit([Add(grant())])
        assert len(built.elements("grants4")) == 1

    @pytest.mark.parametrize("layout", [SIZED])
    def test_a_full_set_is_enfile(self, built):
        """The one more is refused, with those that came with it."""
        keys = [KEY[:7] + bytes((n,)) + KEY[8:] for n in range(4)]
        assert self.refused(built, [Add(grant(key)) for key in keys]).errno == errno.ENFILE
        built.commit([Add(grant(key)) for key in keys[:3]])
        assert self.refused(built, [Add(grant(keys[3]))]).errno == errno.ENFILE

    def test_without_the_table_everything_is_enoent(self, kernel):
        """Nothing opens in a table that somebody took away."""
        assert kernel.fingerprint() == ""
        assert self.refused(kernel, [Add(grant())]).errno == errno.ENOENT
        with pytest.raises(KernelRejected):
            kernel.elements("grants4")

    def test_overlapping_ranges_are_refused(self, built):
        """The planner writes disjoint boxes, or this."""
        box = Element("static_all4", bytes((10, 0, 0, 1, 45, 0, 0, 0)), bytes((10, 0, 0, 1, 45, 0, 0, 9)))
        other = box._replace(key=bytes((10, 0, 0, 1, 45, 0, 0, 5)))
        built.commit([Add(box)])
        assert self.refused(built, [Add(other)]).errno in (errno.EEXIST, errno.ENOTEMPTY)

    def test_node_elements_come_back_as_they_went(self, built):
        """Every kind of set, ranges and one-field intervals included."""
        wanted = node_elements(
            [
                KnownPod(bytes((10, 0, 0, 1)), "veth1", governed=True),
                KnownPod(b"\xfd" + bytes(15), "veth1", governed=False),
            ],
            cluster_cidrs=["0.0.0.0/8", "10.0.0.0/8", "11.0.0.0/8", "255.0.0.0/8", "fd00::/8", "ff00::/8"],
            uplinks=["eth0"],
        )
        built.commit(
            [Add(e) for kind in wanted.values() for e in kind.values()] + [Add(e) for e in settled()]
        )
        for name, kind in wanted.items():
            found = {(each.key, each.key_end) for each in built.elements(name)}
            assert found == {(each.key, each.key_end) for each in kind.values()}, name
        built.commit([Remove(e.set, e.key, e.key_end) for name in PREFIX_SETS for e in wanted[name].values()])
        assert built.elements("cluster4") == []

    def test_the_fingerprint_sees_structure_not_elements(self, built):
        """Elements leave it as it is; somebody else's rule does not; installing empties all sets."""
        before = built.fingerprint()
        built.commit([Add(grant())])
        assert built.fingerprint() == before
        self.meddle(built)
        assert built.fingerprint() != before
        built.install(structure(Layout()))
        assert built.elements("grants4") == []

    def test_a_flush_is_seen_and_spares_the_guard(self, built):
        """Our own changes are no events; somebody's flush is one, and the guard stands."""
        built.install_guard(guard(Layout()))
        guarded = built.guard_fingerprint()
        self.watch(built)
        built.commit([Add(grant())])
        built.install(structure(Layout()))
        assert built.drain_events() == set()
        self.flush(built)
        assert "gone" in built.drain_events()
        assert built.fingerprint() == ""
        assert built.guard_fingerprint() == guarded
        built.commit_guard(
            [Add(Element("governed4", bytes((10, 0, 0, 1)))), Add(Element("uplinks", b"eth0"))]
        )

    def test_the_guard_goes_with_its_owner(self, built):
        """Without its process there is no guard, and the policy table stays."""
        with pytest.raises(KernelRejected):
            built.commit_guard([Add(Element("governed4", bytes((10, 0, 0, 1))))])
        built.install_guard(guard(Layout()))
        assert built.guard_fingerprint()
        built.install_guard(guard(Layout()))
        built.commit_guard([Add(Element("governed6", bytes(16)))])
        built.commit_guard([Remove("governed6", bytes(16))])
        self.close(built)
        later = self.again(built)
        assert not later.guard_fingerprint()
        assert later.fingerprint()
        later.close()


class TestFakeKernel(KernelContract):
    """The fake keeps the contract."""

    @pytest.fixture
    def kernel(self):
        """A fake with a clock of its own."""
        self.now_s = 100.0
        return FakeKernel(lambda: self.now_s)

    def pass_time(self, seconds: float) -> None:
        """Move the clock."""
        self.now_s += seconds

    def clock_ms(self) -> float:
        """The fake's."""
        return self.now_s * 1000

    def meddle(self, kernel) -> None:
        """Somebody's rule."""
        kernel.meddle()

    def flush(self, kernel) -> None:
        """Somebody's flush."""
        kernel.flush()

    def watch(self, kernel) -> None:
        """Nothing to open."""

    def close(self, kernel) -> None:
        """End it."""
        kernel.close()

    def again(self, kernel):
        """The same memory."""
        return kernel


@pytest.mark.kernel
class TestRealKernel(KernelContract):
    """So does the kernel."""

    @pytest.fixture
    def kernel(self, lab):
        """The real one, in the lab's node."""
        self.lab = lab
        with lab.inside("node"):
            made = Kernel()
            assert made.probe().owns
            yield made
            made.close()
            lab.nft("flush ruleset")

    def pass_time(self, seconds: float) -> None:
        """Wait: the kernel's own clock is what is tested."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            os.sched_yield() if left < 0.001 else time.sleep(left)

    def clock_ms(self) -> float:
        """As the kernel's runs."""
        return time.monotonic() * 1000

    def meddle(self, kernel) -> None:
        """Somebody's rule."""
        self.lab.nft("add rule inet nameward forward counter accept")

    def flush(self, kernel) -> None:
        """Somebody's flush."""
        self.lab.nft("flush ruleset")

    def watch(self, kernel) -> None:
        """Join the notifications."""
        kernel.monitor_fd()

    def close(self, kernel) -> None:
        """The process ends."""
        kernel.close()

    def again(self, kernel):
        """The next process."""
        return Kernel()
