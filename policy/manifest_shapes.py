"""Reading typed parts out of plain values: the one place where a wrong type becomes a finding.

Owns the checks that the API server's schema would make (types, enumerations, unknown fields, names,
labels). Never knows a field's meaning. Invariant: every function is total; None or an empty value
comes back exactly when a finding was made (or, where said, when the field is absent).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence

from policy.manifest_findings import Place, shown
from policy.pods import Labels

Fields = Mapping[str, object]

ABSENT: object = object()
"""What ``fields.get(name, ABSENT)`` gives for a field that is not there; null is there."""

_MAX_UNKNOWN = 8
_LABEL_NAME = re.compile(r"[A-Za-z0-9](?:[-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?\Z")
_DNS_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?\Z")
_NAME_PART = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?\Z")
_TYPES = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", int: "a whole number"}


def _wrong_type(value: object, wanted: type, place: Place) -> None:
    fix = f"write {_TYPES[wanted]}"
    if wanted is str and isinstance(value, (bool, int, float)):
        fix = f'put it in quotes: "{shown(value)}"'
    elif wanted is int and isinstance(value, str) and value.strip().isdecimal() and len(value) < 20:
        fix = f"write {int(value)} without quotes"
    elif wanted is int and isinstance(value, list) and len(value) == 1:
        fix = "write the number itself, not a list of it"
    elif wanted is bool and isinstance(value, str) and value.lower() in {"true", "false"}:
        fix = f"write {value.lower()} without quotes"
    elif wanted is list and isinstance(value, (dict, str)):
        fix = "write a list: each entry begins with '- '"
    place.error(f"{shown(value)} where {_TYPES[wanted]} belongs", fix)


def mapping(value: object, place: Place) -> Fields:
    """The mapping, or an empty one with a finding."""
    if isinstance(value, dict):
        return value
    _wrong_type(value, dict, place)
    return {}


def sequence(value: object, place: Place) -> list[object] | None:
    """The list, or None with a finding."""
    if isinstance(value, list):
        return value
    _wrong_type(value, list, place)
    return None


def text(value: object, place: Place) -> str | None:
    """The text, or None with a finding."""
    if isinstance(value, str):
        return value
    _wrong_type(value, str, place)
    return None


def boolean(value: object, place: Place) -> bool | None:
    """True or False, or None with a finding."""
    if isinstance(value, bool):
        return value
    _wrong_type(value, bool, place)
    return None


def whole_number(value: object, first: int, last: int, place: Place) -> int | None:
    """An integer between ``first`` and ``last``, or None with a finding."""
    if isinstance(value, bool) or not isinstance(value, int):
        _wrong_type(value, int, place)
        return None
    if not first <= value <= last:
        place.error(
            f"{shown(value)} is not between {first} and {last}", f"write a number from {first} to {last}"
        )
        return None
    return value


def choice(
    value: object, words: Sequence[str], place: Place, meant_by: Mapping[str, str] | None = None
) -> str | None:
    """One of the words, or None with a finding. ``meant_by`` maps other people's words to ours."""
    if isinstance(value, str):
        if value in words:
            return value
        meant = (meant_by or {}).get(value.strip().lower()) or place.nearest(value, words)
        listed = ", ".join(words)
        place.error(
            f"{shown(value)} is not one of {listed}", f"write {meant}" if meant else f"write one of {listed}"
        )
    else:
        place.error(f"{shown(value)} where a word belongs", f"write one of {', '.join(words)}")
    return None


def known_fields(fields: Fields, known: Sequence[str], place: Place, meant: Mapping[str, str]) -> None:
    """Report each field that is not known. ``meant`` maps wrong names people write to a fix."""
    unknown = [name for name in fields if name not in known]
    for name in unknown[:_MAX_UNKNOWN]:
        similar = place.nearest(name, known)
        fix = f"write {similar}" if similar else "remove it; the fields here are " + ", ".join(known)
        place.at(name).error(f"the field {shown(name)} is unknown here", meant.get(name, fix))
    if len(unknown) > _MAX_UNKNOWN:
        place.error(f"{len(unknown) - _MAX_UNKNOWN} more fields are unknown here", "remove them")


def labels(value: object, place: Place) -> Labels | None:
    """Kubernetes labels. Bad ones are reported and left out; None if it is no mapping at all."""
    if not isinstance(value, dict):
        _wrong_type(value, dict, place)
        return None
    good: Labels = {}
    for key, content in value.items():
        here = place.at(key)
        if not isinstance(content, str):
            _wrong_type(content, str, here)
        elif not _is_label_key(key):
            here.error(
                f"{shown(key)} is not a label's name", "write letters, digits, '-', '_', '.', at most 63"
            )
        elif content and _LABEL_NAME.match(content) is None:
            here.error(
                f"{shown(content)} is not a label's value",
                "write at most 63 letters, digits, '-', '_', '.', with a letter or digit at both ends",
            )
        else:
            good[key] = content
    return good


def _is_label_key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    return (not slash or is_object_name(prefix)) and _LABEL_NAME.match(name) is not None


def is_object_name(name: str) -> bool:
    """Say whether Kubernetes takes it as a name: like a DNS subdomain, but a part may have any length."""
    return len(name) <= 253 and all(_NAME_PART.match(part) for part in name.split("."))


def is_namespace_name(name: str) -> bool:
    """Say whether it is one DNS label."""
    return _DNS_LABEL.match(name) is not None


def ip_address(value: object, place: Place) -> str | None:
    """A canonical textual address, or None with a finding."""
    if not isinstance(value, str):
        _wrong_type(value, str, place)
        return None
    try:
        if "%" in value:
            raise ValueError(value)
        return str(ipaddress.ip_address(value))
    except ValueError:
        place.error(
            f"{shown(value)} is not an IP address", "write an IPv4 or IPv6 address without port or zone"
        )
        return None
