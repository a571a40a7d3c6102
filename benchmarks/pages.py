"""What a result becomes in the documents: the generated part of docs/performance.md, and its pictures.

Owns the part between the markers and ``docs/performance/*.svg``; the words around them are people's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.pictures import PICTURES, drawn
from benchmarks.rows import table

DOCS = Path(__file__).parent.parent / "docs"
PAGE, PICTURE_FOLDER = DOCS / "performance.md", DOCS / "performance"
BEGIN, END = "<!-- measured: begin (benchmarks --write-docs writes this) -->", "<!-- measured: end -->"


def section(result: Mapping[str, Any], pictures: list[str]) -> str:
    """Return the generated part: the machine, the table, the curves."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    titles = {picture.name: picture.title for picture in PICTURES}
    lines = [
        f"{result['machine']}; {result['kernel']}. {versions}.",
        "",
        table(result["rows"]),
        *(f"\n![{titles[name]}](performance/{name}.svg)" for name in pictures),
    ]
    return "\n".join(lines)


def between_markers(page: str, text: str) -> str:
    """Return the page with its generated part exchanged."""
    assert page.count(BEGIN) == page.count(END) == 1
    marked = re.escape(BEGIN) + ".*" + re.escape(END)
    return re.sub(marked, lambda _: f"{BEGIN}\n\n{text}\n\n{END}", page, flags=re.DOTALL)


def write_docs(result: Mapping[str, Any]) -> None:
    """Write the pictures of what was measured, then the page; pictures of earlier runs stay."""
    PICTURE_FOLDER.mkdir(exist_ok=True)
    curves = result.get("curves", {})
    for picture in PICTURES:
        if picture.name in curves:
            (PICTURE_FOLDER / f"{picture.name}.svg").write_text(drawn(picture, curves[picture.name]))
    there = [picture.name for picture in PICTURES if (PICTURE_FOLDER / f"{picture.name}.svg").exists()]
    PAGE.write_text(between_markers(PAGE.read_text(), section(result, there)))
