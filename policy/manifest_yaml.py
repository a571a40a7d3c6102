"""YAML (and so JSON) text to plain values, bounded, and never more than the text says.

Owns the way from a file's bytes to documents of dict, list, str, int, float, bool and None. Never
knows what a document means, constructs no other type, follows no tag. Invariant: any bytes end in
documents and findings, in time and memory linear in their length; a document that cannot be read
hides no other one, because ``---`` at the start of a line divides a YAML stream wherever it stands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NoReturn

import msgspec
import yaml
from yaml.events import DocumentEndEvent, DocumentStartEvent

from policy.manifest_builder import MAX_DEPTH, MAX_NODES, Budget, Builder, Unreadable
from policy.manifest_findings import Finding, Place, Report

MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_DOCUMENTS = 50_000

_DIVIDER = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_NOTHING_YET = re.compile(r"\A(?:[ \t]*(?:#[^\n]*|%[^\n]*|\.\.\.[ \t]*)?\r?(?:\n|\Z))*\Z")
_NOT_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Document(msgspec.Struct, frozen=True):
    """One document of a file. ``number`` counts from 1. ``damaged``: keys were lost (duplicates)."""

    file: str
    number: int
    value: object
    damaged: bool = False


def read_documents(file: str, content: bytes | str) -> tuple[tuple[Document, ...], tuple[Finding, ...]]:
    """Divide a manifest file into documents. Total: whatever is wrong becomes a finding.

    Documents that are empty (nothing, or only comments) are left out but counted. Any error among
    the findings means that the file, as it is, could not be read completely.
    """
    whole = Report(file, 0)
    text = _decode(content, Place(whole))
    if text is None:
        return (), tuple(whole.findings)
    chunks = list(_divide(text))
    if len(chunks) > MAX_DOCUMENTS:
        Place(whole).error(f"the file holds more than {MAX_DOCUMENTS} documents", "divide the file")
        return (), tuple(whole.findings)
    documents: list[Document] = []
    findings: list[Finding] = []
    budget = Budget()
    number = 0
    for line, chunk in chunks:
        number += 1
        for document, report in _read_chunk(file, number, chunk, line, budget):
            number = report.document
            findings.extend(report.findings)
            if document is not None:
                documents.append(document)
    if not documents and not findings:
        Place(whole).warning("the file holds no document", "write a manifest into it, or remove it")
    return tuple(documents), tuple(whole.findings) + tuple(findings)


def _plain_json(text: str) -> dict[str, object] | None:
    """Read an object of plain JSON, a fifteenth of the work. None: read it as YAML, which says the same.

    Whatever YAML could see differently is left to it: escapes, fractions, keys that are long or stand twice.
    """
    if not text.isascii() or not _SIMPLE_JSON.match(text) or _ODD_JSON.search(text):
        return None
    if text.count("{") + text.count("[") > MAX_DEPTH or len(text) > MAX_NODES:
        return None
    try:
        value = _DECODER.decode(text.strip())
    except ValueError:  # _Odd too
        return None
    return value if isinstance(value, dict) else None


class _Odd(ValueError):
    """Something that is for YAML to read."""


def _refused(_: object) -> NoReturn:
    raise _Odd


def _integer(digits: str) -> int:
    if len(digits) > 18:
        raise _Odd
    return int(digits)


def _mapping(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs) or max(map(len, found), default=0) > 100:
        raise _Odd
    return found


_SIMPLE_JSON = re.compile(r"[ \n]*\{")
_ODD_JSON = re.compile(r'[\\\t\r\x00-\x09\x0b-\x1f\x7f]|"[ \n]*\n[ \n]*:')
_DECODER = json.JSONDecoder(
    object_pairs_hook=_mapping, parse_float=_refused, parse_int=_integer, parse_constant=_refused
)


def _read_chunk(
    file: str, number: int, chunk: str, first_line: int, budget: Budget
) -> Iterator[tuple[Document | None, Report]]:
    report = Report(file, number)
    value = _plain_json(chunk[3:] if chunk.startswith(("--- ", "---\n")) else chunk)
    if value is not None:
        yield Document(file, number, value), report
        return
    try:
        bad = _NOT_YAML.search(chunk)
        if bad is not None:
            message = f"the character U+{ord(bad[0]):04X} cannot stand in YAML"
            line = chunk.count("\n", 0, bad.start())
            raise Unreadable(message, "remove it, or write it as an escape in quotes", line)
        loader = _LOADER(chunk)
        builder = Builder(Place(report), budget)
        while (event := loader.get_event()) is not None:
            if isinstance(event, DocumentStartEvent):
                builder = Builder(Place(report), budget)
            elif isinstance(event, DocumentEndEvent):
                document = Document(file, report.document, builder.root, builder.damaged)
                yield (None if builder.root is None else document), report
                report = Report(file, report.document + 1)
            else:
                builder.feed(event)
    except Unreadable as problem:
        Place(report).error(f"{problem.message} (line {first_line + problem.line + 1})", problem.fix)
        yield None, report
    except yaml.YAMLError as problem:
        message, fix = _syntax(problem, first_line)
        Place(report).error(message, fix)
        yield None, report


def _syntax(problem: yaml.YAMLError, first_line: int) -> tuple[str, str]:
    """libyaml's words, the line in the file, and what usually is the cause."""
    words = str(getattr(problem, "problem", None) or "it cannot be read")
    mark = getattr(problem, "problem_mark", None)
    line = first_line + (mark.line if mark is not None else 0) + 1
    column = mark.column + 1 if mark is not None else 1
    fix = "correct the text there or on the lines before it: look for indentation, brackets and quotes"
    if "cannot start any token" in words:
        fix = "indent with spaces, never with tabs, and put values that begin with @, ` or % in quotes"
    elif "mapping values are not allowed" in words:
        fix = "put a value that contains ': ' in quotes, and indent the key like its neighbours"
    elif "escape code" in words:
        fix = "write the character itself instead of a surrogate pair of \\u escapes"
    return f"not YAML: {words} (line {line}, column {column})", fix


def _decode(content: bytes | str, place: Place) -> str | None:
    """The file's text, or None with a finding. A UTF-8 byte order mark is allowed."""
    if len(content) > MAX_FILE_BYTES:
        place.error(f"the file is larger than {MAX_FILE_BYTES // 2**20} MiB", "divide it into several files")
        return None
    if isinstance(content, str):
        return content.removeprefix("\ufeff")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        place.error("the file is UTF-16", "save it as UTF-8")
        return None
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        octet = content[problem.start]
        place.error(f"the file is not UTF-8: octet 0x{octet:02x} in line {line}", "save it as UTF-8")
        return None


def _divide(text: str) -> Iterator[tuple[int, str]]:
    """Yield (first line from 0, text) of each piece that ``---`` begins."""
    starts = [match.start() for match in _DIVIDER.finditer(text)]
    if not starts or _NOTHING_YET.match(text, 0, starts[0]) is None:
        starts.insert(0, 0)
    line = text.count("\n", 0, starts[0])
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        yield line, text[start:end]
        line += text.count("\n", start, end)
