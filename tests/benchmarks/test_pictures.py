"""Curves are well-formed, bounded, and name their lines and axes."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from benchmarks.pictures import HEIGHT, MAX_POINTS, MAX_SERIES, PICTURES, WIDTH, Picture, drawn

SVG = "{http://www.w3.org/2000/svg}"


def elements(svg: str, kind: str) -> list[ET.Element]:
    """All of one kind."""
    return list(ET.fromstring(svg).iter(f"{SVG}{kind}"))


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_picture_names_its_axes_and_its_lines(picture: Picture) -> None:
    """In text, at the line's end."""
    svg = drawn(
        picture, {"Nameward": [(10, 5.0), (100, 6.0), (1000, 7.5)], 'P99 <&> "x"': [(10, 0.2), (100, 9)]}
    )
    texts = [element.text or "" for element in elements(svg, "text")]
    assert {picture.title, picture.x, picture.y} <= set(texts)
    assert "Nameward: 7.5" in texts
    assert 'P99 <&> "x": 9' in texts
    assert len(elements(svg, "polyline")) == 2
    assert len(elements(svg, "circle")) == 5


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(1, 1)],
        [(0, 0), (0, 0)],
        [(5, -3), (7, 0)],
        [(1, math.nan), (2, math.inf), (3, 4)],
        [(1e9, 1e-9), (2, 1e12)],
    ],
    ids=str,
)
def test_strange_points_still_lie_within_the_picture(points: list[tuple[float, float]]) -> None:
    """None, one, equal, negative, not finite, far apart."""
    for picture in PICTURES:
        svg = drawn(picture, {"line": points})
        for element in elements(svg, "circle"):
            assert 0 <= float(element.attrib["cx"]) <= WIDTH
            assert 0 <= float(element.attrib["cy"]) <= HEIGHT
        assert len(elements(svg, "line")) < 40


def test_a_picture_is_bounded() -> None:
    """More series and points than can be told apart are not drawn."""
    many = {f"line {n}": [(float(x + 1), float(x * n)) for x in range(1000)] for n in range(50)}
    svg = drawn(PICTURES[0], many)
    assert len(elements(svg, "polyline")) == MAX_SERIES
    assert len(elements(svg, "circle")) == MAX_SERIES * MAX_POINTS
    assert len(svg) < 100_000


def test_labels_do_not_lie_on_each_other() -> None:
    """Four lines that end at the same point."""
    svg = drawn(PICTURES[0], {name: [(1, 5.0), (2, 5.0)] for name in "abcd"})
    places = sorted(float(e.attrib["y"]) for e in elements(svg, "text") if (e.text or "").endswith(": 5"))
    assert len(places) == 4
    assert min(b - a for a, b in pairwise(places)) >= 15
