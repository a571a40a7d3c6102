"""docs/permissions.md explains every verb that the charts grant, and none that they do not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.charts.renders import EVERYTHING, RELEASE, ROOT, Json, containers, helm, objects_of, rendered

pytestmark = pytest.mark.cluster

PAGE = (ROOT / "docs" / "permissions.md").read_text()
PROVIDER = ROOT / "deploy" / "charts" / "nameward-obot-provider"
Grant = tuple[str, str, str, str, bool]
"""Role, group, resource, verb, whether it is narrowed to names."""


def granted(objects: list[Json]) -> set[Grant]:
    """What the rendered roles grant."""
    return {
        (f"{role['kind']} {role['metadata']['name']}", group, resource, verb, "resourceNames" in rule)
        for role in objects
        if role["kind"] in {"Role", "ClusterRole"}
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def explained() -> set[Grant]:
    """What the page's tables say."""
    found = set()
    for section in PAGE.split("\n## ")[1:]:
        title = re.search(r"(Cluster)?Role `([^`]+)`", section.splitlines()[0])
        if title is None:
            continue
        role = f"{title[1] or ''}Role {title[2]}"
        for row in re.findall(
            r"^\| (`[^|]+`|core) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", section, re.MULTILINE
        ):
            group, resources, verbs, why = (cell.strip() for cell in row)
            assert why, row
            for resource in re.findall(r"`([a-z/]+)`", resources.partition("(")[0]):
                for verb in re.findall(r"`(\w+)`", verbs):
                    name = "" if group == "core" else group.strip("`")
                    found.add((role, name, resource, verb, "alone)" in resources))
    return found


def test_the_page_is_what_the_charts_grant() -> None:
    """Verb by verb, in both directions."""
    values = str(PROVIDER / "values-obot.yaml")
    provider = helm("template", "nameward-obot", str(PROVIDER), "-n", "obot", "-f", values)
    assert provider.returncode == 0, provider.stderr
    now = granted(rendered(*EVERYTHING)) | granted(objects_of(provider.stdout))
    assert len(now) > 30
    assert explained() == now


def test_nobody_is_granted_everything() -> None:
    """No wildcard, and no verb by which one could give oneself more."""
    for _, group, resource, verb, _ in granted(rendered(*EVERYTHING)):
        assert "*" not in group + resource + verb
        assert verb not in {"escalate", "bind", "impersonate"}
        assert resource not in {"secrets", "pods/exec", "serviceaccounts/token", "nodes/proxy"}


def test_capabilities_are_explained() -> None:
    """The page's table has those that the enforcer gets."""
    added = containers(rendered(*EVERYTHING), "DaemonSet", f"{RELEASE}-agent")["enforcer"]
    rows = re.findall(r"^\| `enforcer` \| 0 \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert rows == added["securityContext"]["capabilities"]["add"]


def test_the_links_of_the_page_lead_somewhere() -> None:
    """Pages beside it."""
    for link in re.findall(r"\]\(([\w./-]+)\)", PAGE):
        assert (Path(ROOT) / "docs" / link).exists(), link
