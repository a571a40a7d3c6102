"""Grants are encoded on a short way of their own; it says what the long way says, octet for octet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from enforcer.elements import grant_keys
from enforcer.identity import comment, comment_of, comment_start
from enforcer.identity import comment_end as end_of
from enforcer.plan import absence
from enforcer.transaction import batch, ends, grants
from enforcer.ways import Grant, changes_of, permitted
from policy.decision import Permit

PERMITS = st.builds(
    lambda protocol, first, width: Permit(
        protocol,
        *((0, 65535) if protocol in {"any", "icmp"} else (first, min(first + width, 65535))),
        "p",
        "r",
    ),
    st.sampled_from(["tcp", "udp", "icmp", "any"]),
    st.integers(0, 65535),
    st.sampled_from([0, 0, 0, 10, 100, 5000, 65535]),
)
ADDRESSES = st.sampled_from([4, 16]).flatmap(
    lambda size: st.tuples(st.binary(min_size=size, max_size=size), st.binary(min_size=size, max_size=size))
)


@given(st.lists(PERMITS, max_size=3), ADDRESSES)
def test_ways_and_a_pair_are_the_keys_of_the_elements(
    permits: list[Permit], pair: tuple[bytes, bytes]
) -> None:
    """For every protocol, ports and family, in the same order."""
    pod, destination = pair
    found = [
        (each.way.grants, pod + destination + each.way.tail, b"") for each in permitted(permits, len(pod))
    ]
    assert found == [key for permit in permits for key in grant_keys(pod, destination, permit)]
    assert len({each.way.mark for each in permitted(permits, len(pod))}) == len(set(found))


@st.composite
def opened(draw: st.DrawFn) -> list[Grant]:
    """What a turn opens: several grants of the same comment after each other, some prolonged."""
    found: list[Grant] = []
    for _ in range(draw(st.integers(0, 6))):
        pod, destination = draw(ADDRESSES)
        said = draw(st.binary(max_size=300))
        found += [
            (each.way, pod + destination, draw(st.integers(1, 10**6)), said, draw(st.booleans()))
            for each in permitted([draw(PERMITS)], len(pod))[:5]
        ]
    return found


@given(opened(), st.integers(1, 3))
def test_both_ways_give_the_same_octets(some: list[Grant], times: int) -> None:
    """Messages, their order, their splitting: all of a transaction."""
    assert (
        grants("nameward", some * times, 7).data
        == batch("nameward", changes_of(some * times), 7, renews=True).data
    )


@given(opened())
def test_what_ends_is_absent_in_the_same_octets(some: list[Grant]) -> None:
    """Added and deleted, set by set."""
    ended = list({(way, pair): None for way, pair, *_ in some})
    long = batch("nameward", absence((way.live, pair + way.tail, b"") for way, pair in ended), 7, renews=True)
    assert ends("nameward", ended, 7).data == long.data


def test_many_are_split_alike() -> None:
    """More than one nested attribute holds."""
    (way,) = permitted([Permit("tcp", 443, 443, "p", "r")], 4)
    many = [(way.way, number.to_bytes(8, "big"), 60_000, b"c" * 120, False) for number in range(3000)]
    made = grants("nameward", many, 7)
    assert len(made.runs) > 2
    assert made.data == batch("nameward", changes_of(many), 7, renews=True).data


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=300))
def test_a_comment_is_bounded_and_ends_with_the_identity(policy: str, rule: str, name: str) -> None:
    """Put together from its parts, it says what it says in one."""
    said = comment_of(comment_start(policy, rule), name, end_of("0123abcd"))
    assert said == comment("0123abcd", policy, rule, name)
    assert len(said) <= 120
    assert said.endswith(b"#0123abcd")
