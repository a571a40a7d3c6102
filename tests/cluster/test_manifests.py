"""Every YAML of deploy/ and docs/ that is an object passes a server-side dry run, strictly validated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from enforcer.kube.answers import ApiRefused
from tests.charts.renders import EVERYTHING, PRESETS, RANGES, ROOT, preset, rendered
from tests.cluster.real import RealApi

pytestmark = pytest.mark.cluster

Json = dict[str, Any]

FILES = sorted(
    path
    for folder in ("deploy", "docs")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".yaml", ".yml"} and not {"templates", "files"} & set(path.parts)
)
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")])
NO_OBJECTS = re.compile(
    r"Chart\.yaml|values(-\w+)*\.yaml|nameward\.example\.yaml|kustomization\.yaml|files/rules.*\.yaml"
)
"""Configuration, values of charts, and what Kustomize reads."""
STORED = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "uid")
"""What the server writes: manifests that show objects as kubectl prints them have it."""
FOREIGN = {
    "PolicyException": ("kyverno.io", "v2", "Namespaced"),
    "PrometheusRule": ("monitoring.coreos.com", "v1", "Namespaced"),
    "ServiceMonitor": ("monitoring.coreos.com", "v1", "Namespaced"),
    "SecurityContextConstraints": ("security.openshift.io", "v1", "Cluster"),
}
"""Kinds of others that the chart makes where somebody asks for them."""


def plural_of(kind: str) -> str:
    """As the API names it."""
    return kind.lower() if kind.endswith("s") else f"{kind.lower()}s"


@pytest.fixture(scope="module")
def server(guarded: RealApi) -> RealApi:
    """The chart's kinds and policies, others' kinds, and the namespaces that manifests name."""
    for kind, (group, version, scope) in FOREIGN.items():
        guarded.apply(_crd(kind, group, version, scope))
    crds = [f"crd/{plural_of(kind)}.{group}" for kind, (group, _, _) in FOREIGN.items()]
    guarded.kubectl("wait", "--for=condition=Established", "--timeout=60s", *crds)
    for name in sorted({each["metadata"].get("namespace", "default") for _, each in everything()}):
        guarded.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return guarded


def _crd(kind: str, group: str, version: str, scope: str) -> Json:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind, "plural": plural_of(kind), "singular": kind.lower(), "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural_of(kind)}.{group}"},
        "spec": {"group": group, "names": names, "scope": scope, "versions": [served]},
    }


def everything() -> Iterator[tuple[str, Json]]:
    """All objects: of files, of pages, and of the chart with each preset."""
    for path in FILES:
        for each in objects_in(path.read_text()):
            yield str(path.relative_to(ROOT)), each
    for path in PAGES:
        for block in re.findall(r"^```yaml\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE):
            for each in objects_in(block):
                yield str(path.relative_to(ROOT)), each
    for name in ("", *PRESETS):
        for each in rendered(*preset(name), *RANGES):
            yield f"chart {name}", each
    for each in rendered(*EVERYTHING):
        yield "chart with everything", each


def objects_in(text: str) -> Iterator[Json]:
    """The objects of a YAML text, those of Lists one by one."""
    for document in yaml.safe_load_all(text):
        if isinstance(document, dict) and {"apiVersion", "kind"} <= set(document):
            if document["apiVersion"].startswith("kustomize.config.k8s.io/"):
                continue
            yield from (document["items"] if document["kind"] == "List" else [document])


def test_no_file_is_passed_over() -> None:
    """A YAML file without an object is one that is known to be something else."""
    for path in FILES:
        if not list(objects_in(path.read_text())):
            assert NO_OBJECTS.fullmatch(path.name), path


def test_each_passes_a_strict_dry_run(server: RealApi) -> None:
    """As the administrator, by server-side apply, unknown and doubled fields refused."""
    door = server.admin
    served = _places(server)
    refused = []
    seen = 0
    for where, each in everything():
        body = _asked(each)
        path, is_namespaced = served[body["apiVersion"], body["kind"]]
        space = f"/namespaces/{body['metadata'].setdefault('namespace', 'default')}" if is_namespaced else ""
        group = "/api/" if "/" not in body["apiVersion"] else "/apis/"
        at = f"{group}{body['apiVersion']}{space}/{path}/{body['metadata']['name']}"
        query = {"dryRun": "All", "fieldValidation": "Strict", "fieldManager": "manifests", "force": "true"}
        try:
            door.patch(at, body, "apply", **query)
        except ApiRefused as error:
            refused.append(f"{where}: {body['kind']} {body['metadata']['name']}: {error}")
        seen += 1
    assert refused == []
    assert seen > 200


def _asked(shown: Json) -> Json:
    """What somebody would apply to have it as it is shown."""
    metadata = {key: value for key, value in shown["metadata"].items() if key not in STORED}
    return {key: value for key, value in shown.items() if key != "status"} | {"metadata": metadata}


def _places(server: RealApi) -> dict[tuple[str, str], tuple[str, bool]]:
    """Each kind's plural, and whether it lives in namespaces, as the server says."""
    door = server.admin
    groups = door.get("/apis")["groups"]
    versions = [each["groupVersion"] for group in groups for each in group["versions"]]
    found = {}
    for version in ("v1", *versions):
        root = "/api/" if version == "v1" else "/apis/"
        for each in door.get(f"{root}{version}")["resources"]:
            if "/" not in each["name"]:
                found[version, each["kind"]] = (each["name"], each["namespaced"])
    return found
