"""What the bridge knows of its two sides: the storage of Obot, and the FirewallPolicies of the cluster.

Owns what two reflectors say, from their threads, for the bridge on its own. Never writes anywhere. Invariant:
what Obot says is its last complete LIST; a change that its watch tells of only asks for the next one.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import NamedTuple

from enforcer.kube.answers import Json, Kind

_REFUSED = re.compile(r"refused: 40[13]\b")
"""Obot takes whoever has no good token for an anonymous one, and says 403."""


class Bell:
    """Wakes the bridge."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def ring(self) -> None:
        """End the wait, or the next one."""
        self._event.set()

    def wait(self, timeout_s: float) -> None:
        """Wait for a ring, so long at most."""
        self._event.wait(max(timeout_s, 0.0))
        self._event.clear()


class Heard(NamedTuple):
    """Obot's last LIST; ``lists`` grows with each. None: there was none yet."""

    sources: tuple[Json, ...] | None
    lists: int
    at: float


class ObotSide:
    """The sink of the reflector of MCPNetworkPolicies."""

    def __init__(self, bell: Bell, now: Callable[[], float], token_file: str) -> None:
        self._bell = bell
        self._now = now
        self._hint = f"; the token in {token_file} is missing, or this Obot does not know it"
        self._heard = Heard(None, 0, float("-inf"))
        self._is_outdated = False
        self.problem = ""

    @property
    def heard(self) -> Heard:
        """The last LIST."""
        return self._heard

    @property
    def is_outdated(self) -> bool:
        """Whether something has changed since the last LIST."""
        return self._is_outdated

    def replaced(self, items: list[Json], /) -> None:
        """See ``Sink``."""
        self._is_outdated = False
        self._heard = Heard(tuple(items), self._heard.lists + 1, self._now())
        self._bell.ring()

    def changed(self, kind: Kind, item: Json, /) -> None:  # noqa: ARG002 - the LIST says what
        """See ``Sink``."""
        self._is_outdated = True
        self._bell.ring()

    def trouble(self, sentence: str | None, /) -> None:
        """See ``Sink``."""
        hint = self._hint if sentence and _REFUSED.search(sentence) else ""
        self.problem = f"Obot's storage: {sentence}{hint}" if sentence else ""
        self._bell.ring()


class ClusterSide:
    """The sink of the reflector of FirewallPolicies, and what the bridge itself has just written."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._lock = threading.Lock()
        self._live: dict[str, Json] | None = None
        self.problem = ""

    def live(self) -> dict[str, Json] | None:
        """Return what stands, by name; None while that is not known."""
        with self._lock:
            return None if self._live is None else dict(self._live)

    def put(self, item: Json) -> None:
        """Take what the API server answered to a write of it."""
        with self._lock:
            if self._live is not None:
                self._live[name_of(item)] = kept(item)

    def drop(self, name: str) -> None:
        """Take that it was deleted."""
        with self._lock:
            if self._live is not None:
                self._live.pop(name, None)

    def replaced(self, items: list[Json], /) -> None:
        """See ``Sink``."""
        with self._lock:
            self._live = {name_of(item): item for item in items}
        self._bell.ring()

    def changed(self, kind: Kind, item: Json, /) -> None:
        """See ``Sink``."""
        if kind == "DELETED":
            self.drop(name_of(item))
        else:
            self.put(item)
        self._bell.ring()

    def trouble(self, sentence: str | None, /) -> None:
        """See ``Sink``."""
        self.problem = sentence or ""
        self._bell.ring()


def name_of(item: Json) -> str:
    """Return an object's name."""
    metadata = item.get("metadata")
    return str(metadata.get("name")) if isinstance(metadata, dict) else ""


def kept(item: Json) -> Json:
    """Return what of a FirewallPolicy is compared and written: not its status, not who wrote which field."""
    metadata = item.get("metadata")
    fields = dict(metadata) if isinstance(metadata, dict) else {}
    fields.pop("managedFields", None)
    return {"metadata": fields, "spec": item.get("spec")}
