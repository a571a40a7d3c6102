"""What an unquoted YAML scalar means, as Kubernetes' own YAML reader takes it.

Owns that one table. Never guesses: dates and base-60 numbers stay text, as they do for kubectl.
"""

from __future__ import annotations

import re

_WORDS: dict[str, bool | None] = {
    word: value
    for value, words in (
        (True, ("true", "yes", "on")),
        (False, ("false", "no", "off")),
        (None, ("null",)),
    )
    for base in words
    for word in (base, base.capitalize(), base.upper())
} | {"": None, "~": None}
_INTEGER = re.compile(r"[-+]?(?:0b[01][01_]*|0o?[0-7][0-7_]*|0x[0-9a-fA-F][0-9a-fA-F_]*|0|[1-9][0-9_]*)\Z")
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?)\Z"
)
_SPECIAL = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")
_MAX_DIGITS = 40


def plain_value(text: str) -> str | int | float | bool | None:
    """The value of an unquoted scalar; an integer too long for any field becomes a float."""
    if text in _WORDS:
        return _WORDS[text]
    first = text[0]
    if not (first.isdigit() or first in "+-."):
        return text
    if _INTEGER.match(text):
        return _integer(text)
    if _FLOAT.match(text):
        return float(text.replace("_", ""))
    if _SPECIAL.match(text):
        return float(text.replace(".", "", 1))
    return text


def _integer(text: str) -> int | float:
    digits = text.replace("_", "")
    if len(digits) > _MAX_DIGITS:
        return float("inf")
    sign = -1 if digits[0] == "-" else 1
    digits = digits.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
        digits = "0o" + digits[1:]
    return sign * int(digits, 0)
