"""What a scene of the demo is: a stage with actors, a play, and the facts that it notes.

Owns running one scene. A scene that breaks is a failed step, never a crash of the demo. Invariant:
a step holds only if every fact in it held, and it noted at least one.
"""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import dns.exception

from enforcer.demo import lab as labs
from enforcer.demo import places
from enforcer.demo.failure import LabFailureError
from enforcer.demo.manifests import Document, udp_policy
from enforcer.demo.pods import Pod
from enforcer.demo.report import Step
from enforcer.demo.spaces import Space
from enforcer.demo.ward import Ward
from enforcer.demo.world import World

S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)
BROKEN = (
    LabFailureError,
    OSError,
    LookupError,
    ValueError,
    TypeError,
    subprocess.SubprocessError,
    dns.exception.DNSException,
)
"""What a scene may fail with when the thing under test does not answer as it should."""


class Facts:
    """What was seen in one scene, in order."""

    def __init__(self) -> None:
        self._seen: list[str] = []
        self._failed = False

    def check(self, holds: bool, seen: str) -> None:
        """Note ``seen``; the step holds only if every ``holds`` is true."""
        self._seen.append(seen if holds else f"NOT AS EXPECTED: {seen}")
        self._failed = self._failed or not holds

    @property
    def held(self) -> bool:
        """Say whether there are facts and all of them held."""
        return bool(self._seen) and not self._failed

    @property
    def text(self) -> str:
        """All facts as one line."""
        return "; ".join(self._seen) or "nothing"


class Grounds(Protocol):
    """Where a play is played: the lab of namespaces, or a cluster."""

    @property
    def foreign_rules(self) -> str:
        """What others have on the node, as nft text."""

    @property
    def world(self) -> World:
        """What is outside."""

    @property
    def node(self) -> Space:
        """The node's network."""

    @property
    def ward(self) -> Ward:
        """Nameward."""

    def set_domains(self, server: str, domains: Sequence[str]) -> None:
        """Write the server's policy as Obot's provider does when somebody edits its egress domains."""

    def put(self, key: str, document: Document) -> None:
        """Write another object."""

    def add_pod(self, server: str, index: int, *, declared: bool = True) -> Pod:
        """Make a pod of an MCP server; ``index`` is that of its address. Undeclared: nobody tells of it."""

    def remove_pod(self, pod: Pod) -> None:
        """Take a pod away."""


@dataclasses.dataclass(slots=True)
class Stage:
    """The lab and its actors: two MCP servers, one that asks a lot, one that will go, one undeclared."""

    lab: Grounds
    crm: Pod
    ledger: Pod
    bulk: Pod
    temp: Pod
    stranger: Pod


@dataclasses.dataclass(frozen=True, slots=True)
class Scene(Generic[S_contra]):
    """One step of the demo before it is played, on a stage of that kind (or of one that has more)."""

    name: str
    invariant: str
    tried: str
    expected: str
    play: Callable[[S_contra, Facts], None]


def set_stage(lab: Grounds) -> Stage:
    """Write the policies and make the pods; Nameward is not running yet."""
    lab.set_domains(labs.CRM_SERVER, labs.CRM_DOMAINS)
    lab.put("policy-quic", udp_policy(labs.CRM_SERVER, "platform-quic", places.CRM))
    lab.set_domains(labs.LEDGER_SERVER, [places.LEDGER])
    lab.set_domains(labs.BULK_SERVER, places.BULK_NAMES)
    lab.set_domains(labs.TEMP_SERVER, [places.TEMP])
    lab.set_domains(labs.NEXT_SERVER, [places.NEXT])
    return Stage(
        lab=lab,
        crm=lab.add_pod(labs.CRM_SERVER, 10),
        ledger=lab.add_pod(labs.LEDGER_SERVER, 11),
        bulk=lab.add_pod(labs.BULK_SERVER, 12),
        temp=lab.add_pod(labs.TEMP_SERVER, 13),
        stranger=lab.add_pod("undeclared", 66, declared=False),
    )


def play(scene: Scene[S], stage: S) -> Step:
    """Play one scene and say what was seen."""
    facts = Facts()
    try:
        scene.play(stage, facts)
    except BROKEN as error:
        facts.check(holds=False, seen=f"{type(error).__name__}: {error}")
    return Step(
        name=scene.name,
        invariant=scene.invariant,
        tried=scene.tried,
        expected=scene.expected,
        seen=facts.text,
        ok=facts.held,
    )
