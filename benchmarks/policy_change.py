"""``python -m benchmarks.policy_change [POLICIES ...]``: what one edit costs, part by part, beside the total.

In one process, without kernel and API server: an object read and assembled, the world compiled, sent to
the resolver and compiled there. Each figure is the processor time of the median edit, in milliseconds.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import obot
from benchmarks.obot import Json
from enforcer.sources.kubernetes.kinds import BY_KIND
from enforcer.sources.kubernetes.store import Store, only_needed
from enforcer.worlds import is_same, world_of
from policy.compilation import Memory
from policy.manifest import EVERY_NAMESPACE, Loaded
from policy.manifest_assembly import Assembly
from policy.publication import Publication, held
from policy.runtime.framing import MAX_TO_RESOLVER_BYTES, encode, resolver_decoder
from policy.runtime.settings import load_settings
from policy.snapshot import Snapshot, compile_snapshot
from policy.world import World

EDITS, LOCAL_PODS, NAMES = 15, 110, 100
NAMESPACE = "obot-mcp"


def policy(number: int, *domains: str) -> Json:
    """What Obot's provider writes for one server, with many names."""
    names = [f"api{name}.s{number}.example.com" for name in range(NAMES - len(domains))]
    return obot.policy(
        f"ms1-{number}", NAMESPACE, f"ms1-{number}", [*names, *domains], uid=f"p-{number}", generation=1
    )


def pod(number: int, policies: int) -> Json:
    """One of the node's pods."""
    ip = f"10.50.{number >> 8}.{number & 255}"
    app = f"ms1-{number % policies}"
    return obot.pod(f"pod-{number}", NAMESPACE, app, ip, node="n", uid=f"u-{number}")


class Edited:
    """A cluster's policies on both sides of the authority socket, and the next edit's parts."""

    def __init__(self, policies: int) -> None:
        self._policies = policies
        self._settings = load_settings(None, {"NAMEWARD_NODE": "n"})
        self._store = Store()
        for kind, objects in (
            ("Namespace", [{"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": NAMESPACE}}]),
            ("FirewallPolicy", [policy(number) for number in range(policies)]),
            ("Pod", [pod(number, policies) for number in range(LOCAL_PODS)]),
        ):
            self._store.replace(kind, [BY_KIND[kind].cut(each) for each in objects])
        self._assembly = Assembly(EVERY_NAMESPACE)
        self._here, self._there = Memory(), Memory()
        self._decoder: Any = resolver_decoder()
        self._publication = Publication(encode, MAX_TO_RESOLVER_BYTES)
        self._told: World | None = None
        self._held: World | None = None
        self._world: World | None = None
        self._loaded: Loaded
        self._edit: Json = {}
        self._frame = b""
        self.snapshot: Snapshot
        self.there: Snapshot
        for _, part in self.parts():
            part()

    def prepare(self, number: int) -> None:
        """Think of the next edit; the part that is the API server's."""
        text = json.dumps(policy(number % min(self._policies, LOCAL_PODS), f"new{number}.example.org"))
        self._edit = json.loads(text)

    def parts(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Name the parts in their order."""
        if self._edit:
            yield "read", self._read
        yield "assemble", self._assemble
        yield "world", self._world_of
        yield "compile", self._compile
        yield "encode", self._encode
        yield "decode", self._decode
        yield "compile-there", self._compile_there

    def _read(self) -> None:
        kind = BY_KIND["FirewallPolicy"]
        assert self._store.put(kind.kind, kind.cut(self._edit))
        assert not self._store.names_pods
        self._store.endpoints_needed(frozenset())

    def _assemble(self) -> None:
        loaded = self._assembly.assemble(self._store.reads(frozenset()))
        self._loaded = only_needed(loaded, "n", names_pods=False)

    def _world_of(self) -> None:
        generation = self._world.generation + 1 if self._world else 1
        world = world_of(self._loaded, self._settings, (), generation, complete=True)
        assert self._world is None or not is_same(self._world, world)
        self._world = world

    def _compile(self) -> None:
        assert self._world is not None
        self.snapshot = compile_snapshot(self._world, self._here)

    def _encode(self) -> None:
        assert self._world is not None
        self._publication.publish(self._world)
        self._frame = self._publication.frame(self._told)
        self._told = self._world

    def _decode(self) -> None:
        (message,) = self._decoder.feed(self._frame)
        self._held = held(self._held, message)

    def _compile_there(self) -> None:
        assert self._held is not None
        self.there = compile_snapshot(self._held, self._there)


def main(sizes: list[int]) -> None:
    """Print the curve."""
    print(f"an edit of one policy; {LOCAL_PODS} pods, {NAMES} names a policy; ms of processor time")
    for size in sizes:
        edited = Edited(size)
        gc.collect()
        gc.freeze()
        rows: dict[str, list[float]] = {}
        for number in range(EDITS):
            edited.prepare(number)
            for name, part in edited.parts():
                rows.setdefault(name, []).append(_cpu_ms(part))
            assert edited.there.policy_hash == edited.snapshot.policy_hash
        medians = {name: statistics.median(times) for name, times in rows.items()}
        said = "  ".join(f"{name} {value:.2f}" for name, value in medians.items())
        print(f"{size:>6}: {said}  together {sum(medians.values()):.2f}")


def _cpu_ms(part: Callable[[], Any]) -> float:
    began_s = time.thread_time()
    part()
    return (time.thread_time() - began_s) * 1000


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or [10, 100, 1000, 10_000])
