"""The order of deadlines: a queue for each kind, and what does not fit into its order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from resolver.deadlines import EXCHANGES, HOLDS, NEVER, QUESTIONS, Deadlines, Waiting

STEPS = st.lists(
    st.tuples(st.integers(0, 7), st.sampled_from([QUESTIONS, EXCHANGES, HOLDS]), st.integers(0, 20)),
    max_size=60,
)


@given(STEPS, st.integers(0, 20))
def test_what_waits_is_taken_once_in_its_order(steps, now):
    """As a plain search says: whatever order they came in, moved or ended meanwhile."""
    deadlines = Deadlines()
    items = [Waiting() for _ in range(8)]
    for index, kind, at in steps:
        if at == 20:
            items[index].due_at = NEVER
        else:
            deadlines.add(kind, items[index], float(at))
    assert deadlines.next_at() == min(item.due_at for item in items)
    expected = sorted(item.due_at for item in items if item.due_at <= now)
    due = {id(item): item.due_at for item in items}
    taken = []
    while (item := deadlines.take(float(now))) is not None:
        assert item.due_at == NEVER
        taken.append(due[id(item)])
    assert taken == expected
    assert all(item.due_at == NEVER or item.due_at > now for item in items)


def test_what_has_ended_is_not_kept():
    """What ended before is gone when the next one comes."""
    deadlines = Deadlines()
    for number in range(1000):
        item = Waiting()
        deadlines.add(HOLDS, item, float(number))
        item.due_at = NEVER
    assert sum(map(len, deadlines._queues)) <= 1
