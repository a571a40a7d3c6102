"""A reactor whose only loop is the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class FakeReactor:
    """Calls from threads wait until the test runs them."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], None]] = []

    def callFromThread(self, call: Callable[..., None], *arguments: Any) -> None:
        """Twisted's."""
        self._calls.append(lambda: call(*arguments))

    def run(self) -> None:
        """Run what has come."""
        while self._calls:
            self._calls.pop(0)()
