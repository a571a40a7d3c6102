"""What a benchmark says: rows with a figure, its peers, a goal and a verdict; the file and the table.

Owns the arithmetic (median, spread, ratio, when a verdict is refused) and the contract of
``results/latest.json``. Never measures. A verdict is only as good as its rounds: in each round every
candidate runs once, after the other, and what is judged is compared within its round, so that a machine
that is slow for a while is slow for all of them. Invariant: noise that could have changed a verdict
refuses it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.timing import Clock, OutOfTime

OWN = "Nameward"
"""The name under which a benchmark hands in its own runs."""
TIMES = "\N{MULTIPLICATION SIGN}"
ROUNDS = 5
"""Fewer rounds than this give no median worth a verdict."""
TOO_NOISY = 0.15
"""Up to this spread the median is judged; above it every round has to be clear of the goal."""
FAR_TOO_NOISY = 0.5
"""Above this spread nothing is judged: such rounds speak of the machine."""
FAILURES = (
    SystemExit, OSError, AssertionError, RuntimeError, ArithmeticError, LookupError, ValueError,
    subprocess.SubprocessError,
)  # fmt: skip
"""What ends one bench and no other: a server that does not start, figures that say nothing."""
Runs = Mapping[str, Sequence[float]]
"""The figures of each candidate, one a round."""


class Limit(NamedTuple):
    """One condition of a goal: the figure is at most (or at least) ``factor`` times that of ``of``.

    Without ``of`` the figure itself is limited, in the row's unit. ``per_own``: the limit is on the
    peer's figure divided by ours, which is how one says "25 times faster than".
    """

    factor: float
    of: str = ""
    at_least: bool = False
    per_own: bool = False

    def __str__(self) -> str:
        """As a goal is written."""
        if self.per_own:
            return f"{self.factor:g} {TIMES} less than {self.of}"
        sign = "≥" if self.at_least else "≤"
        return f"{sign} {self.factor:g}" + (f" {TIMES} {self.of}" if self.of else "")

    def holds(self, figure: float) -> bool:
        """Is the figure (a ratio, if the limit is on one) within the limit?"""
        return figure >= self.factor if self.at_least or self.per_own else figure <= self.factor

    def figures(self, runs: Runs) -> list[float]:
        """Return what is limited, by round."""
        if not self.of:
            return list(runs[OWN])
        pairs = zip(runs[OWN], runs[self.of], strict=True)
        return [peer / own if self.per_own else own / peer for own, peer in pairs]

    def figure(self, medians: Mapping[str, float]) -> float:
        """Return what is limited, of the medians."""
        own, peer = medians[OWN], medians[self.of] if self.of else 1.0
        return peer / own if self.per_own else own / peer

    def decided(self, runs: Runs, too_noisy: float, noise: float) -> tuple[bool | None, str]:
        """Return whether the limit holds, or None and why the noise leaves that open.

        Up to ``too_noisy`` the median says it. Above, every round has to lie on one side of the limit, and
        would still if it were moved towards it by as much as the middle half of the rounds lies apart.
        """
        rounds = self.figures(runs)
        found = {self.holds(figure) for figure in rounds}
        if noise <= too_noisy:
            return self.holds(self.figure({name: median(figures) for name, figures in runs.items()})), ""
        if noise > FAR_TOO_NOISY:
            return None, f"spread {noise:.0%} > {max(too_noisy, FAR_TOO_NOISY):.0%}"
        if len(found) > 1:
            return None, f"spread {noise:.0%} > {too_noisy:.0%}, rounds lie on both sides of {self}"
        if min(abs(figure - self.factor) for figure in rounds) < middle_half(rounds):
            return None, f"spread {noise:.0%} > {too_noisy:.0%}, rounds lie too near to {self}"
        return found.pop(), ""


@dataclass(frozen=True)
class Row:
    """One line of the result: the keys of the contract, and what explains them."""

    work: str
    unit: str
    value: float
    spread: float
    peers: dict[str, float]
    ratio: float | None
    goal: str
    met: bool | None
    note: str = ""
    limits: list[dict[str, Any]] = field(default_factory=list)
    runs: dict[str, list[float]] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """In words."""
        return {True: "met", False: "MISSED", None: "no verdict"}[self.met]

    def line(self) -> str:
        """As it is printed when it is done."""
        peers = ", ".join(f"{name} {figure:g}" for name, figure in self.peers.items())
        ratio = f", ratio {self.ratio:g}" if self.ratio is not None else ""
        head = f"{self.work}: {self.value:g} {self.unit} (spread {self.spread:.0%}{ratio})"
        note = f" — {self.note}" if self.note else ""
        return f"{head}; {peers or 'no peer'}; goal {self.goal or 'none'}: {self.verdict}{note}"


def median(figures: Sequence[float]) -> float:
    """Return the middle one."""
    return statistics.median(figures)


def middle_half(figures: Sequence[float]) -> float:
    """Return how far the middle half of the figures lies apart."""
    if len(figures) < 2:
        return 0.0
    low, _, high = statistics.quantiles(figures, n=4, method="inclusive")
    return high - low


def spread(figures: Sequence[float], of: float | None = None) -> float:
    """Return how far the middle half of the figures lies apart, as a share of their median, or of ``of``."""
    apart, whole = middle_half(figures), median(figures) if of is None else of
    return apart / abs(whole) if whole else float(apart != 0)


def rounded(figure: float) -> float:
    """Return four significant digits: more would not be measured."""
    return float(f"{figure:.4g}")


def judged(
    work: str,
    unit: str,
    runs: Runs,
    limits: Sequence[Limit] = (),
    *,
    base: str = "",
    goal: str = "",
    note: str = "",
    too_noisy: float = TOO_NOISY,
    of_goal: bool = False,
    refused: str = "",
) -> Row:
    """Make a row of all candidates' runs; ``base`` is the peer of its ratio (else the first limit's).

    ``goal`` is its text if the limits do not say it well. A limit on a peer that has no runs is left out
    and named. A row without runs of its own, without limits that could be judged, with too few rounds, with
    noise that could have changed its verdict, or ``refused`` for the reason given, has none, and says why.
    ``of_goal``: the spread is a share of the goal, as for a difference, whose median may be nothing.
    """
    measured = {name: list(figures) for name, figures in runs.items() if figures}
    notes = [note] if note else []
    text = goal or ", ".join(str(limit) for limit in limits)
    as_data = [limit._asdict() for limit in limits]
    if OWN not in measured:
        notes.append("not measured")
        return Row(work, unit, 0.0, 0.0, {}, None, text, None, "; ".join(notes), as_data, {})
    medians = {name: median(figures) for name, figures in measured.items()}
    absent = sorted({limit.of for limit in limits if limit.of and limit.of not in measured})
    if absent:
        notes.append(f"not measured: {', '.join(absent)}")
    judgeable = [limit for limit in limits if not limit.of or limit.of in measured]
    noises = [spread(limit.figures(measured), limit.factor if of_goal else None) for limit in judgeable]
    met: bool | None = None
    if refused:
        notes.append(refused)
    elif len(measured[OWN]) < ROUNDS:
        notes.append(f"{len(measured[OWN])} rounds are too few")
    elif judgeable:
        found = [
            each.decided(measured, too_noisy, noise) for each, noise in zip(judgeable, noises, strict=True)
        ]
        met = worst(one for one, _ in found)
        notes += [f"too noisy: {why}" for _, why in found if why]
    noise = max(noises, default=spread(measured[OWN]))
    base = base or next((limit.of for limit in judgeable if limit.of), "")
    peers = {name: rounded(figure) for name, figure in medians.items() if name != OWN}
    value = rounded(medians[OWN])
    ratio = rounded(value / peers[base]) if peers.get(base) else None
    every = {name: [rounded(figure) for figure in figures] for name, figures in measured.items()}
    return Row(work, unit, value, rounded(noise), peers, ratio, text, met, "; ".join(notes), as_data, every)


def worst(found: Iterable[bool | None]) -> bool | None:
    """Return the verdict of several limits that all have to hold: one that is missed misses the goal."""
    every = set(found)
    return False if False in every else None if None in every else True


def not_measured(work: str, unit: str, limits: Sequence[Limit], why: str) -> Row:
    """Make the row of what could not be measured here."""
    return judged(work, unit, {}, limits, note=why)


def interleaved(
    rounds: int, candidates: Mapping[str, Callable[[int], float]], *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Run A B C A B C …, each with the round's number; a round -1 before them warms up and is not kept."""
    runs: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(-1 if warm_up else 0, rounds):
        for name, measure in candidates.items():
            figure = measure(number)
            if number >= 0:
                runs[name].append(figure)
    return runs


