"""Laws of comparing long tuples, and of texts that need no parsing."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from policy.changes import ends, gone_and_come, is_same
from policy.patterns import PatternError, is_plain, parse_pattern

_OBJECTS = [object() for _ in range(6)]
_LONG = st.builds(
    lambda before, middle, after: (*_OBJECTS[:1] * before, *middle, *_OBJECTS[1:2] * after),
    st.integers(0, 700),
    st.lists(st.sampled_from(_OBJECTS), max_size=6),
    st.integers(0, 700),
)


@given(_LONG, _LONG)
def test_the_same_ends_are_all_that_are_the_same(old: tuple[object, ...], new: tuple[object, ...]) -> None:
    """What is counted is the same object, one more on either side is not, and nothing is counted twice."""
    first, last = ends(old, new)
    assert old[:first] == new[:first]
    assert old[len(old) - last :] == new[len(new) - last :]
    assert first + last <= min(len(old), len(new))
    if first + last < min(len(old), len(new)):
        assert old[first] is not new[first]
        assert old[-last - 1] is not new[-last - 1]
    assert is_same(old, new) is (old == new)


@given(_LONG, _LONG)
def test_what_is_gone_and_what_came_explain_the_difference(
    old: tuple[object, ...], new: tuple[object, ...]
) -> None:
    """The old less what is gone, with what came, is the new, each object as often; none is in both."""
    gone, came = gone_and_come(old, new)
    assert Counter(map(id, old)) - Counter(map(id, gone)) + Counter(map(id, came)) == Counter(map(id, new))
    assert not set(map(id, gone)) & set(map(id, came))


@given(st.text("ab0x19*._-", max_size=12) | st.from_regex(r"(\*\.)?[a-z0-9.-]{1,80}", fullmatch=True))
def test_a_plain_pattern_is_one_and_canonical(text: str) -> None:
    """Whatever is taken without parsing is what parsing a text of another form of it gives."""
    if is_plain(text):
        assert parse_pattern(f" {text}.").text == text == parse_pattern(text).text
    else:
        try:
            found = parse_pattern(text).text
        except PatternError:
            return
        assert found != text or "*" in text.removeprefix("*.")
