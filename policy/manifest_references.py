"""References of rules to groups: by name within the policy, by uuid to the built-in ones.

Owns that resolution. Never falls back to anything: a reference that cannot be resolved is an error at
the rule, and the rule's reader widens or refuses.
"""

from __future__ import annotations

from collections.abc import Mapping

from policy.manifest_findings import Place, shown
from policy.manifest_groups import ANYWHERE, PUBLIC, Group, SmartGroup, WebGroup
from policy.manifest_shapes import known_fields, mapping, sequence, text

_ANYWHERE_UUID = "def000ad-0000-0000-0000-000000000000"
_PUBLIC_UUID = "def000ad-0000-0000-0000-000000000001"
_ALL_WEB_UUID = "def000ad-0000-0000-0000-000000000002"
BUILT_IN_SMART_GROUPS = {_ANYWHERE_UUID: SmartGroup((ANYWHERE,)), _PUBLIC_UUID: SmartGroup((PUBLIC,))}
BUILT_IN_WEB_GROUPS = {_ALL_WEB_UUID: WebGroup(("*",))}
_BUILT_IN_NAMES = {
    _ANYWHERE_UUID: "the SmartGroup Anywhere",
    _PUBLIC_UUID: "the SmartGroup Public Internet",
    _ALL_WEB_UUID: "the WebGroup All-Web",
}


def referred(
    value: object, groups: Mapping[str, Group], built_in: Mapping[str, Group], kind: str, place: Place
) -> list[Group] | None:
    """The groups a rule refers to; None with a finding if any of them cannot be resolved.

    ``kind`` is "smartGroup" or "webGroup", for the messages.
    """
    listed = sequence(value, place)
    if listed is None:
        return None
    if not listed:
        place.error("an empty list: nothing is named here", f"name at least one {kind}")
        return None
    before = place.report.errors
    found = [_refer(item, groups, built_in, kind, place.at(index)) for index, item in enumerate(listed)]
    return [group for group in found if group is not None] if place.report.errors == before else None


def _refer(
    item: object, groups: Mapping[str, Group], built_in: Mapping[str, Group], kind: str, place: Place
) -> Group | None:
    fields = mapping(item, place)
    if not fields:
        if isinstance(item, dict):
            place.error("neither name nor uuid", f"write the name of a {kind} of this policy")
        return None
    known_fields(fields, ("name", "uuid"), place, {})
    if "name" in fields and "uuid" in fields:
        place.error("both name and uuid", "write one of the two")
        return None
    if "uuid" in fields:
        uuid = text(fields["uuid"], place.at("uuid"))
        group = built_in.get((uuid or "").lower())
        if uuid is not None and group is None:
            other = _BUILT_IN_NAMES.get(uuid.lower())
            what = f"is {other}, which cannot stand here" if other else "is not a built-in group"
            known = ", ".join(f"{key} ({_BUILT_IN_NAMES[key]})" for key in built_in)
            place.at("uuid").error(
                f"the uuid {shown(uuid)} {what}", f"define a {kind} here and name it; built in: {known}"
            )
        return group
    if "name" not in fields:
        return None
    name = text(fields["name"], place.at("name"))
    if name is not None and name not in groups:
        meant = place.nearest(name, groups)
        fix = (
            f"write {shown(meant)}"
            if meant
            else f"define it under spec.{kind}s; groups of a controller are not known"
        )
        place.at("name").error(f"there is no {kind} {shown(name)} in this policy", fix)
    return groups.get(name) if name is not None else None