@dataclass
class Plan:
    """What one run of the bench was asked for, and the points its curves are drawn from."""

    quick: bool = False
    rounds: int = ROUNDS
    curves: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)
    took_s: dict[str, float] = field(default_factory=dict)
    """Of each bench that was begun."""

    def sized(self, whole: int, quick: int) -> int:
        """Return the size of a load: that of a whole run, or of a quick one."""
        return quick if self.quick else whole

    def point(self, curve: str, series: str, x: float, y: float) -> None:
        """Keep a point of a picture (``pictures.PICTURES`` has their titles and axes)."""
        self.curves.setdefault(curve, {}).setdefault(series, []).append((x, rounded(y)))


class Bench(NamedTuple):
    """A benchmark in the registry: its name for ``--only``, and the function that yields its rows.

    It yields each row when it is done. ``quick``: is it in ``make bench-quick``? Modules that have some
    say so with ``ROWS: tuple[Bench, ...]`` and stand in ``registry.MODULES``.
    """

    name: str
    title: str
    quick: bool
    run: Callable[[Plan], Iterable[Row]]


def all_rows(
    benches: Iterable[Bench], plan: Plan, say: Callable[[str], None], failures: list[str], clock: Clock
) -> Iterator[Row]:
    """Run them, saying each row as it is done; one that cannot run is said too, and the next goes on.

    Without time left no other is begun, the one that runs is ended, and each has a row that says so.
    """
    for bench in benches:
        say(f"# {bench.name}: {bench.title}")
        if not clock.is_left():
            yield not_measured(bench.title, "", (), f"no time was left; --only {bench.name}")
            continue
        before_s = clock.gone_s()
        try:
            rows = iter(bench.run(plan))
            while row := _next(rows, clock):
                say(row.line())
                yield row
        except OutOfTime:
            yield not_measured(bench.title, "", (), f"the time was over; --only {bench.name}")
        except FAILURES as failure:
            failures.append(f"{bench.name}: {failure}")
            row = not_measured(bench.title, "", (), str(failure)[-500:])
            say(f"{bench.name} FAILED: {failure}")
            yield row
        plan.took_s[bench.name] = round(clock.gone_s() - before_s, 1)


def _next(rows: Iterator[Row], clock: Clock) -> Row | None:
    with clock.measuring():
        return next(rows, None)


def table(rows: Iterable[Row]) -> str:
    """Return the Markdown table."""
    lines = ["| work | measured | spread | peers | ratio | goal | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        peers = ", ".join(f"{name} {figure:g}" for name, figure in row.peers.items())
        ratio = f"{row.ratio:g}" if row.ratio is not None else ""
        verdict = f"{row.verdict}{f' ({row.note})' if row.note else ''}"
        cells = (row.work, f"{row.value:g} {row.unit}", f"{row.spread:.0%}", peers, ratio, row.goal, verdict)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def write(
    path: Path, rows: Sequence[Row], *, machine: str, kernel: str, versions: Mapping[str, str], **more: object
) -> None:
    """Write the contract's file, whole or not at all."""
    result = {
        "machine": machine,
        "kernel": kernel,
        "versions": dict(versions),
        "rows": [asdict(row) for row in rows],
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    new.replace(path)


def read(path: Path) -> dict[str, Any]:
    """Return the file's content, its rows as ``Row``."""
    result: dict[str, Any] = json.loads(path.read_text())
    result["rows"] = [Row(**row) for row in result["rows"]]
    return result
