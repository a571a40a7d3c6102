"""Where the programs of Kubernetes are, and what to do where they are not.

Owns the folder's name and the sentences. Builds nothing: deploy/setup.sh does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from enforcer.demo.failure import CannotRunHereError

ONE_BINARY = "kube"
"""One Go program (tests/cluster/kube); the name by which it is started picks what it is."""
LINKED = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
)
_BUILD = "build them: bash deploy/setup.sh cluster"
_PACKAGE_OF = {
    "buildah": "buildah",
    "containerd": "containerd",
    "ctr": "containerd",
    "etcd": "etcd-server",
    "runc": "runc",
    "setpriv": "util-linux",
}
CNI_FOLDER = Path("/usr/lib/cni")


def folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the programs: $NAMEWARD_CLUSTER_BIN, or in the user's cache."""
    if chosen := environ.get("NAMEWARD_CLUSTER_BIN"):
        return Path(chosen)
    cache = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME") or "/root") / ".cache")
    return Path(cache) / "nameward-cluster" / "bin"


def path_of(program: str) -> Path:
    """Return the path of a program that deploy/setup.sh builds, for its own name.

    Raises CannotRunHereError with what to do if it is not there.
    """
    found = folder() / (ONE_BINARY if program in LINKED else program)
    if not os.access(found, os.X_OK):
        raise CannotRunHereError(f"{found} is missing; {_BUILD}")
    return found


def missing_packages(programs: Sequence[str], which: Callable[[str], str | None] = shutil.which) -> list[str]:
    """Return the Debian packages whose programs are not installed, sorted."""
    return sorted({_PACKAGE_OF[program] for program in programs if which(program) is None})


def require(built: Sequence[str], installed: Sequence[str]) -> None:
    """Raise CannotRunHereError naming the first thing that is missing, with what to do about it.

    ``built`` are programs of our folder, ``installed`` those of the distribution.
    """
    for program in built:
        path_of(program)
    if packages := missing_packages(installed):
        raise CannotRunHereError(f"Programs are missing: apt-get install -y {' '.join(packages)}")


def link(into: Path) -> Path:
    """Make links with the names of the one binary's programs in the folder ``into``; returns it."""
    into.mkdir(parents=True, exist_ok=True)
    binary = path_of(ONE_BINARY)
    for program in LINKED:
        place = into / program
        place.unlink(missing_ok=True)
        place.symlink_to(binary)
    return into
