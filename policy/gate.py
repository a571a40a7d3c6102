"""The question by which a pod asks its node whether policy is enforced on it, and what it is told.

Pure. Owns a name and a few words: the resolver answers (to each pod about itself alone, as TXT), and
``nameward gate`` asks. The name is under ``invalid`` (RFC 6761), so that who asks where no Nameward is
gets NXDOMAIN everywhere. Invariant: what cannot be read says nothing of enforcement.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

NAME = "gate.nameward.invalid"
WIRE = b"\x04gate\x08nameward\x07invalid\x00"
TXT = 16
_LONGEST = 255
LONGEST_POD = _LONGEST - len("pod=")
"""What is said of a pod's name ends here: a string of TXT holds no more."""


class Said(NamedTuple):
    """What a pod is told of itself: ``namespace/name``, uid, policy's generation, whether it is enforced."""

    pod: str = ""
    uid: str = ""
    generation: int = 0
    is_governed: bool = False
    is_enforced: bool = False


def as_texts(said: Said) -> list[str]:
    """Say it as the strings of one TXT record."""
    return [
        f"pod={said.pod}",
        f"uid={said.uid}",
        f"generation={said.generation}",
        f"governed={'yes' if said.is_governed else 'no'}",
        f"enforced={'yes' if said.is_enforced else 'no'}",
    ]


def as_record(said: Said) -> bytes:
    """Return the RDATA of that TXT record (RFC 1035, 3.3.14)."""
    octets = [text.encode("ascii", "replace")[:_LONGEST] for text in as_texts(said)]
    return b"".join(bytes((len(each),)) + each for each in octets)


def read_texts(texts: Iterable[str]) -> Said:
    """Read it back; what is missing or is said otherwise is not enforced."""
    fields = dict(text.partition("=")[::2] for text in texts)
    generation = fields.get("generation", "")
    return Said(
        fields.get("pod", ""),
        fields.get("uid", ""),
        int(generation) if generation.isascii() and generation.isdigit() else 0,
        fields.get("governed") == "yes",
        fields.get("enforced") == "yes",
    )
