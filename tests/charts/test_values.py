"""What the chart says to values that cannot be right: where, and what to write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from policy.runtime.settings_schema import config_schema, written_into
from tests.charts.renders import CHART, RANGES, refusal_of, text_of

pytestmark = pytest.mark.cluster

SCHEMA = CHART / "values.schema.json"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("config.dns.maxTtl=60s", "at '/config/dns': additional properties 'maxTtl' not allowed"),
        ("config.dns.maxTTL=60", "at '/config/dns/maxTTL': got number, want string"),
        ("config.dns.maxTTL=sixty", "at '/config/dns/maxTTL': 'sixty' does not match pattern"),
        ("config.enforcement.onRevoke=drop", "value must be one of 'cut', 'keep'"),
        ("config.limits.grants=0", "at '/config/limits/grants': minimum: got 0, want 1"),
        ("config.policy.governedNamespaces=all", "at '/config/policy/governedNamespaces'"),
        ("config.policy.source=files", "at '/config/policy': additional properties 'source' not allowed"),
        ("config.state.redis.url=redis://r", "at '/config': additional properties 'state' not allowed"),
        ("config.policy.ceiling.grant[0].names={a.example.com}", "missing property 'namespace'"),
        ("image.digest=latest", "at '/image/digest': 'latest' does not match pattern"),
        ("image.pullPolicy=Sometimes", "value must be one of 'Always', 'IfNotPresent', 'Never'"),
        ("redis.mode=yes", "at '/redis/mode': value must be one of 'none', 'trial', 'external'"),
        ("redis.secretKeys={hmac}", "at '/redis/secretKeys/0': value must be one of"),
        ("agents.tolerations=x", "additional properties 'agents' not allowed"),
        ("monitoring.listen=9153", "at '/monitoring/listen'"),
        ("uninstall.wait=60", "at '/uninstall/wait'"),
        ("networkPolicies.namespaces={Obot}", "at '/networkPolicies/namespaces/0'"),
    ],
)
def test_the_schema_names_the_place(said: str, words: str) -> None:
    """Before anything is rendered."""
    assert words in refusal_of(*RANGES, "--set", said)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ((), "Set config.enforcement.clusterCIDRs to the ranges of the cluster's pods, services and nodes"),
        (
            (*RANGES, "--set", "redis.mode=trial"),
            "kubectl -n nameward-system create secret generic nameward-redis",
        ),
        (
            (*RANGES, "--set", "redis.mode=external,redis.existingSecret=s"),
            "set redis.url, for example rediss://",
        ),
        ((*RANGES, "--set", "redis.mode=trial,redis.existingSecret=s"), "set redis.trial.nodeCIDRs"),
        ((*RANGES, "--set", "monitoring.enabled=true"), "set monitoring.existingSecret to a Secret"),
        ((*RANGES, "--set", "monitoring.serviceMonitor.enabled=true"), "needs monitoring.enabled"),
    ],
)
def test_what_only_a_person_can_know_is_asked_for(said: tuple[str, ...], words: str) -> None:
    """In a sentence, with what to type."""
    assert words in refusal_of(*said)


def test_a_range_without_its_length_is_refused() -> None:
    """As nameward.yaml refuses it."""
    words = "at '/config/enforcement/clusterCIDRs/0': '10.0.0.0' does not match pattern"
    assert words in refusal_of("--set", "config.enforcement.clusterCIDRs={10.0.0.0}")


@pytest.mark.parametrize(
    "said",
    [
        "config.dns.maxTTL=1h30m",
        "config.limits.distinctNames=300/10m",
        "config.dns.capture=false",
        "config.dns.upstreams={tls://9.9.9.9#dns.quad9.net,1.1.1.1}",
        "config.enforcement.clusterCIDRs={fd00:1::/48}",
        "config.policy.ceiling.denied.names={*.pastebin.example}",
        "config.policy.kubernetes.eventsPerHour=0",
        "global.imageRegistry=x",
        "config.dns=null",
    ],
)
def test_what_nameward_takes_the_schema_takes(said: str) -> None:
    """It never stands in the way; `global` is what a chart around this one hands down."""
    assert "kind: DaemonSet" in text_of(*RANGES, "--set", said)


def test_the_schema_is_made_of_the_settings() -> None:
    """`make docs` writes it anew."""
    text = SCHEMA.read_text()
    assert written_into(text) == text


def test_values_yaml_shows_every_value() -> None:
    """Nothing can be set that the file does not show; what it shows, each render proves."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads(SCHEMA.read_text())
    for name in (
        "config",
        "global",
    ):  # the settings' own page has the former, no chart of ours reads the latter
        schema["properties"].pop(name)
    assert list(_unseen(schema, values, "")) == []


def _unseen(schema: dict[str, Any], values: object, path: str) -> Iterator[str]:
    for key, item in schema.get("properties", {}).items():
        here = f"{path}.{key}".lstrip(".")
        if not isinstance(values, dict) or key not in values:
            yield here
        elif key != "resources":  # their fields are Kubernetes'
            yield from _unseen(item, values[key], here)


def test_the_config_schema_has_no_key_that_the_cluster_decides() -> None:
    """The source, the node's name, the way to Redis follow from other values."""
    config = config_schema()["properties"]
    assert {"policy", "dns", "enforcement", "limits", "log", "cluster"} == set(config)
    assert {"source", "manifests"} & set(config["policy"]["properties"]) == set()
