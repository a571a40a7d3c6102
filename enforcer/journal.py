"""The journal: why the kernel holds what it holds, kept for the next enforcer.

Owns ``<runtimeDir>/journal``, JSON lines: a header (boot, generation), one line a grant request,
one a revocation. Never an authority: the next enforcer decides everything again and lets the
kernel say what is still open. Invariant: any prefix of the file, and any torn line in it, reads as
less knowledge, never as other knowledge.

Written after the kernel's ACK and before the answer leaves, one ``write`` a loop turn. No fsync:
what a power failure loses belongs to a boot that is over.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

GROWTH_BYTES = 16 * 1024 * 1024
"""What the file may grow beyond its last compaction before the next one."""
MAX_FILE_BYTES = 1024 * 1024 * 1024


class Answer(NamedTuple):
    """One name's addresses, opened for the identities with these tags, ``until`` (monotonic)."""

    tags: tuple[str, ...]
    name: str
    destinations: tuple[bytes, ...]
    until: float
    at: float


class Kept(NamedTuple):
    """How long an address was open because of a name, and since when."""

    until: float
    at: float


class Replayed(NamedTuple):
    """What a journal says: identity's tag → destination → name → until and since when; tags admitted."""

    boot_id: str
    generation: int
    answers: dict[str, dict[bytes, dict[str, Kept]]]
    admitted: frozenset[str]
    torn_lines: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[object, ...]).decode


class Journal:
    """Appends to the file; ``flush`` writes, ``compact_step`` rewrites it bit by bit."""

    def __init__(self, path: Path, boot_id: str) -> None:
        self._path = path
        self._boot_id = boot_id
        self._generation = 0
        self._lines: list[bytes] = []
        self._file = -1
        self._torn = False
        self._next = -1
        self._rest: Iterator[Answer] | None = None
        self.size_bytes = 0
        self._compact_at_bytes = GROWTH_BYTES

    def open(self, generation: int, tags: Iterable[str], answers: Iterable[Answer]) -> None:
        """Start the file anew with what is known now; ``OSError`` if the place cannot be written."""
        self._generation = generation
        self.begin_compaction(tags, answers)
        while self.compact_step(10_000):
            pass

    def granted(self, answer: Answer) -> None:
        """Note an acknowledged request."""
        self._lines.append(_line(answer))

    def revoked(self, tag: str, destination: bytes, names: Sequence[str]) -> None:
        """Note that these names open the destination no more."""
        self._lines.append(_encode(("r", tag, destination.hex(), names)))

    def admitted(self, tag: str) -> None:
        """Note that the kernel's sets hold an identity."""
        self._lines.append(_encode(("p", tag)))

    def gone(self, tag: str) -> None:
        """Note that an identity is over."""
        self._lines.append(_encode(("x", tag)))

    def published(self, generation: int) -> None:
        """Note the generation in force, so that no later one repeats it."""
        self._generation = generation
        self._lines.append(_encode(("n", generation)))

    def flush(self) -> None:
        """Write what was noted since the last call, as one piece; ``OSError`` loses that piece."""
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        data = b"\n".join(lines) + b"\n"
        if self._next >= 0:
            os.write(self._next, data)
        if self._torn:
            data = b"\n" + data
        self._torn = True
        written = os.write(self._file, data)
        self._torn = written != len(data)
        self.size_bytes += written

    @property
    def wants_compaction(self) -> bool:
        """True once the file has grown enough for ``begin_compaction``."""
        return self._rest is None and self.size_bytes > self._compact_at_bytes

    def begin_compaction(self, tags: Iterable[str], answers: Iterable[Answer]) -> None:
        """Begin a new file with who is admitted; until ``compact_step`` ends it, lines go to both."""
        self._next = _create(self._path.with_suffix(".next"))
        self._rest = iter(answers)
        head = [_encode(("h", 1, self._boot_id, self._generation)), *(_encode(("p", tag)) for tag in tags)]
        os.write(self._next, b"\n".join(head) + b"\n")

    def compact_step(self, count: int) -> bool:
        """Write up to ``count`` lines of what is known; False once the new file took the old one's place."""
        if self._rest is None:
            return False
        lines: list[bytes] = []
        for answer in self._rest:
            lines.append(_line(answer))
            if len(lines) == count:
                break
        if lines:
            os.write(self._next, b"\n".join(lines) + b"\n")
        if len(lines) == count:
            return True
        os.replace(self._path.with_suffix(".next"), self._path)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._next, self._rest = self._next, -1, None
        self.size_bytes = os.fstat(self._file).st_size
        self._compact_at_bytes = self.size_bytes + GROWTH_BYTES
        self._torn = False
        return False

    def close(self) -> None:
        """Write the rest and let go of the file."""
        self.flush()
        for descriptor in (self._file, self._next):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._next = -1


def _line(answer: Answer) -> bytes:
    tags, name, destinations, until, at = answer
    return _encode(("g", tags, name, [each.hex() for each in destinations], round(until, 3), round(at, 3)))


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)


def replay(path: Path, boot_id: str) -> Replayed:
    """Read a journal; one of another boot, or none, says nothing but its generation."""
    known = _Reading()
    try:
        with path.open("rb") as file:
            for line in file:
                known.take(line)
    except FileNotFoundError:
        pass
    if known.boot_id != boot_id:
        return Replayed(known.boot_id, known.generation, {}, frozenset(), known.torn_lines)
    return Replayed(boot_id, known.generation, known.answers, frozenset(known.admitted), known.torn_lines)


class _Reading:
    """Replays lines in order."""

    def __init__(self) -> None:
        self.boot_id = ""
        self.generation = 0
        self.answers: dict[str, dict[bytes, dict[str, Kept]]] = {}
        self.admitted: set[str] = set()
        self.torn_lines = 0

    def take(self, line: bytes) -> None:
        """Take one line; a torn or foreign one is counted and passed over."""
        if not line.strip():
            return
        try:
            self._understood(_decode(line))
        except (msgspec.MsgspecError, ValueError, TypeError, LookupError, UnicodeDecodeError):
            self.torn_lines += 1

    def _understood(self, said: tuple[object, ...]) -> None:
        match said:
            case (
                "g",
                list(tags),
                str(name),
                list(destinations),
                float() | int() as until,
                float() | int() as at,
            ):
                packed = [bytes.fromhex(str(each)) for each in destinations]
                for tag in tags:
                    self._granted(str(tag), name, packed, Kept(float(until), float(at)))
            case ("r", str(tag), str(destination), list(names)):
                of_destination = self.answers.get(tag, {}).get(bytes.fromhex(destination), {})
                for name in names:
                    of_destination.pop(str(name), None)
            case ("x", str(tag)):
                self.answers.pop(tag, None)
                self.admitted.discard(tag)
            case ("p", str(tag)):
                self.admitted.add(tag)
            case ("n", int(generation)):
                self.generation = max(self.generation, generation)
            case ("h", 1, str(boot_id), int(generation)):
                self.boot_id, self.generation = boot_id, max(self.generation, generation)
            case _:
                raise ValueError("no line of a journal")

    def _granted(self, tag: str, name: str, packed: list[bytes], kept: Kept) -> None:
        of_tag = self.answers.setdefault(tag, {})
        for destination in packed:
            of_destination = of_tag.setdefault(destination, {})
            before = of_destination.get(name)
            if before is None:
                of_destination[name] = kept
            elif kept.until > before.until:
                of_destination[name] = Kept(kept.until, before.at)
