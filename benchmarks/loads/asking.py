"""Questions of many pods: how ``asking.c`` is called, and what it says.

Owns the call. Never judges. Invariant: what was not answered within 2.5 seconds is lost, and counted.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.loads.site import DNS, PODS, ZONE, pod_address
from benchmarks.loads.sources import built

OUTCOMES = ("answered", "nodata", "refused", "nxdomain", "servfail", "other")


class Asked(NamedTuple):
    """What became of a load. Latencies are of answers, in milliseconds."""

    sent: int
    seconds: float
    outcomes: dict[str, int]
    lost: int
    p99_ms: float
    max_ms: float
    answered_by_pod: Sequence[int]

    @property
    def answered(self) -> int:
        """Answers with an address or without data."""
        return self.outcomes["answered"] + self.outcomes["nodata"]

    @property
    def served(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds if self.seconds else 0.0


class Asking:
    """A load under way; ``done`` waits for its end."""

    def __init__(self, argv: Sequence[str], nice: int) -> None:
        argv = ["ip", "netns", "exec", PODS, "nice", "-n", str(nice), *argv]
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
        p99_ms=said["p99_us"] / 1000,
        max_ms=said["max_us"] / 1000,
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
    qtype: int = 1,
    warm_s: float = 0,
    most: int = 0,
    nice: int = 0,
) -> Asking:
    """Start to ask: ``rate`` a second of all pods (0: a closed load of ``window``; -1: all at once)."""
    argv = [
        built("asking"), DNS, seconds, rate, window, pod_address(pods.start), len(pods), name, names.start,
        len(names), qtype, warm_s, most,
    ]  # fmt: skip
    return Asking([str(each) for each in argv], nice)


def asked(*, seconds: float, **load: Any) -> Asked:
    """Ask, and return what became of it."""
    return asking(seconds=seconds, **load).done()
