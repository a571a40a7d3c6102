"""Print the image's bill of materials: CycloneDX 1.5, JSON, to standard output.

Run in the image by its own Python. Owns what is read: dpkg's record of packages and the metadata of
the Python packages. Reads no clock and asks nobody: the same image gives the same document. Standard
library only.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

STATUS = Path("/var/lib/dpkg/status")
OS_RELEASE = Path("/etc/os-release")
OURS = "nameward"


def paragraphs(text: str) -> Iterator[dict[str, str]]:
    """Yield the fields of each paragraph of dpkg's status file; continuation lines are left out."""
    for block in text.split("\n\n"):
        fields = re.findall(r"^([A-Za-z-]+): (.*)$", block, re.MULTILINE)
        if fields:
            yield dict(fields)


def deb_components(status: str, release: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a component for each package that is installed."""
    distro = f"{release.get('ID', 'debian')}-{release.get('VERSION_ID', '')}".rstrip("-")
    found = []
    for fields in paragraphs(status):
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            source, _, source_version = fields.get("Source", name).partition(" ")
            where = quote(version, safe=""), fields["Architecture"], distro
            purl = "pkg:deb/debian/{}@{}?arch={}&distro={}".format(quote(name, safe=""), *where)
            upstream = f"{source}@{source_version.strip('()') or version}"
            found.append(component(name, version, purl, {"debian:source": upstream}))
    return found


def python_components(installed: Iterable[metadata.Distribution]) -> list[dict[str, Any]]:
    """Return a component for each Python package beside ours."""
    found = {}
    for each in installed:
        about: Mapping[str, str] = each.metadata  # type: ignore[assignment]
        name = re.sub(r"[-_.]+", "-", about["Name"]).lower()
        if name != OURS:
            made = component(name, each.version, f"pkg:pypi/{name}@{quote(each.version, safe='')}", {})
            licence = about.get("License-Expression") or about.get("License") or ""
            if 0 < len(licence) <= 64 and "\n" not in licence:
                made["licenses"] = [{"license": {"name": licence}}]
            found[name] = made
    return list(found.values())


def component(name: str, version: str, purl: str, said: Mapping[str, str]) -> dict[str, Any]:
    """Return one component; ``said`` are further properties."""
    made: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if said:
        made["properties"] = [{"name": key, "value": value} for key, value in said.items()]
    return made


def document(version: str, components: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the whole document; its serial number follows from its content."""
    listed = sorted(components, key=lambda each: str(each["purl"]))
    ours = {"type": "application", "bom-ref": OURS, "name": OURS, "version": version}
    ours["purl"] = f"pkg:generic/{OURS}@{version}"
    content = json.dumps([ours, listed], sort_keys=True)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
        "version": 1,
        "metadata": {"component": ours},
        "components": listed,
        "dependencies": [{"ref": OURS, "dependsOn": [each["bom-ref"] for each in listed]}],
    }


def main() -> int:
    """Print it for the system that this runs in."""
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', OS_RELEASE.read_text(), re.MULTILINE))
    listed = deb_components(STATUS.read_text(), release) + python_components(metadata.distributions())
    print(json.dumps(document(metadata.version(OURS), listed), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
