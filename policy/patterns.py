"""Domain patterns: what a WebGroup may contain, and what it matches.

Owns the pattern language of policy.md "Domain patterns". Never looks at policies or clusters
(that ``*`` spares cluster names is the profile's business). Invariant: matching is label by
label, so ``*.example.com`` can never match ``evilexample.com``.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

import idna

from policy.names import MAX_LABEL_OCTETS, MAX_NAME_CHARACTERS, is_permittable, public_suffix

_SIMPLE = re.compile(r"(?:\*\.)?[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_PLAIN = re.compile(r"(?:\*\.)?(?:[a-z0-9_-]{1,63}\.)*(?!(?:[0-9]+|0x[0-9a-f]*)\Z)[a-z0-9_-]{1,63}")
_LABEL = re.compile(r"[a-z0-9_*-]+")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class PatternError(ValueError):
    """A text that is no pattern: ``message`` says what is wrong, ``fix`` what to write instead."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


class Pattern:
    """One parsed pattern. Immutable; equal when their canonical texts are equal."""

    __slots__ = ("exact", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.exact = "*" not in text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels from left to right; a leading ``*`` stands for one or more."""
        return tuple(self.text.split("."))

    def matches(self, name: str) -> bool:
        """Say whether the name (this package's form) is matched; names with odd octets never are."""
        if not is_permittable(name):
            return False
        labels = name.split(".")
        wanted = self.labels
        if wanted[0] == "*":
            wanted = wanted[1:]
            if len(labels) <= len(wanted):
                return False
            labels = labels[len(labels) - len(wanted) :]
        return len(labels) == len(wanted) and all(map(label_matches, wanted, labels))

    @property
    def over_broad(self) -> str | None:
        """Why the pattern permits names of many owners, or None."""
        if self.text == "*":
            return "it matches every name"
        rest = self.text.removeprefix("*.")
        if rest == self.text or "*" in rest or public_suffix(rest) != rest:
            return None
        return f"{rest} is a public suffix: anybody can register a name under it"


def label_matches(wanted: str, label: str) -> bool:
    """Match one label: ``*`` is any label, an inner ``*`` zero or more octets. Linear, no backtracking."""
    if "*" not in wanted:
        return wanted == label
    head, *middle, tail = wanted.split("*")
    if len(label) < len(head) + len(tail) or not (label.startswith(head) and label.endswith(tail)):
        return False
    at = len(head)
    end = len(label) - len(tail)
    for piece in middle:
        found = label.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def is_plain(text: str) -> bool:
    """Say whether a text is a pattern, in its canonical form, of the kind that nearly all have."""
    return len(text) <= MAX_NAME_CHARACTERS and _PLAIN.fullmatch(text) is not None


@lru_cache(maxsize=4096)
def parse_pattern(text: str) -> Pattern:
    """Parse one pattern: trimmed, case-blind, one trailing dot optional, IDNA 2008 (UTS 46).

    Raises ``PatternError`` for everything that policy.md refuses.
    """
    return Pattern(text) if is_plain(text) else _parsed(text)


def _parsed(text: str) -> Pattern:
    pattern = text.strip().lower()
    if not pattern.isascii():
        pattern = _to_ascii(pattern)
    _refuse_addresses_and_urls(pattern)
    pattern = pattern.removesuffix(".")
    if not pattern:
        raise PatternError("the domain is empty", "write a name such as api.example.com, or *.example.com")
    if len(pattern) > MAX_NAME_CHARACTERS:
        raise PatternError(
            f"the name has {len(pattern)} characters, more than {MAX_NAME_CHARACTERS}", "shorten it"
        )
    labels = pattern.split(".")
    if not _SIMPLE.fullmatch(pattern):
        _refuse_labels(labels)
        _refuse_wide_wildcards(labels)
    if _NUMBER.fullmatch(labels[-1]):
        raise PatternError(
            f"{pattern} ends in a number and would be read as an IP address",
            "write a domain name; for addresses use a SmartGroup with a cidr and a rule without webGroups",
        )
    return Pattern(pattern)


def _to_ascii(text: str) -> str:
    try:
        mapped = idna.uts46_remap(text, std3_rules=False, transitional=False)
        if mapped.count("*") > text.count("*"):
            raise PatternError(
                f"{text} contains a character that looks like *",
                "write * itself, if a wildcard is meant",
            )
        labels = []
        for label in mapped.split("."):
            if label.isascii():
                labels.append(label)
            elif "*" in label:
                raise PatternError(
                    f"the label {label} mixes * with non-ASCII characters, which have no octets to match",
                    "use * as a whole label, or write the label's xn-- form",
                )
            else:
                labels.append(idna.encode(label, uts46=True, std3_rules=True).decode("ascii"))
    except idna.IDNAError as error:
        raise PatternError(f"not a valid internationalized name: {error}", "write its xn-- form") from error
    return ".".join(labels)


def _refuse_addresses_and_urls(text: str) -> None:
    bare = text.strip("[]")
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        pass
    else:
        raise PatternError(
            f"{bare} is an IP address, not a domain",
            "use a SmartGroup with a cidr and a rule without webGroups",
        )
    scheme, found, rest = text.partition("://")
    if found:
        raise PatternError(f"{text} has a scheme ({scheme}://)", f"write only the name: {_host(rest)}")
    if "/" in text:
        raise PatternError(f"{text} has a path", f"write only the name: {_host(text)}")
    if ":" in text:
        raise PatternError(
            f"{text} has a port", f"write only the name, {_host(text)}, and the port in the rule's port"
        )


def _host(text: str) -> str:
    return text.partition("/")[0].rpartition("@")[2].partition(":")[0] or "api.example.com"


def _refuse_labels(labels: list[str]) -> None:
    name = ".".join(labels)
    for label in labels:
        if not label:
            raise PatternError(f"{name} has an empty label", "remove the extra dot")
        if "**" in label:
            raise PatternError(f"{name} has **", "one * at the start of a name already spans all labels")
        if len(label) > MAX_LABEL_OCTETS:
            raise PatternError(
                f"a label of {name} has {len(label)} octets, more than {MAX_LABEL_OCTETS}", "shorten it"
            )
        if not _LABEL.fullmatch(label):
            odd = next(character for character in label if not _LABEL.fullmatch(character))
            raise PatternError(
                f"{name!r} contains {odd!r}", "use letters, digits, hyphens, underscores, dots and *"
            )


def _refuse_wide_wildcards(labels: list[str]) -> None:
    """Refuse an inner or partial ``*`` that reaches into the registrable domain."""
    starred = [i for i, label in enumerate(labels) if "*" in label and (i > 0 or label != "*")]
    if not starred:
        return
    # The stars stand for labels nobody can know: any that no suffix rule names will do.
    stand_in = ".".join("x" if "*" in label else label for label in labels)
    suffix_length = public_suffix(stand_in).count(".") + 1
    if starred[-1] >= len(labels) - suffix_length - 1:
        name = ".".join(labels)
        whole = labels[-suffix_length:] if suffix_length < len(labels) else ["com"]
        ending = "example.com" if "*" in "".join(whole) else "example." + ".".join(whole)
        registered = ".".join(labels[-suffix_length - 1 :])
        raise PatternError(
            f"the * in {name} reaches into the registered part, {registered}: it would match other owners",
            f"keep * left of the registered name, as in *.{ending}",
        )
