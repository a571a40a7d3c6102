"""The domains of an MCPNetworkPolicy, as a FirewallPolicy can hold them.

Pure. Obot stores what people typed: with blanks, in capitals, twice, and some that mean nothing to a
resolver. Invariant: what comes out parses as a pattern and permits what the text said, nothing else;
what does not parse is left out with a reason, and never turns the rest into more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from policy.manifest_findings import shown
from policy.patterns import PatternError, parse_pattern

MAX_DOMAINS: Final = 4096
"""In one FirewallPolicy: what its schema takes. Obot has no limit."""
_LONGEST: Final = 1000
_MAX_SAID: Final = 20
EVERY_NAME: Final = "*"


class Domains(NamedTuple):
    """Canonical patterns, sorted, each once; and sentences about what was left out (some twenty at most)."""

    patterns: tuple[str, ...]
    left_out: tuple[str, ...]


def read_domains(listed: Iterable[object]) -> Domains:
    """Read what Obot stored (or an administrator wrote)."""
    found: set[str] = set()
    left_out = []
    for item in listed:
        if not isinstance(item, str) or len(item) > _LONGEST:
            left_out.append(f"{shown(item)} is no domain")
            continue
        try:
            found.add(parse_pattern(item).text)
        except PatternError as problem:
            left_out.append(problem.message)
    patterns = sorted(found)
    if len(patterns) > MAX_DOMAINS:
        left_out.insert(
            0, f"{len(patterns) - MAX_DOMAINS} domains beyond the first {MAX_DOMAINS} are left out"
        )
    if len(left_out) > _MAX_SAID:
        left_out[_MAX_SAID:] = [f"{len(left_out) - _MAX_SAID} more domains are left out"]
    return Domains(tuple(patterns[:MAX_DOMAINS]), tuple(left_out))
