"""The demo from its first check to its exit code.

Owns the order of the scenes and what is printed when. Exit codes: 0 every step held, 1 a step did
not, 2 the demo cannot run here.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from types import FrameType

from rich.console import Console

from enforcer.demo import prerequisites, scenes_attacks, scenes_crash, scenes_life, scenes_names
from enforcer.demo.failure import CannotRunHereError, LabFailureError
from enforcer.demo.lab import Lab, running
from enforcer.demo.report import Step, as_json, print_progress, print_table
from enforcer.demo.scenes import Scene, Stage, play, set_stage

BEFORE = scenes_attacks.BEFORE
SCENES = (*scenes_names.SCENES, *scenes_attacks.SCENES, *scenes_life.SCENES, *scenes_crash.SCENES)


def run(*, as_json_object: bool = False, keep: bool = False) -> int:
    """Run the demo, print its result, return the exit code.

    ``as_json_object`` prints one JSON object and nothing else on stdout; ``keep`` leaves everything
    running after the last step until the process is interrupted.
    """
    console = Console(stderr=as_json_object)
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        prerequisites.require()
        with running(enforced=False) as lab:
            steps = _play_all(lab, console, quiet=as_json_object)
            if as_json_object:
                sys.stdout.write(as_json(steps) + "\n")
                sys.stdout.flush()
            if keep:
                _hold(lab, console)
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


def _play_all(lab: Lab, console: Console, *, quiet: bool) -> list[Step]:
    started_at = time.monotonic()
    stage = set_stage(lab)
    steps: list[Step] = []
    for scene in (*BEFORE, *SCENES):
        steps.append(_shown(scene, stage, console, quiet=quiet))
        if scene in BEFORE and not steps[-1].ok:
            break  # nothing that follows would mean anything
    if not quiet:
        print_table(console, steps, time.monotonic() - started_at)
    if not all(step.ok for step in steps):
        console.print("The end of the daemon's log:")
        console.print(lab.ward.tail(), highlight=False, markup=False, soft_wrap=True)
    return steps


def _shown(scene: Scene, stage: Stage, console: Console, *, quiet: bool) -> Step:
    started_at = time.monotonic()
    waiting = contextlib.nullcontext() if quiet else console.status(scene.name)
    with waiting:
        step = play(scene, stage)
    if not quiet:
        print_progress(console, step, time.monotonic() - started_at)
    return step


def _hold(lab: Lab, console: Console) -> None:
    """Keep everything as it is, say how to look at it, and wait to be interrupted."""
    spaces = {"node": lab.node, "world": lab.world.space} | {pod.name: pod.space for pod in lab.pods.values()}
    console.print("Everything is left running. Look at it from another terminal:")
    for name, space in spaces.items():
        console.print(f"  nsenter --net={space.path}  # {name}", highlight=False, soft_wrap=True)
    for command in ("status", "grants", "blocked"):
        console.print(f"  nameward {command} --config {lab.ward.config}", highlight=False, soft_wrap=True)
    console.print(f"  log: {lab.ward.log}", highlight=False, soft_wrap=True)
    console.print("Ctrl-C here removes all of it.")
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
