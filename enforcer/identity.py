"""Whose address it is: the identity that grants hang on.

Nothing that was saved or installed under one identity counts under another: a new pod with an
old pod's address, another interface, another boot.
"""

from __future__ import annotations

from hashlib import blake2s
from typing import NamedTuple


class Identity(NamedTuple):
    """One address of one pod on this node. ``source`` is packed."""

    source: bytes
    interface: str
    uid: str
    boot_id: str
    key: str
    """``namespace/name`` of the pod: for records, not for identity."""

    @property
    def namespace(self) -> str:
        """The pod's namespace."""
        return self.key.partition("/")[0]

    @property
    def pod(self) -> str:
        """The pod's name."""
        return self.key.partition("/")[2]

    def tag(self) -> str:
        """Eight hex digits of the identity: the id in an element's comment."""
        said = b"\0".join((self.source, self.interface.encode(), self.uid.encode(), self.boot_id.encode()))
        return blake2s(said, digest_size=4).hexdigest()


COMMENT_BYTES = 120
"""Octets of an element's comment: each costs kernel memory, once a grant and once its twin."""


def comment_start(policy: str, rule: str) -> bytes:
    """Return how the comments of a rule's grants begin."""
    return f"{policy}/{rule}|".encode("utf-8", "replace")


def comment_end(tag: str) -> bytes:
    """Return how the comments of an identity's grants end."""
    return b"#" + tag.encode()


def comment_of(start: bytes, name: str, end: bytes) -> bytes:
    """Put a comment together; what is too long loses the end of its name."""
    said = start + name.encode("utf-8", "replace")
    if len(said) > COMMENT_BYTES - 9:
        said = said[: COMMENT_BYTES - 9].decode("utf-8", "ignore").encode()
    return said + end


def comment(tag: str, policy: str, rule: str, name: str) -> bytes:
    """Return ``policy/rule|name`` (truncated) and the identity's tag, as an element carries them."""
    return comment_of(comment_start(policy, rule), name, comment_end(tag))


def tag_of(text: bytes) -> str:
    """Return the identity's tag in an element's comment; "" if it has none."""
    _, mark, tag = text.rpartition(b"#")
    return tag.decode("ascii", "replace") if mark and len(tag) == 8 else ""
