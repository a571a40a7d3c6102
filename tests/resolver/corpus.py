"""Reads the corpus of DNS messages (tests/corpus/dns-wire)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[1] / "corpus" / "dns-wire"


class Sample(NamedTuple):
    """One message: what it is, what is expected, its octets."""

    title: str
    expected: tuple[str, ...]
    wire: bytes


def read_samples(file: str) -> list[Sample]:
    """Read one file of the corpus."""
    samples = []
    title = ""
    for line in (FOLDER / file).read_text().splitlines():
        if line.startswith("#"):
            title = line[2:]
            continue
        *expected, octets = line.split(" ")
        samples.append(Sample(title, tuple(expected), bytes.fromhex(octets)))
    return samples
