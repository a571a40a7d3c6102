"""What a FirewallPolicy of Obot's is called and marked with.

Pure. Owns the names that other providers of Obot's use too, so that one can take the other's place.
Invariant: equal sources give equal names, on every machine and in every release.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

MANAGED_BY: Final = "obot.ai/managed-by"
SOURCE_NAME: Final = "obot.ai/mcp-network-policy-name"
SOURCE_SERVER: Final = "obot.ai/mcp-server-name"
SOURCE_UID: Final = "obot.ai/mcp-network-policy-uid"
LEFT_OUT: Final = "nameward.dev/left-out"
"""Annotation: what of the source could not be carried over, and why."""

OURS: Final = "nameward"
AVIATRIX: Final = "aviatrix-network-policy-controller"

_LONGEST: Final = 63
_DIGEST_CHARS: Final = 8
_ODD = re.compile(r"[^a-z0-9]+")
_LABEL = re.compile(r"[A-Za-z0-9](?:[-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?\Z")


def policy_name(source: str) -> str:
    """Return the FirewallPolicy's name for an MCPNetworkPolicy's: ``obot-SOURCE-fw``, at most 63 characters.

    A longer one is cut and ends in eight digits of the whole one's SHA-1 (a name, no protection).
    """
    base = _ODD.sub("-", source.lower()).strip("-")
    name = f"obot-{base}-fw"
    if len(name) <= _LONGEST:
        return name
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()[:_DIGEST_CHARS]
    room = _LONGEST - len("obot--fw-") - _DIGEST_CHARS
    return f"obot-{base[:room].strip('-')}-fw-{digest}"


def is_label(text: str) -> bool:
    """Say whether it can be a label's value."""
    return _LABEL.match(text) is not None
