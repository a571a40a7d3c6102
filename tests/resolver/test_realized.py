"""What is known to be open: never later than the kernel's instant, whatever was said in whatever order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from resolver.realized import MAX_PER_POD, MAX_SETS, NEVER, Realized

POD, NAME = ("10.0.0.2",), "a.example.com"
ADDRESSES = tuple(bytes((192, 0, 2, number)) for number in range(6))


def test_all_addresses_must_be_open():
    """The earliest end counts; one that never was opened counts most."""
    realized = Realized()
    realized.add(POD, NAME, ADDRESSES[:2], 10.0)
    realized.add(POD, NAME, ADDRESSES[1:3], 20.0)
    assert realized.until(POD, NAME, ADDRESSES[1:3]) == 20.0
    assert realized.until(POD, NAME, ADDRESSES[:3]) == 10.0
    assert realized.until(POD, NAME, ADDRESSES[:4]) == NEVER


def test_another_pod_or_name_knows_nothing_of_it():
    """It is told by the pod's addresses and by the name."""
    realized = Realized()
    realized.add(POD, NAME, ADDRESSES, 10.0)
    assert realized.until(("10.0.0.3",), NAME, ADDRESSES) == NEVER
    assert realized.until(POD, "b.example.com", ADDRESSES) == NEVER


def test_a_rotated_answer_is_the_same_set():
    """Servers give their addresses in another order each time: that takes no more memory."""
    realized = Realized()
    for turn in range(100):
        at = turn % len(ADDRESSES)
        realized.add(POD, NAME, ADDRESSES[at:] + ADDRESSES[:at], float(turn))
    assert realized.until(POD, NAME, ADDRESSES) == 99.0
    assert realized.size(POD) == len(ADDRESSES)


def test_a_name_with_ever_other_addresses_keeps_the_newest():
    """Of the oldest nothing is known any more: what asks for them is held again."""
    realized = Realized()
    for number in range(3 * MAX_SETS):
        realized.add(POD, NAME, (bytes((192, 0, 2, number)),), 10.0)
    assert realized.until(POD, NAME, (bytes((192, 0, 2, 3 * MAX_SETS - 1)),)) == 10.0
    assert realized.until(POD, NAME, (bytes((192, 0, 2, 0)),)) == NEVER
    assert realized.size(POD) == MAX_SETS


def test_a_pods_memory_is_bounded():
    """Beyond the bound its table is emptied."""
    realized = Realized()
    for number in range(MAX_PER_POD // 4):
        realized.add(POD, f"{number}.example.com", ADDRESSES, 10.0)
        assert realized.size(POD) <= MAX_PER_POD


@given(st.lists(st.tuples(st.lists(st.sampled_from(ADDRESSES), min_size=1, unique=True), st.integers(1, 50))))
def test_it_never_knows_more_than_was_said(said):
    """For any order of any sets: at most the latest instant that was said of each address."""
    realized = Realized()
    latest: dict[bytes, int] = {}
    for addresses, until in said:
        realized.add(POD, NAME, tuple(addresses), float(until))
        for address in addresses:
            latest[address] = max(until, latest.get(address, 0))
        known = realized.until(POD, NAME, tuple(addresses))
        assert until <= known <= min(latest[address] for address in addresses)
    for address in ADDRESSES:
        assert realized.until(POD, NAME, (address,)) <= latest.get(address, NEVER)


def test_four_addresses_of_one_family_are_no_address_of_the_other():
    """Octets that a zone chose so that its A records read as an AAAA record open nothing more."""
    realized = Realized()
    realized.add(POD, NAME, ADDRESSES[:4], 10.0)
    assert realized.until(POD, NAME, (b"".join(ADDRESSES[:4]),)) == NEVER
    realized.add(POD, NAME, (b"".join(ADDRESSES[2:6]),), 20.0)
    assert realized.until(POD, NAME, ADDRESSES[2:6]) == NEVER
    assert realized.until(POD, NAME, (b"".join(ADDRESSES[2:6]),)) == 20.0
