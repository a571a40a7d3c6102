"""The bridge as its process joins it, between a storage of Obot's and a real API server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from enforcer.kube.access import Access
from enforcer.kube.client import Api
from enforcer.kube.reflector import Reflector
from enforcer.obot.bridge import Bridge, collection
from enforcer.obot.joining import Joined, join
from enforcer.obot.naming import AVIATRIX
from enforcer.obot.translation import Shape
from enforcer.records import Level
from tests.obot.storage import Storage

Json = dict[str, Any]
WITHIN_S = 30.0


class Told:
    """What the bridge tells."""

    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, object]]] = []

    def tell(
        self,
        event: str,
        level: Level = "info",
        *,
        fields: Mapping[str, object] | None = None,
        reason: str = "",
    ) -> None:
        """Keep it."""
        self.all.append((event, {**(fields or {}), "reason": reason}))

    def is_told(self, level: Level) -> bool:
        """All of it."""
        return True


class Rig:
    """One running bridge. ``ahead_s`` is how far its clock is ahead of the real one."""

    def __init__(
        self,
        folder: Path,
        storage: Storage,
        access: Access,
        namespace: str,
        *,
        always: tuple[str, ...] = (),
        adopt: tuple[str, ...] = (AVIATRIX,),
        fingerprint: str = "",
    ) -> None:
        self.storage = storage
        self.told = Told()
        self.ahead_s = 0.0
        self.token_file = folder / "apiKey"
        self.token_file.write_text("osa1-1-first")
        self.ended: list[str] = []
        self._api = Api(access)
        self.path = collection(namespace)
        self.joined: Joined = join(
            storage=Access(
                server=storage.url,
                token_file=str(self.token_file),
                insecure=not fingerprint,
                fingerprint=fingerprint,
            ),
            storage_namespace="default",
            cluster=access,
            shape=Shape(namespace, "nameward", always),
            succeeded=adopt,
            records=self.told,
            now=lambda: time.monotonic() + self.ahead_s,
            died=lambda: self.ended.append("died"),
        )

    def __enter__(self) -> Rig:
        self.joined.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.joined.stop(10.0)
        assert self.ended == []

    @property
    def bridge(self) -> Bridge:
        """The bridge itself."""
        return self.joined.bridge

    @property
    def watch_of_storage(self) -> Reflector[Json]:
        """What lists and watches the storage."""
        return self.joined.storage

    def later(self, seconds: float) -> None:
        """Let time pass, for the bridge alone."""
        self.ahead_s += seconds
        self.joined.bell.ring()

    def policies(self) -> dict[str, Json]:
        """The FirewallPolicies that stand, by name."""
        return {item["metadata"]["name"]: item for item in self._api.list(self.path).items}

    def domains(self) -> dict[str, list[str]]:
        """What is permitted, by name; without a permit: []."""
        return {name: domains_of(item) for name, item in self.policies().items()}

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until it holds, half a minute at most."""
        until(holds, lambda: f"{what}; problems: {self.bridge.problems}; policies: {self.domains()}")


def domains_of(item: Json) -> list[str]:
    """The domains that a FirewallPolicy permits."""
    return [domain for group in item["spec"].get("webGroups", ()) for domain in group["domains"]]


def until(holds: Callable[[], bool], what: Callable[[], str]) -> None:
    """Wait until it holds, half a minute at most."""
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)
