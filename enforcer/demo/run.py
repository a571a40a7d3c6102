"""The demo from its first check to its exit code.

Owns the order of the scenes and what is printed when. Exit codes: 0 every step held, 1 a step did
not, 2 the demo cannot run here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Generic, TypeVar

from rich.console import Console

from enforcer.demo import (
    prerequisites,
    scenes_attacks,
    scenes_crash,
    scenes_life,
    scenes_losses,
    scenes_names,
    scenes_nodes,
)
from enforcer.demo.cluster import running as running_cluster
from enforcer.demo.failure import CannotRunHereError, LabFailureError
from enforcer.demo.kube import scenes as scenes_cluster
from enforcer.demo.kube.cluster import require as require_cluster
from enforcer.demo.kube.lab import running as running_kubernetes
from enforcer.demo.lab import running
from enforcer.demo.report import Step, as_json, print_progress, print_table
from enforcer.demo.scenes import Scene, Stage, play, set_stage
from enforcer.demo.scenes_nodes import NodesStage, set_nodes_stage
from enforcer.demo.spaces import Space
from enforcer.demo.ward import Ward

BEFORE = scenes_attacks.BEFORE
SCENES = (*scenes_names.SCENES, *scenes_attacks.SCENES, *scenes_life.SCENES, *scenes_crash.SCENES)
BEFORE_NODES = scenes_nodes.BEFORE
SCENES_NODES = (*scenes_nodes.SCENES, *scenes_losses.SCENES)
BEFORE_CLUSTER = scenes_cluster.BEFORE
SCENES_CLUSTER = (*scenes_cluster.FIRST, *SCENES, *scenes_cluster.LAST)

S = TypeVar("S")


@dataclasses.dataclass(frozen=True, slots=True)
class _Play(Generic[S]):
    """A stage that is set, what is played on it, and where to look afterwards."""

    stage: S
    before: tuple[Scene[S], ...]
    """Where one of these does not hold, nothing that follows would mean anything."""
    scenes: tuple[Scene[S], ...]
    wards: tuple[Ward, ...]
    spaces: dict[str, Space]


def run(*, as_json_object: bool = False, keep: bool = False, nodes: int = 1, cluster: bool = False) -> int:
    """Run the demo on one or two nodes or in a real Kubernetes, print its result, return the exit code.

    ``as_json_object`` prints one JSON object and nothing else on stdout; ``keep`` leaves everything
    running after the last step until the process is interrupted.
    """
    console = Console(stderr=as_json_object)
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        prerequisites.require(redis=nodes > 1)
        shown = {"as_json_object": as_json_object, "keep": keep}
        if cluster:
            with _kubernetes(console) as real:
                steps = _played(real, console, **shown)
        elif nodes == 1:
            with _one_node() as single:
                steps = _played(single, console, **shown)
        else:
            with _two_nodes() as double:
                steps = _played(double, console, **shown)
    except CannotRunHereError as error:
        console.print(f"[red]The demo cannot run here.[/] {error}", highlight=False)
        return 2
    except LabFailureError as error:
        console.print(f"[red]The lab itself failed.[/] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; everything is removed")
        return 1
    return 0 if all(step.ok for step in steps) else 1


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _one_node() -> Iterator[_Play[Stage]]:
    with running(enforced=False) as lab:
        stage = set_stage(lab)
        spaces = {"node": lab.node, "world": lab.world.space}
        spaces |= {pod.name: pod.space for pod in lab.pods.values()}
        yield _Play(stage, BEFORE, SCENES, (lab.ward,), spaces)


@contextlib.contextmanager
def _two_nodes() -> Iterator[_Play[NodesStage]]:
    with running_cluster() as cluster:
        stage = set_nodes_stage(cluster)
        spaces = {node.place.name: node.space for node in cluster.nodes}
        spaces |= {"world": cluster.world.space, "redis": cluster.store_space}
        spaces |= {pod.name: pod.space for node in cluster.nodes for pod in node.pods.values()}
        yield _Play(stage, BEFORE_NODES, SCENES_NODES, tuple(node.ward for node in cluster.nodes), spaces)


@contextlib.contextmanager
def _kubernetes(console: Console) -> Iterator[_Play[scenes_cluster.ClusterStage]]:
    require_cluster()
    console.print("Starting a Kubernetes of one node, and building the image if its files have changed.")
    with running_kubernetes() as lab:
        stage = scenes_cluster.set_cluster_stage(lab)
        spaces = {"node": lab.node, "world": lab.world.space}
        spaces |= {pod.name: pod.space for pod in lab.pods}
        yield _Play(stage, BEFORE_CLUSTER, SCENES_CLUSTER, (lab.ward,), spaces)


def _played(shown: _Play[S], console: Console, *, as_json_object: bool, keep: bool) -> list[Step]:
    steps = _play_all(shown, console, quiet=as_json_object)
    if as_json_object:
        sys.stdout.write(as_json(steps) + "\n")
        sys.stdout.flush()
    if keep:
        _hold(shown, console)
    return steps


def _play_all(shown: _Play[S], console: Console, *, quiet: bool) -> list[Step]:
    started_at = time.monotonic()
    steps: list[Step] = []
    for number, scene in enumerate((*shown.before, *shown.scenes)):
        steps.append(_shown(scene, shown.stage, console, quiet=quiet))
        if number < len(shown.before) and not steps[-1].ok:
            break
    if not quiet:
        print_table(console, steps, time.monotonic() - started_at)
    if not all(step.ok for step in steps):
        for ward in shown.wards:
            console.print(f"The end of the log of {ward.name}:", highlight=False)
            console.print(ward.tail(), highlight=False, markup=False, soft_wrap=True)
    return steps


def _shown(scene: Scene[S], stage: S, console: Console, *, quiet: bool) -> Step:
    started_at = time.monotonic()
    waiting = contextlib.nullcontext() if quiet else console.status(scene.name)
    with waiting:
        step = play(scene, stage)
    if not quiet:
        print_progress(console, step, time.monotonic() - started_at)
    return step


def _hold(shown: _Play[S], console: Console) -> None:
    """Keep everything as it is, say how to look at it, and wait to be interrupted."""
    console.print("Everything is left running. Look at it from another terminal:")
    for name, space in shown.spaces.items():
        console.print(f"  nsenter --net={space.path}  # {name}", highlight=False, soft_wrap=True)
    for ward in shown.wards:
        for command in ("status", "grants", "blocked"):
            console.print(f"  nameward {command} --config {ward.config}", highlight=False, soft_wrap=True)
        console.print(f"  log: {ward.log}", highlight=False, soft_wrap=True)
    console.print("Ctrl-C here removes all of it.")
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
