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
_REDIS_PACKAGE_OF = {"redis-server": "redis-server", "redis-cli": "redis-tools"}
_NO_SERVICES = "their own services are not needed: systemctl disable --now nsd redis-server"
_PROBE = "table inet probe { set s { type ipv4_addr; flags timeout; }; }"


def missing_programs(which: Callable[[str], str | None] = shutil.which, *, redis: bool = False) -> list[str]:
    """Return the Debian packages whose programs are not installed, sorted."""
    wanted = _PACKAGE_OF | (_REDIS_PACKAGE_OF if redis else {})
    return sorted({package for program, package in wanted.items() if which(program) is None})


def require(*, redis: bool = False) -> None:
    """Raise CannotRunHereError naming the first thing that is missing and what to do about it.

    ``redis``: several nodes need it too.
    """
    if os.geteuid() != 0:
        raise CannotRunHereError(
            "The demo makes network namespaces and starts a daemon under a user of its own: run it as root."
        )
    if packages := missing_programs(redis=redis):
        raise CannotRunHereError(
            f"Programs are missing: apt-get install -y {' '.join(packages)} ({_NO_SERVICES})."
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
