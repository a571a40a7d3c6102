"""Container images made by hand: an archive of a few files, without a builder or a registry.

Owns the format (Docker's image archive, which containerd and buildah read). Never runs anything.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """``name`` with its tag; ``files`` by their path in it, all executable; what it starts."""

    name: str
    files: Mapping[str, Path]
    entrypoint: Sequence[str]
    user: str = "0"


def write(image: Image, archive: Path) -> None:
    """Write an image as an archive."""
    layer = archive.with_suffix(".layer")
    try:
        with tarfile.open(layer, "w") as made:
            for name, source in image.files.items():
                made.add(source, name.lstrip("/"), filter=_anonymous)
        with layer.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        configuration = json.dumps(
            {
                "architecture": _MACHINES.get(platform.machine(), platform.machine()),
                "os": "linux",
                "config": {"Entrypoint": list(image.entrypoint), "User": image.user},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            }
        ).encode()
        listed = [{"Config": "config.json", "RepoTags": [image.name], "Layers": ["layer.tar"]}]
        with tarfile.open(archive, "w") as made:
            made.add(layer, "layer.tar", filter=_anonymous)
            for name, content in (
                ("config.json", configuration),
                ("manifest.json", json.dumps(listed).encode()),
            ):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                made.addfile(entry, io.BytesIO(content))
    finally:
        layer.unlink(missing_ok=True)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755
    return entry
