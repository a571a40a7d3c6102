"""A source without a reactor, and what it has told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from enforcer.sources import Seen
from enforcer.sources.kubernetes.source import KubernetesSource


class Loop:
    """What the source needs of a reactor: calls are made at once, one at a time."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def seconds(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def callFromThread(self, call: Callable[..., object], /, *arguments: object) -> object:
        """Call it."""
        with self._lock:
            return call(*arguments)


class Told:
    """What the source has told; ``last`` is what counts."""

    def __init__(self, make: Callable[[Callable[[object], object]], KubernetesSource]) -> None:
        self.failures: list[object] = []
        self.source = make(self.failures.append)
        self.all: list[Seen] = []
        self.source.start(self.all.append)

    @property
    def last(self) -> Seen | None:
        """What was told last."""
        return self.all[-1] if self.all else None

    @property
    def pods(self) -> dict[str, tuple[str, ...]]:
        """Addresses by name of the pods."""
        return {} if self.last is None else {pod.name: pod.addresses for pod in self.last.loaded.pods}

    @property
    def policies(self) -> set[str]:
        """Names of the policies."""
        return set() if self.last is None else {each.name for each in self.last.loaded.policies}

    @property
    def problems(self) -> str:
        """All problems as one text."""
        return "" if self.last is None else "; ".join(self.last.problems)

    def is_complete(self) -> bool:
        """Whether everything was listed, or taken from the copy."""
        return self.last is not None and self.last.complete
