"""Questions of many pods: how ``asking.c`` is called, and what it says.

Owns the call. Never judges. Invariant: what was not answered within 2.5 seconds is lost, and counted.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.loads.site import DEVICE, DNS, PODS, ZONE, pod_address, router
from benchmarks.loads.sources import built

OUTCOMES = ("answered", "nodata", "refused", "nxdomain", "servfail", "other")


class Timed(NamedTuple):
    """What became of the questions of one type. Latencies are of answers, in milliseconds."""

    sent: int
    lost: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class Asked(NamedTuple):
    """What became of a load, and of each type of question in it, in the order in which they were named."""

    sent: int
    seconds: float
    outcomes: dict[str, int]
    lost: int
    in_time: int
    types: Sequence[Timed]
    answered_by_pod: Sequence[int]

    @property
    def p99_ms(self) -> float:
        """Of the (first) type."""
        return self.types[0].p99_ms

    @property
    def max_ms(self) -> float:
        """Of the (first) type."""
        return self.types[0].max_ms

    @property
    def answered(self) -> int:
        """Answers with an address or without data."""
        return self.outcomes["answered"] + self.outcomes["nodata"]

    @property
    def served(self) -> float:
        """Answers a second, those left out that came when nobody asked any more."""
        return self.in_time / self.seconds if self.seconds else 0.0


class Asking:
    """A load under way; ``done`` waits for its end."""

    def __init__(self, argv: Sequence[str], nice: int, core: int | None) -> None:
        argv = ["ip", "netns", "exec", PODS, "nice", "-n", str(nice), *argv]
        argv = argv if core is None else ["taskset", "-c", str(core), *argv]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    def done(self) -> Asked:
        """Return what became of it."""
        out, _ = self._process.communicate()
        if self._process.returncode != 0:
            raise SystemExit("the generator failed; its message stands above")
        return _read(json.loads(out))


def _read(said: dict[str, Any]) -> Asked:
    return Asked(
        sent=said["sent"],
        seconds=said["seconds"],
        outcomes={name: said[name] for name in OUTCOMES},
        lost=said["sent"] - said["back"],
        in_time=said["in_time"],
        types=[
            Timed(
                sent=each["sent"],
                lost=each["sent"] - each["back"],
                p50_ms=each["p50_us"] / 1000,
                p99_ms=each["p99_us"] / 1000,
                max_ms=each["max_us"] / 1000,
            )
            for each in said["types"]
        ],
        answered_by_pod=[each[1] + each[2] for each in said["by_pod"]],
    )


def asking(
    *,
    seconds: float,
    rate: float = 0,
    window: int = 0,
    pods: range = range(1),
    name: str = f"h%u.{ZONE}",
    names: range = range(1),
    types: str = "1",
    warm_s: float = 0,
    most: int = 0,
    nice: int = 0,
    core: int | None = None,
) -> Asking:
    """Start to ask: ``rate`` a second of all pods (0: a closed load of ``window``; -1: all at once).

    ``types`` is the question's, or several that take turns (``16,1/20``: twenty of each).
    """
    argv = [
        built("asking"), DNS, seconds, rate, window, pod_address(pods.start), len(pods), name, names.start,
        len(names), types, warm_s, most, DEVICE, router(),
    ]  # fmt: skip
    return Asking([str(each) for each in argv], nice, core)


def asked(*, seconds: float, **load: Any) -> Asked:
    """Ask, and return what became of it."""
    return asking(seconds=seconds, **load).done()
