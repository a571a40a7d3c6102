"""What the demo needs of a machine, asked before anything is made.

Owns the sentences that say what is missing and what to do. Changes nothing on the machine.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from enforcer.demo.failure import CannotRunHereError
from enforcer.demo.processes import run
from enforcer.demo.spaces import Space

_PACKAGE_OF = {"ip": "iproute2", "nft": "nftables", "nsd": "nsd", "setpriv": "util-linux"}
_PROBE = "table inet probe { set s { type ipv4_addr; flags timeout; }; }"


def missing_programs(which: Callable[[str], str | None] = shutil.which) -> list[str]:
    """Return the Debian packages whose programs are not installed, sorted."""
    return sorted({package for program, package in _PACKAGE_OF.items() if which(program) is None})


def require() -> None:
    """Raise CannotRunHereError naming the first thing that is missing and what to do about it."""
    if os.geteuid() != 0:
        raise CannotRunHereError(
            "The demo makes network namespaces and starts a daemon under a user of its own: run it as root."
        )
    if packages := missing_programs():
        raise CannotRunHereError(
            f"Programs are missing: apt-get install -y {' '.join(packages)} "
            "(the name server's own service is not needed: systemctl disable --now nsd)."
        )
    space = Space("probe")
    try:
        probed = run(space, ["nft", "-f", "-"], _PROBE)
    finally:
        space.close()
    if probed.returncode != 0:
        raise CannotRunHereError(
            "This kernel has no usable nftables (modprobe nf_tables, or a kernel with CONFIG_NF_TABLES): "
            + probed.stderr.strip()
        )
