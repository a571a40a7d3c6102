"""What is in the image, and what is not."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Any

import pytest

from tests.image.containers import Image

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
COMPILED_MODULES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["nameward"]["compiled"]
PYTHON = "/opt/nameward/.venv/bin/python"
UNWANTED = (
    "apt", "apt-get", "dpkg", "dpkg-query", "cc", "gcc", "ld", "make", "perl", "pip", "pip3", "curl", "wget",
    "su", "mount", "passwd", "useradd",
)  # fmt: skip
MOST_BYTES = 220_000_000


def inside(image: Image, *command: str) -> str:
    """What a command of the image prints, run in its files; it has to succeed."""
    done = subprocess.run(["chroot", str(image.root), *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def files(image: Image) -> list[Path]:
    """Every file of it."""
    return [path for path in image.root.rglob("*") if path.is_file() and not path.is_symlink()]


def test_nothing_of_its_making_is_left(image: Image) -> None:
    """No compiler, no package tools and nothing that they leave behind, no way to other users."""
    folders = [image.root / name for name in ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin")]
    folders.append(image.root / "opt/nameward/.venv/bin")
    assert [name for name in UNWANTED for folder in folders if (folder / name).exists()] == []
    assert [path for path in files(image) if path.stat().st_mode & 0o6000] == []
    left = ("var/lib/apt", "var/cache", "var/log", "tmp", "src", "etc/apt")
    assert [path for name in left for path in (image.root / name).glob("**/*") if path.is_file()] == []


def test_it_is_small(image: Image) -> None:
    """All files together, nothing compressed."""
    assert sum(path.stat().st_size for path in files(image)) < MOST_BYTES


def test_its_configuration(image: Image) -> None:
    """One program, roles by command; a title for whoever finds it."""
    config = image.config["config"]
    assert config["Entrypoint"] == ["/opt/nameward/.venv/bin/nameward"]
    assert config["Cmd"] == ["node"]
    assert image.config["os"] == "linux"
    assert config["Labels"]["org.opencontainers.image.title"] == "nameward"
    assert config.get("User", "") in ("", "root", "0")


def test_the_resolver_has_its_user(image: Image) -> None:
    """By number and by name; it can read what it runs, and root alone owns it."""
    said = inside(image, PYTHON, "-c", "import pwd; print(pwd.getpwnam('nameward-resolver')[2:4])")
    assert said.strip() == "(65353, 65353)"
    ours = [path for path in files(image) if "opt/nameward" in str(path)]
    assert [path for path in ours if path.stat().st_uid != 0 or not path.stat().st_mode & 0o004] == []
    assert [path for path in ours if path.stat().st_mode & 0o022] == []


def test_every_module_of_ours_starts(image: Image) -> None:
    """What was trimmed away is imported by nobody; every command is there."""
    modules = sorted(
        str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__")
        for top in ("policy", "resolver", "enforcer")
        for path in (ROOT / top).rglob("*.py")
        if path.name != "__main__.py"
    )
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    inside(image, PYTHON, "-W", "error", "-c", code, *modules)
    commands = set(re.findall(r"^  ([a-z]+)  ", inside(image, *image.entrypoint, "--help"), re.MULTILINE))
    assert {"node", "enforcer", "resolver", "controller", "health", "uninstall", "status"} <= commands


def test_the_hot_modules_run_compiled(image: Image) -> None:
    """What mypyc made of them fits the sources and the Python of the image."""
    said = inside(image, PYTHON, "-c", "from policy.build import COMPILED; print(*sorted(COMPILED or ()))")
    assert said.split() == sorted(COMPILED_MODULES)


def test_python_is_compiled_already(image: Image) -> None:
    """The file system is read-only: what is not compiled would be compiled at every start."""
    ours = image.root / "opt/nameward/.venv"
    sources = [path for path in ours.rglob("*.py") if "site-packages" in str(path)]
    assert sources
    version = inside(image, PYTHON, "-c", "import sys; print(sys.implementation.cache_tag)").strip()
    absent = [
        path for path in sources if not (path.parent / "__pycache__" / f"{path.stem}.{version}.pyc").exists()
    ]
    assert absent == []
    compiled = next(ours.rglob("enforcer/__pycache__/ledger.*.pyc")).read_bytes()
    assert compiled[4:8] == (1).to_bytes(4, "little")  # PEP 552: by hash, not checked
    assert len(MAGIC_NUMBER) == 4


class TestBillOfMaterials:
    """/usr/share/nameward/sbom.cdx.json."""

    @pytest.fixture
    def document(self, image: Image) -> dict[str, Any]:
        """It, as JSON."""
        found: dict[str, Any] = json.loads((image.root / "usr/share/nameward/sbom.cdx.json").read_text())
        return found

    def test_it_names_what_is_there(self, image: Image, document: dict[str, Any]) -> None:
        """Every package of the distribution, every Python package; ours is what it is about."""
        assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
        assert document["metadata"]["component"]["name"] == "nameward"
        named = {component["purl"].partition("@")[0] for component in document["components"]}
        status = (image.root / "var/lib/dpkg/status").read_text()
        installed = re.findall(r"^Package: (\S+)\nStatus: install ok installed$", status, re.MULTILINE)
        assert {f"pkg:deb/debian/{name.replace('+', '%2B')}" for name in installed} <= named
        code = "from importlib.metadata import distributions as d; print(*{x.name.lower() for x in d()})"
        python = set(inside(image, PYTHON, "-c", code).split()) - {"nameward"}
        assert {f"pkg:pypi/{re.sub('[-_.]+', '-', name)}" for name in python} <= named
        assert {"pkg:deb/debian/nftables", "pkg:pypi/twisted", "pkg:pypi/dnspython"} <= named
        assert "pkg:deb/debian/apt" not in named

    def test_each_component_is_named_once_and_whole(self, document: dict[str, Any]) -> None:
        """Scanners go by the package URL."""
        urls = [component["purl"] for component in document["components"]]
        assert len(urls) == len(set(urls))
        pattern = (
            r"pkg:(deb/debian/[a-z0-9%.B+-]+@[^@]+\?arch=[a-z0-9]+&distro=debian-\d+|pypi/[a-z0-9-]+@[^@]+)"
        )
        assert [url for url in urls if not re.fullmatch(pattern, url)] == []
        assert document["dependencies"][0]["dependsOn"] == [
            each["bom-ref"] for each in document["components"]
        ]

    def test_the_same_image_gives_the_same_document(self, image: Image, document: dict[str, Any]) -> None:
        """No clock, no chance in it."""
        (image.root / "tmp/sbom.py").write_text((ROOT / "deploy/image/sbom.py").read_text())
        try:
            again = json.loads(inside(image, PYTHON, "/tmp/sbom.py"))
        finally:
            (image.root / "tmp/sbom.py").unlink()
        assert again == document
