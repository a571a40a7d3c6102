"""The image of this checkout, built once for each state of its files.

Owns finding the checkout. deploy/image/build.sh builds and keeps what it built. Who has an archive
already names it in $LAB_IMAGE: it holds ``nameward:lab``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import enforcer
from enforcer.demo.failure import CannotRunHereError

CHECKOUT = Path(enforcer.__file__).parents[1]
CHART = CHECKOUT / "deploy" / "charts" / "nameward"
NAME = "nameward"
TAG = "lab"
_BUILD = CHECKOUT / "deploy" / "image" / "build.sh"
_BUILD_S = 1200.0


def build(archive: Path) -> None:
    """Write the image as an archive: built (minutes, where none is kept of these files) or the one named.

    Raises CannotRunHereError with the builder's words.
    """
    if made := os.environ.get("LAB_IMAGE"):
        shutil.copy(made, archive)
        return
    if not _BUILD.is_file():
        raise CannotRunHereError(
            f"{_BUILD} is missing: the cluster runs an image of a checkout, not of an installed package."
        )
    done = subprocess.run(  # noqa: S603 (arguments are the lab's own)
        ["/bin/bash", str(_BUILD), str(archive), f"{NAME}:{TAG}"],
        capture_output=True,
        text=True,
        timeout=_BUILD_S,
        check=False,
    )
    if done.returncode != 0:
        raise CannotRunHereError(f"The image could not be built: {done.stderr.strip()[-2000:]}")
