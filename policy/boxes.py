"""Static permits as boxes: what is open without DNS, ready for the kernel's interval set.

Owns the way from a profile's outcome without a name to disjoint boxes. Never decides. Invariant:
no two boxes of one pod share an (address, protocol, port).
"""

from __future__ import annotations

from policy.decision import StaticBox
from policy.profile import Profile

MAX_BOXES = 65536
"""For one pod: rules with many ranges and rules with many ports multiply, and the kernel holds every box."""


def static_boxes(profile: Profile) -> tuple[StaticBox, ...]:
    """Return the boxes of a profile, both families; neighbours with the same permits are one.

    None at all where they would be more than ``MAX_BOXES``.
    """
    if profile.box_count > MAX_BOXES:
        return ()
    return tuple(
        StaticBox(first, last, permit.protocol, permit.first, permit.last, permit.policy, permit.rule)
        for first, last, permits in profile.spans
        for permit in permits
    )
