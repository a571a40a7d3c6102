"""What the provider chart renders, preset by preset; and that it stays what Obot may install."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from enforcer.demo.failure import CannotRunHereError
from enforcer.demo.kube import binaries
from tests.obot.obots import CHART, MCP_RULES, RELEASE

pytestmark = pytest.mark.cluster
DOCS = Path(__file__).parents[2] / "docs"
GOLDEN = Path(__file__).parents[1] / "golden" / "charts"
OBOT = CHART / "values-obot.yaml"
PRESETS = ["", *sorted(file.stem for file in CHART.glob("values-*.yaml") if file != OBOT)]
CONFIG_MAP_BYTES = 1024 * 1024


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm v3, which is needed for nothing else than the chart."""
    try:
        program = str(binaries.path_of("helm"))
    except CannotRunHereError as error:
        pytest.skip(str(error))
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def rendered(preset: str, *more: str) -> str:
    """The chart with what Obot passes, and a preset over it."""
    files = ["-f", str(OBOT), *(["-f", str(CHART / f"{preset}.yaml")] if preset else [])]
    done = helm("template", RELEASE, str(CHART), "-n", "obot", *files, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(text: str) -> list[dict[str, Any]]:
    """The objects in it."""
    return [each for each in yaml.safe_load_all(text) if each]


@pytest.mark.parametrize("preset", PRESETS)
def test_it_renders_what_was_agreed(preset: str) -> None:
    """Golden: `make golden` writes it anew."""
    golden = GOLDEN / f"obot-{preset.removeprefix('values-') or 'default'}.yaml"
    now = rendered(preset)
    if os.environ.get("NAMEWARD_WRITE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(now)
    assert now == golden.read_text()


@pytest.mark.parametrize("preset", PRESETS)
def test_it_holds_only_what_obot_may_make(preset: str) -> None:
    """No CRD, no hook, nothing in Obot's namespace but a Deployment that need not be waited for."""
    assert not (CHART / "crds").exists()
    made = objects(rendered(preset))
    where = {(each["kind"], each["metadata"]["namespace"]) for each in made}
    assert where == {("Deployment", "obot"), ("Role", "obot-mcp"), ("RoleBinding", "obot-mcp")}
    assert not any("helm.sh/hook" in each["metadata"].get("annotations", {}) for each in made)
    [deployment] = [each for each in made if each["kind"] == "Deployment"]
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 1
    [role] = [each for each in made if each["kind"] == "Role"]
    for given in role["rules"]:
        held = {
            verb
            for rule in MCP_RULES
            if rule["apiGroups"] == given["apiGroups"] and set(given["resources"]) <= set(rule["resources"])
            for verb in rule["verbs"]
        }
        assert set(given["verbs"]) <= held


def test_the_page_says_every_verb() -> None:
    """docs/obot.md: what the bridge may do in the namespace of the servers, and nothing else."""
    [role] = [each for each in objects(rendered("")) if each["kind"] == "Role"]
    [given] = role["rules"]
    [said] = re.findall(r"\| `firewallpolicies`: ([a-z, ]+) \|", (DOCS / "obot.md").read_text())
    assert (given["resources"], said.split(", ")) == (["firewallpolicies"], given["verbs"])


@pytest.mark.parametrize("preset", PRESETS)
def test_it_is_linted(preset: str) -> None:
    """With what Obot passes, and without any values, as a linter does it."""
    for files in ([], ["-f", str(OBOT)]):
        more = ["-f", str(CHART / f"{preset}.yaml")] if preset else []
        done = helm("lint", str(CHART), *files, *more)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("log.level=loud", "/log/level"),
        ("egress.alwaysAllowDomains={*.example.com:443}", "/egress/alwaysAllowDomains/0"),
        ("egress.alwaysAllowDomains={example}", "/egress/alwaysAllowDomains/0"),
        ("storage.certificateSHA256=abc", "/storage/certificateSHA256"),
        ("policies.managedBy=a b", "/policies/managedBy"),
        ("image.digest=latest", "/image/digest"),
        ("image.tags=1", "tags"),
        ("obotStorageURL=http://obot:8080", "/obotStorageURL"),
        ("mcpRuntimeNamespace=", "mcpRuntimeNamespace is not set"),
    ],
)
def test_a_wrong_value_is_named(setting: str, said: str) -> None:
    """By its path, or in a sentence."""
    done = helm("template", RELEASE, str(CHART), "-n", "obot", "-f", str(OBOT), "--set", setting)
    assert done.returncode != 0
    assert said in done.stderr


def test_it_fits_into_a_config_map(tmp_path: Path) -> None:
    """That is how Obot gets it without any repository: as a packed chart in a mounted file."""
    done = helm("package", str(CHART), "-d", str(tmp_path))
    assert done.returncode == 0, done.stderr
    [packed] = tmp_path.glob("*.tgz")
    assert packed.stat().st_size < CONFIG_MAP_BYTES / 4
    assert objects(helm("template", RELEASE, str(packed), "-f", str(OBOT)).stdout)
