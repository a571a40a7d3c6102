"""Who ever was here: one field of one hash for each node, ``seen=<ms> mac=<hex>``.

Pure. Owns that text. The instant is Redis's clock; the seal is over the hash's key, the node and the
instant, so that no field can stand under another name. Invariant: what is read could have been written.
"""

from __future__ import annotations

import re

from enforcer.sharing.keys import Keys, place_of
from enforcer.sharing.seal import VERSION, Keyring, NotBelieved, check, seal

_SEEN = re.compile(rb"seen=([0-9]{1,15}) mac=([0-9a-f]{32})")


def seen_octets(keyring: Keyring, keys: Keys, seen_ms: int) -> bytes:
    """Return what a node writes under its name in ``keys.nodes``."""
    fields = _fields(keys.node.encode(), b"%d" % seen_ms)
    return b"seen=%d mac=%b" % (seen_ms, seal(keyring, keys.nodes, fields))


def seen_from(keyring: Keyring, keys: Keys, node: bytes, value: bytes) -> tuple[str, int]:
    """Return the node of a field and when it was seen last. ``NotBelieved`` if no node wrote it."""
    said = _SEEN.fullmatch(value)
    if said is None:
        raise NotBelieved("malformed")
    check(keyring, keys.nodes, {**_fields(node, said[1]), b"mac": said[2]})
    try:
        name = node.decode("ascii")
        place_of(keys.of(name).heartbeat)
    except ValueError:
        raise NotBelieved("malformed") from None
    return name, int(said[1])


def _fields(node: bytes, seen_ms: bytes) -> dict[bytes, bytes]:
    return {b"node": node, b"seen": seen_ms, b"v": VERSION}
