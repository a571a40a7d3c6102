"""Curves as SVG: plain text, readable on light and on dark, each line named where it ends.

Owns the drawing and the list of pictures. Never measures. Invariant: a picture's size and its number of
elements are bounded, whatever the points are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 50, 55
MAX_SERIES, MAX_POINTS = 6, 64
TICKS = 5
LABEL_APART = 16
LIGHT = ("#1f6feb", "#b35900", "#1a7f37", "#8250df", "#bf3989", "#57606a")
DARK = ("#79b8ff", "#ffab70", "#7ee787", "#d2a8ff", "#ff9bce", "#b1bac4")
Points = Sequence[tuple[float, float]]


class Picture(NamedTuple):
    """One picture: the file's name, what it shows, its axes."""

    name: str
    title: str
    x: str
    y: str
    log_x: bool = True
    log_y: bool = False


PICTURES = (
    Picture(
        "policies", "CPU of a cached answer by the number of policies", "policies of 100 names", "µs a query"
    ),
    Picture("policy-change", "From a policy's change to the kernel", "policies", "ms", log_y=True),
    Picture("added-latency", "Latency that the hold adds", "misses a second", "ms"),
    Picture(
        "scaling",
        "Answers a second by resolver processes",
        "resolver processes",
        "answers a second",
        log_x=False,
    ),
)


def drawn(picture: Picture, series: Mapping[str, Points]) -> str:
    """Return the picture as an SVG document."""
    lines = {
        name: sorted((x, y) for x, y in points if math.isfinite(x) and math.isfinite(y))[:MAX_POINTS]
        for name, points in list(series.items())[:MAX_SERIES]
    }
    lines = {name: points for name, points in lines.items() if points}
    every = [point for points in lines.values() for point in points] or [(1.0, 1.0)]
    across = _Axis([x for x, _ in every], LEFT, WIDTH - RIGHT, log=picture.log_x)
    up = _Axis([y for _, y in every], HEIGHT - BOTTOM, TOP, log=picture.log_y, from_zero=not picture.log_y)
    parts = [_head(picture)]
    parts += _grid(across, up, [x for x, _ in every])
    ends = _apart([up.place(points[-1][1]) for points in lines.values()])
    for number, ((name, points), end) in enumerate(zip(lines.items(), ends, strict=True)):
        at = " ".join(f"{across.place(x):.1f},{up.place(y):.1f}" for x, y in points)
        parts.append(f'<polyline class="line c{number}" points="{at}"/>')
        parts += [
            f'<circle class="dot f{number}" cx="{across.place(x):.1f}" cy="{up.place(y):.1f}" r="3"/>'
            for x, y in points
        ]
        text = f"{name}: {_short(points[-1][1])}"
        parts.append(
            f'<text class="f{number}" x="{WIDTH - RIGHT + 10}" y="{end + 4:.1f}">{_safe(text)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


class _Axis:
    """From values to pixels."""

    def __init__(
        self, values: Sequence[float], start: float, end: float, *, log: bool, from_zero: bool = False
    ) -> None:
        self.log = log and min(values) > 0
        low, high = min(values), max(values)
        if from_zero and not self.log:
            low, high = min(low, 0.0), high * 1.1
        if low == high:
            low, high = (low / 2, high * 2) if self.log else (low - 1, high + 1)
        self.start, self.end = start, end
        self.low, self.high = self._scaled(low), self._scaled(high)

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def place(self, value: float) -> float:
        """Return the pixel of a value."""
        share = (self._scaled(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round values within the axis: powers of ten on a logarithmic one."""
        if self.log:
            found = [10.0**power for power in range(math.ceil(self.low), math.floor(self.high) + 1)]
            return found[:12] if len(found) > 1 else [10.0**self.low, 10.0**self.high]
        rough = (self.high - self.low) / TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        first = math.ceil(self.low / step)
        return [step * number for number in range(first, math.floor(self.high / step) + 1)]


def _head(picture: Picture) -> str:
    def colours(palette: Sequence[str]) -> str:
        return "".join(f".c{n}{{stroke:{colour}}}.f{n}{{fill:{colour}}}" for n, colour in enumerate(palette))

    title = _safe(picture.title)
    middle = (LEFT + WIDTH - RIGHT) // 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" aria-label="{title}">\n<title>{title}</title>\n<style>'
        f"text{{font:13px sans-serif}}.ink{{fill:#1f2328}}.grid{{stroke:#8c959f;stroke-opacity:.35}}"
        f".line{{fill:none;stroke-width:2}}{colours(LIGHT)}"
        f"@media (prefers-color-scheme:dark){{.ink{{fill:#e6edf3}}{colours(DARK)}}}</style>\n"
        f'<text class="ink" x="{LEFT}" y="24" font-weight="bold">{title}</text>\n'
        f'<text class="ink" x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">{_safe(picture.x)}</text>\n'
        f'<text class="ink" x="{LEFT - 50}" y="42">{_safe(picture.y)}</text>'
    )


def _grid(across: _Axis, up: _Axis, xs: Sequence[float]) -> list[str]:
    parts = []
    for value in up.ticks():
        y = up.place(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="ink" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}</text>'
        )
    measured = sorted(set(xs))
    for value in measured if len(measured) <= 8 else across.ticks():
        x = across.place(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        at = f'x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle"'
        parts.append(f'<text class="ink" {at}>{_short(value)}</text>')
    return parts


def _apart(places: Sequence[float]) -> list[float]:
    """Move labels that would lie on each other apart, keeping their order."""
    found = list(places)
    last = -math.inf
    for index in sorted(range(len(found)), key=lambda index: places[index]):
        found[index] = last = max(found[index], last + LABEL_APART)
    over = max([*found, 0.0]) - (HEIGHT - BOTTOM)
    return [place - over for place in found] if over > 0 else found


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _safe(text: str) -> str:
    return escape(text[:80], {'"': "&quot;"})
