"""The bridge and what it hangs on, joined: two reflectors, two sides, one thread each.

Owns who knows whom, and the start and end of the threads. Decides nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from enforcer.kube.access import Access
from enforcer.kube.answers import Json
from enforcer.kube.client import Api, at
from enforcer.kube.reflector import Reflector
from enforcer.obot.bridge import Bridge, collection
from enforcer.obot.sides import Bell, ClusterSide, ObotSide, kept
from enforcer.obot.translation import Shape
from enforcer.records import Records

STORAGE_WATCH_S: Final = (50, 80)
"""The storage sends no bookmarks: a silent watch ends, and a LIST comes, before it seems dead."""
_AGENT: Final = "nameward-bridge"


class Joined:
    """What runs. ``died`` is called, from any thread, if one of them ends by a mistake."""

    def __init__(
        self,
        storage: Reflector[Json],
        policies: Reflector[Json],
        bridge: Bridge,
        bell: Bell,
        died: Callable[[], None],
    ) -> None:
        self.storage = storage
        self.policies = policies
        self.bridge = bridge
        self.bell = bell
        self._died = died
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, name="bridge", daemon=True)

    def start(self) -> None:
        """Begin."""
        for part in (self.policies, self.storage, self._thread):
            part.start()

    def stop(self, join_s: float) -> None:
        """End; waits at most so long for each thread."""
        self._is_ending = True
        self.bridge.stop()
        self.storage.stop(join_s)
        self.policies.stop(join_s)
        self._thread.join(join_s)

    def _run(self) -> None:
        try:
            self.bridge.run()
        finally:
            if not self._is_ending:
                self._died()


def join(
    *,
    storage: Access,
    storage_namespace: str,
    cluster: Access,
    shape: Shape,
    succeeded: Sequence[str],
    records: Records,
    now: Callable[[], float],
    died: Callable[[], None],
) -> Joined:
    """Make all parts; nothing runs yet."""
    bell = Bell()
    obot, here = ObotSide(bell, now, storage.token_file), ClusterSide(bell)
    api = Api(cluster, user_agent=_AGENT)
    listing: Reflector[Json] = Reflector(
        Api(storage, user_agent=_AGENT, timeout_s=10.0),
        sources_path(storage_namespace),
        obot,
        keep=_whole,
        name="storage",
        first_version=None,
        watch_s=STORAGE_WATCH_S,
        died=died,
    )
    policies: Reflector[Json] = Reflector(
        api, collection(shape.namespace), here, keep=kept, name="policies", died=died
    )
    bridge = Bridge(
        api=api,
        obot=obot,
        cluster=here,
        lister=listing,
        bell=bell,
        shape=shape,
        succeeded=succeeded,
        records=records,
        now=now,
    )
    return Joined(listing, policies, bridge, bell, died)


def sources_path(namespace: str) -> str:
    """Return the path of Obot's policies; the odd plural is Obot's."""
    return at("apis", "obot.obot.ai", "v1", "namespaces", namespace, "mcpnetworkpolicys")


def _whole(item: Json) -> Json:
    return item
