"""Findings: what is wrong in a manifest, exactly where, and what to write instead.

Owns the value `Finding` and the bookkeeping while one document is read. Never decides what a
mistake means. Invariant: nothing of the user's text reaches a message unescaped or at length, and
one document yields a bounded number of findings, however many mistakes it holds.
"""

from __future__ import annotations

import difflib
import heapq
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import msgspec

Severity = Literal["error", "warning"]

MAX_FINDINGS = 100
"""Findings kept per document; the count of errors goes on beyond it."""

MAX_MEANT = 20
"""Findings of a document beyond which nobody is told what he probably meant…"""
_MAX_CANDIDATES = 32
"""…and among how many words that is looked for: comparing texts is slow, and their author may choose them."""
_MAX_SHOWN = 60
_MAX_WORDS = 600


class Finding(msgspec.Struct, frozen=True, rename="camel"):
    """One finding of ``nameward check``.

    ``document`` counts from 1 as YAML counts documents, 0 is the file as a whole. ``pointer`` is
    an RFC 6901 JSON pointer into that document, exact and therefore unescaped: a printer to a
    terminal escapes it. ``message`` and ``fix`` are printable ASCII apart from our own words.
    """

    file: str
    document: int
    pointer: str
    severity: Severity
    message: str
    fix: str


@dataclass(slots=True)
class Report:
    """The findings of one document while it is read. ``errors`` counts all errors, kept or not."""

    file: str
    document: int
    errors: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, pointer: str, severity: Severity, message: str, fix: str) -> None:
        """Keep a finding; beyond the bound a last one says that there are more."""
        if severity == "error":
            self.errors += 1
        if len(self.findings) < MAX_FINDINGS:
            words = (printable(message), printable(fix))
            self.findings.append(Finding(self.file, self.document, pointer, severity, *words))
        elif len(self.findings) == MAX_FINDINGS:
            more = f"this document has more findings than the {MAX_FINDINGS} listed"
            self.findings.append(Finding(self.file, self.document, "", "error", more, "correct these first"))


class Place(msgspec.Struct, frozen=True):
    """A place in a document. In a ``lenient`` place mistakes have no effect: they are warnings.

    Each value that is read has one, and hardly any is ever named: its pointer is written when it is.
    """

    report: Report
    steps: tuple[str | int, ...] = ()
    lenient: bool = False

    def at(self, *steps: str | int) -> Place:
        """The place that many steps further down."""
        return Place(self.report, self.steps + steps, self.lenient)

    def without_effect(self) -> Place:
        """The same place, where mistakes are warnings."""
        return Place(self.report, self.steps, lenient=True)

    @property
    def pointer(self) -> str:
        """The RFC 6901 JSON pointer to it."""
        return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in self.steps)

    def error(self, message: str, fix: str) -> None:
        """Something here is not understood."""
        self.report.add(self.pointer, "warning" if self.lenient else "error", message, fix)

    def warning(self, message: str, fix: str) -> None:
        """Something here is understood, and probably not what the author means."""
        self.report.add(self.pointer, "warning", message, fix)

    def nearest(self, word: str, known: Iterable[str]) -> str | None:
        """Return the known word that was probably meant; None also where there are many findings already."""
        return nearest(word, known) if len(self.report.findings) < MAX_MEANT else None

    @property
    def origin(self) -> str:
        """``file#document/pointer``: what `Policy.source` holds."""
        return f"{self.report.file}#{self.report.document}{self.pointer}"


def steps_of(pointer: str) -> tuple[str, ...]:
    """Return the steps of an RFC 6901 JSON pointer."""
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])


def printable(words: str) -> str:
    """The words as printable ASCII, at most a few lines of them."""
    if not (words.isascii() and words.isprintable()):
        words = json.dumps(words)[1:-1].replace('\\"', '"').replace("\x7f", "\\u007f")
    return words if len(words) <= _MAX_WORDS else words[:_MAX_WORDS] + "..."


def shown(value: object) -> str:
    """A short, quoted, printable-ASCII picture of any value, for a message."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, str):
        cut = value if len(value) <= _MAX_SHOWN else value[:_MAX_SHOWN] + "..."
        return json.dumps(cut).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= 1 << 256:
        return "a huge number"
    return str(value)[:_MAX_SHOWN]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` was probably meant to be, or None."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    folded = word[:_MAX_SHOWN].casefold()
    if folded in by_folded:
        return by_folded[folded]
    alike = heapq.nsmallest(_MAX_CANDIDATES, by_folded, key=lambda each: abs(len(each) - len(folded)))
    close = difflib.get_close_matches(folded, alike, n=1, cutoff=0.6)
    return by_folded[close[0]] if close else None
