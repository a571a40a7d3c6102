"""The image of this checkout, built once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.demo.failure import CannotRunHereError
from enforcer.demo.kube.images import build
from tests.image.containers import Image, unpacked

NEEDED = ("buildah", "mmdebstrap", "runc")


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image as an archive; the cluster's tests use the same one."""
    absent = [program for program in NEEDED if shutil.which(program) is None]
    if absent or os.geteuid() != 0:
        pytest.skip(f"needs root and apt-get install {' '.join(absent or NEEDED)}")
    if chosen := os.environ.get("NAMEWARD_IMAGE"):  # an archive, to be tested as it is
        return Path(chosen)
    path = tmp_path_factory.mktemp("image") / "image.tar"
    try:
        build(path)
    except CannotRunHereError as error:
        pytest.skip(str(error))
    return path


@pytest.fixture(scope="session")
def image(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The same, unpacked."""
    folder = tmp_path_factory.mktemp("unpacked")
    folder.chmod(0o755)
    yield unpacked(archive, folder)
    shutil.rmtree(folder)
