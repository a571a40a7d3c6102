"""The roll of nodes: who was ever here, and when last by Redis's clock.

Pure. Owns the text of one entry of the hash ``nodes``; it is how a node that is lost is still known. An
entry is sealed by itself, over the hash's key and its node.
"""

from __future__ import annotations

import re

from enforcer.sharing.records.seal import Keyring, NotBelieved, seal, sealed_octets

KEPT_MS = 24 * 3600 * 1000
"""A node not seen for so long is forgotten."""
_ENTRY = re.compile(rb"seen=([0-9]{1,15}) mac=([0-9a-f]{32})")


def seen_octets(keyring: Keyring, nodes: bytes, node: bytes, seen_ms: int) -> bytes:
    """Return the entry of a node in the hash ``nodes``."""
    said = b"seen=%d" % seen_ms
    return b"%b mac=%b" % (said, seal(keyring, nodes, {node: said}))


def seen_ms(keyring: Keyring, nodes: bytes, node: bytes, entry: bytes) -> int:
    """Return when a node was last here (Redis's clock, ms since 1970); ``NotBelieved`` otherwise."""
    found = _ENTRY.fullmatch(entry)
    if found is None:
        raise NotBelieved("malformed")
    said, mac = b"seen=" + found[1], found[2]
    if not keyring.knows(sealed_octets(nodes, {node: said}), mac):
        raise NotBelieved("mac")
    return int(found[1])
