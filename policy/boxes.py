"""Static permits as boxes: what is open without DNS, ready for the kernel's interval set.

Owns the way from a profile's outcome without a name to disjoint boxes. Never decides. Invariant:
no two boxes of one pod share an (address, protocol, port).
"""

from __future__ import annotations

from policy.decision import Permit, StaticBox
from policy.profile import Profile


def static_boxes(profile: Profile) -> tuple[StaticBox, ...]:
    """Return the boxes of a profile, both families; neighbours with the same permits are one."""
    classes = profile.nameless.classes
    spans: list[tuple[bytes, bytes, tuple[Permit, ...]]] = []
    for first, last, number in profile.regions:
        permits = classes[number].permits
        if spans and len(spans[-1][0]) == len(first) and spans[-1][2] == permits:
            spans[-1] = (spans[-1][0], last, permits)
        else:
            spans.append((first, last, permits))
    return tuple(
        StaticBox(first, last, permit.protocol, permit.first, permit.last, permit.policy, permit.rule)
        for first, last, permits in spans
        for permit in permits
    )
