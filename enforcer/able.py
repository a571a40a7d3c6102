"""What this kernel can do, found out once a supervisor's life.

Owns ``<runtimeDir>/able``. A worker that comes back believes what the one before it had tried, for
trying takes longer than the rest of its start. Invariant: what is remembered is believed only under
the same supervisor in the same boot.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import msgspec

from enforcer.kernel import Capabilities


class Prober(Protocol):
    """What ``enforcer.kernel.Kernel`` offers here."""

    def probe(self) -> Capabilities:
        """Find out by trying."""

    def believe(self, able: Capabilities) -> None:
        """Take over what was found out before."""


class _Remembered(msgspec.Struct, frozen=True):
    boot_id: str
    supervisor: str
    renews: bool
    owns: bool


def capabilities(kernel: Prober, path: Path, boot_id: str) -> Capabilities:
    """Return what the kernel can do; ``KernelRejected`` if it cannot do the least."""
    supervisor = _identity(os.getppid())
    try:
        known = msgspec.json.decode(path.read_bytes(), type=_Remembered)
    except (OSError, msgspec.MsgspecError):
        known = None
    if known is not None and (known.boot_id, known.supervisor) == (boot_id, supervisor):
        able = Capabilities(known.renews, known.owns)
        kernel.believe(able)
        return able
    able = kernel.probe()
    path.write_bytes(msgspec.json.encode(_Remembered(boot_id, supervisor, able.renews, able.owns)))
    return able


def _identity(pid: int) -> str:
    """Name a process by its number and its start (in ticks): in a container every supervisor is process 1."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return str(pid)
    return f"{pid} {fields[19]}"
