"""Nameward is to leave this node: who says so, and everything of ours that is taken away then.

Theory of operation: an annotation of Nameward's own namespace says when it was asked to go. An
enforcer whose pod is older than that writes ``removed`` into runtimeDir and ends; the one that its
supervisor starts again takes the rules away instead of keeping them (``enforcer.removed``), and says
so. Killed in between, the next one does the same. A pod that is younger was installed since then.

Owns that judgement, what is ours in the kernel and in runtimeDir. Never takes away what is another's.
Invariant: SIGTERM, a lost API server and an unreadable annotation take nothing away.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Protocol

import msgspec

from enforcer.kube.access import AccessError, in_cluster
from enforcer.records import Records
from enforcer.sources import Seen
from policy.runtime.clock import wall_seconds
from policy.runtime.settings import Settings

MARK = "nameward.dev/uninstall"
POD_UID = "POD_UID"
OUR_FILES = (
    "able", "authority.sock", "break-glass", "break-glass.next", "cluster.json", "handover.sock",
    "inspect.sock", "installed", "installed.next", "journal", "journal.next", "removed", "removed.next",
    "structure",
)  # fmt: skip
"""What there may be in runtimeDir, but for the lock."""


class KernelDoor(Protocol):
    """What ``enforcer.kernel.Kernel`` offers here."""

    def remove(self) -> tuple[str, ...]:
        """Delete our tables; name those that were there."""


class RoutesDoor(Protocol):
    """What ``enforcer.routes.Routes`` offers here."""

    def remove_dns_rule(self) -> None:
        """Take the rule and the table away; what is not there is no error."""


class _Kept(msgspec.Struct, frozen=True):
    """A pod, and since when it has been here; or the one whose rules were taken away."""

    pod: str
    at: float


class Removal:
    """Looks for the mark in what a source says. ``asked`` is called once it is there, and meant for us."""

    def __init__(
        self,
        *,
        folder: Path,
        namespace: str,
        pod: str,
        wall: float,
        records: Records,
        asked: Callable[[], None],
        seen: Callable[[Seen], None],
    ) -> None:
        """``pod`` is our pod's uid ("" outside a pod), ``wall`` the time now (seconds since 1970).

        ``seen`` hears everything that is not the last word.
        """
        self._folder = folder
        self._namespace = namespace
        self._pod = pod
        self._records = records
        self._asked = asked
        self._seen = seen
        self._unread = ""
        self.since = _since(folder / "installed", pod, wall)

    def look(self, seen: Seen) -> None:
        """Take what the source knows now."""
        if seen.complete and seen.is_fresh and self.is_marked(seen.loaded.marks):
            self._records.tell("enforcer.removed", "warning", reason=f"{MARK} on namespace {self._namespace}")
            note_removed(self._folder, self._pod)
            self._asked()
            return
        self._seen(seen)

    def is_marked(self, marks: Mapping[str, Mapping[str, str]]) -> bool:
        """Say whether our namespace was marked since this pod has been here."""
        text = marks.get(self._namespace, {}).get(MARK, "")
        if not text:
            return False
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            at = None
        if at is None or at.tzinfo is None:
            if text != self._unread:
                self._unread = text
                reason = f"{MARK} on namespace {self._namespace} is no time (such as 2026-01-31T12:00:00Z)"
                self._records.tell("enforcer.not_removed", "warning", reason=reason)
            return False
        return at.timestamp() >= self.since


def removal_of(
    settings: Settings,
    folder: Path,
    records: Records,
    *,
    asked: Callable[[], None],
    seen: Callable[[Seen], None],
) -> Removal:
    """Return this pod's; its namespace is the settings', or the one that its service account is of."""
    kubernetes = settings.policy.kubernetes
    namespace = kubernetes.pod_namespace
    if not namespace and settings.policy.source == "kubernetes" and not kubernetes.kubeconfig:
        with contextlib.suppress(AccessError):
            namespace = in_cluster().namespace
    return Removal(
        folder=folder,
        namespace=namespace,
        pod=os.environ.get(POD_UID, ""),
        wall=wall_seconds(),
        records=records,
        asked=asked,
        seen=seen,
    )


def _since(path: Path, pod: str, wall: float) -> float:
    """Return since when this pod has been here: from its first start on, however often it starts again."""
    kept = _read(path)
    if kept is not None and kept.pod == pod and kept.at <= wall:
        return kept.at
    _write(path, _Kept(pod, wall))
    return wall


def note_removed(folder: Path, pod: str) -> None:
    """Have the next enforcer of this pod take the rules away."""
    _write(folder / "removed", _Kept(pod, 0.0))


def is_removed(folder: Path, pod: str) -> bool:
    """Say whether this pod's rules are to be away."""
    kept = _read(folder / "removed")
    return kept is not None and kept.pod == pod


def forget_removed(folder: Path) -> None:
    """Have the next enforcer build the rules again."""
    (folder / "removed").unlink(missing_ok=True)


def take_away(kernel: KernelDoor, routes: RoutesDoor) -> tuple[str, ...]:
    """Remove tables, rules and route; name what was there. ``OSError`` if the kernel refuses.

    The tables first: what they mark would find no route without the rules.
    """
    gone = kernel.remove()
    routes.remove_dns_rule()
    return gone


def clear(folder: Path) -> None:
    """Remove our files from runtimeDir, and it, if nothing else is there."""
    for name in OUR_FILES:
        (folder / name).unlink(missing_ok=True)
    (folder / "lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _read(path: Path) -> _Kept | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Kept)
    except (OSError, msgspec.MsgspecError):
        return None


def _write(path: Path, kept: _Kept) -> None:
    beside = path.with_name(path.name + ".next")
    beside.write_bytes(msgspec.json.encode(kept))
    os.replace(beside, path)
