"""What is to be written, so that the cluster holds what Obot says.

Pure. Owns which objects are ours: those with our label, and those that stand under a name of ours without
another provider's. Never knows why something is wanted. Invariants: an object with another provider's label
is not touched, unless that one may be succeeded; nothing is deleted that has not our label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from enforcer.kube.answers import Json
from enforcer.obot.naming import LEFT_OUT, MANAGED_BY, SOURCE_NAME, SOURCE_SERVER, SOURCE_UID
from enforcer.obot.translation import Wishes

OUR_MARKS = (MANAGED_BY, SOURCE_NAME, SOURCE_SERVER, SOURCE_UID, LEFT_OUT)

Action = Literal["create", "adopt", "replace", "delete"]


class Change(NamedTuple):
    """One write; ``body`` is complete, with the resource version that it was made from."""

    action: Action
    name: str
    body: Json
    content: int
    """Equal for equal wishes, whatever stands there now."""


class Differences(NamedTuple):
    """What to write; what is there and should not be; and sentences about what must stay as it is."""

    changes: list[Change]
    orphans: list[str]
    blocked: list[str]


def differences(
    wanted: Wishes,
    live: Mapping[str, Json],
    served: Mapping[str, tuple[int, Json]],
    managed_by: str,
    succeeded: Sequence[str],
) -> Differences:
    """Compare. ``served``: what the API server made of a content when it was written (it may prune)."""
    changes: list[Change] = []
    blocked: list[str] = []
    for name, want in wanted.policies.items():
        content = hash_of(want.body)
        have = live.get(name)
        if have is None:
            changes.append(Change("create", name, want.body, content))
            continue
        owner = marks_of(have, "labels").get(MANAGED_BY)
        if owner is not None and owner != managed_by and owner not in succeeded:
            blocked.append(
                f"FirewallPolicy {name} is there already, and its label {MANAGED_BY} says {owner!r:.80}"
                "; delete it, or let that one be succeeded (adopt)"
            )
            continue
        if _stands(have, want.body, served.get(name), content):
            continue
        action: Action = "replace" if owner in (managed_by, None) else "adopt"
        changes.append(Change(action, name, merged(have, want.body), content))
    orphans = [
        name
        for name, have in live.items()
        if name not in wanted.policies
        and name not in wanted.kept
        and marks_of(have, "labels").get(MANAGED_BY) == managed_by
        and "deletionTimestamp" not in have["metadata"]
    ]
    return Differences(changes, orphans, blocked)


def _stands(have: Json, want: Json, served: tuple[int, Json] | None, content: int) -> bool:
    if merged(have, want)["metadata"] != have.get("metadata"):
        return False
    spec = have.get("spec")
    return spec == want["spec"] or (served is not None and served[0] == content and served[1] == spec)


def merged(have: Json, want: Json) -> Json:
    """Return ``want`` over ``have``: the whole spec, our marks, others' labels and annotations kept."""
    metadata = dict(have.get("metadata") or {})
    for group in ("labels", "annotations"):
        theirs = {key: value for key, value in marks_of(have, group).items() if key not in OUR_MARKS}
        together = theirs | want["metadata"][group]
        if together or group in metadata:
            metadata[group] = together
    return {**want, "metadata": metadata}


def marks_of(fields: Json, group: str) -> dict[str, str]:
    """Return the labels or annotations of an object."""
    metadata = fields.get("metadata")
    found = metadata.get(group) if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def hash_of(body: Json) -> int:
    """Return a hash of a JSON object; equal objects have equal ones within this process."""
    return hash(_frozen(body))


def _frozen(value: object) -> object:
    if isinstance(value, dict):
        return frozenset((key, _frozen(each)) for key, each in value.items())
    if isinstance(value, list):
        return tuple(_frozen(each) for each in value)
    return value
