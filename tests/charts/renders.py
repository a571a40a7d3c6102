"""The administrators' chart as Helm renders it, without a cluster."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from enforcer.demo.failure import CannotRunHereError
from enforcer.demo.kube import binaries

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "charts" / "nameward"
RELEASE = "nameward"
SPACE = "nameward-system"
PRESETS = ("eks", "aks", "gke", "k3s", "openshift")
RANGES = ("--set", "config.enforcement.clusterCIDRs={10.244.0.0/16,10.96.0.0/12,192.168.0.0/24}")
"""What every installation has to say."""
EVERYTHING = (
    *RANGES,
    *("--set", "redis.mode=trial,redis.existingSecret=nameward-redis"),
    *("--set", "redis.trial.nodeCIDRs={192.168.0.0/24}"),
    *("--set", "monitoring.enabled=true,monitoring.existingSecret=nameward-metrics,monitoring.tls=true"),
    *("--set", "monitoring.serviceMonitor.enabled=true,monitoring.rules.enabled=true"),
    *("--set", "monitoring.dashboard.enabled=true,gate.enabled=true"),
    *("--set", "networkPolicies.namespaces={obot-mcp}"),
    *("--set", "tests.permitted.name=www.example.com"),
    *("--set", "openshift.securityContextConstraints=true,gate.runAsUser=null"),
    *("--set", "imagePullSecrets[0].name=registry,agent.apiServer.host=10.0.0.1,agent.apiServer.port=6443"),
)
"""All that can be switched on."""


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm v3 to its end; never raises for its exit code."""
    try:
        program = str(binaries.path_of("helm"))
    except CannotRunHereError as error:
        pytest.skip(str(error))
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=120)


def preset(name: str) -> tuple[str, ...]:
    """The arguments for a preset; "" is none."""
    return ("-f", str(CHART / f"values-{name}.yaml")) if name else ()


@cache
def text_of(*arguments: str) -> str:
    """What ``helm template`` prints."""
    done = helm("template", RELEASE, str(CHART), "-n", SPACE, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal_of(*arguments: str) -> str:
    """The words with which the chart refuses such values."""
    done = helm("template", RELEASE, str(CHART), "-n", SPACE, *arguments)
    assert done.returncode != 0, "it rendered"
    return done.stderr


def objects_of(text: str) -> list[Json]:
    """The objects in it."""
    return [each for each in yaml.safe_load_all(text) if each]


def rendered(*arguments: str) -> list[Json]:
    """The chart's objects."""
    return objects_of(text_of(*arguments))


def one(objects: list[Json], kind: str, name: str) -> Json:
    """The only object of that kind and name."""
    found = [each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, [(each["kind"], each["metadata"]["name"]) for each in objects]
    return found[0]


def containers(objects: list[Json], kind: str, name: str) -> dict[str, Json]:
    """The containers of a workload, by name."""
    pod = one(objects, kind, name)["spec"]["template"]["spec"]
    return {each["name"]: each for each in pod["containers"]}


def configuration(*arguments: str) -> Json:
    """The nameward.yaml that the agents read."""
    text = one(rendered(*arguments), "ConfigMap", f"{RELEASE}-agent")["data"]["nameward.yaml"]
    found: Json = yaml.safe_load(text)
    return found
