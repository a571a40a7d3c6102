"""Alert rules and dashboard: they ask for metrics that there are."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from policy.runtime.metrics import ENFORCER_METRICS, RESOLVER_METRICS, Metric
from tests.charts.renders import CHART, EVERYTHING, RANGES, RELEASE, one, rendered

pytestmark = pytest.mark.cluster

METRICS = ENFORCER_METRICS | RESOLVER_METRICS
NAME = re.compile(r"nameward_[a-z_]+")
BY = re.compile(r"(\w+)(?:\{([^}]*)\})?")


def rules() -> list[dict[str, object]]:
    """All alert rules."""
    spec = one(rendered(*EVERYTHING), "PrometheusRule", RELEASE)["spec"]
    return [rule for group in spec["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    """Every expression of rules and dashboard."""
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return [str(rule["expr"]) for rule in rules()] + asked


def definition(name: str) -> Metric | None:
    """The metric of a series' name."""
    return METRICS.get(name) or METRICS.get(name.removesuffix("_bucket"))


def test_they_ask_for_metrics_that_there_are() -> None:
    """By name; counters as rates; histograms by their buckets."""
    asked = [name for text in expressions() for name in NAME.findall(text)]
    assert len(asked) > 20
    assert {name for name in asked if definition(name) is None} == set()
    for text in expressions():
        for name in NAME.findall(text):
            metric = definition(name)
            assert metric is not None
            if metric.kind != "gauge":
                assert re.search(rf"(rate|increase)\({name}[{{\[]", text), text
            assert (metric.kind == "histogram") == name.endswith("_bucket"), text


def test_they_ask_for_labels_that_there_are() -> None:
    """Labels of the metric, `le`, and `node`, which the ServiceMonitor adds."""
    for text in expressions():
        for name, matchers in re.findall(r"(nameward_[a-z_]+)\{([^}]*)\}", text):
            metric = definition(name)
            assert metric is not None
            labels = {each.group(1) for each in re.finditer(r"(\w+)(?:=~|!=|=)", matchers)}
            assert labels <= {*metric.labels, "node"}, text


def test_the_verdicts_asked_for_are_counted() -> None:
    """`blocked` is what the resolver calls a refused question."""
    assert any('verdict="blocked"' in text for text in expressions())
    verdicts = (CHART.parents[2] / "resolver" / "verdicts.py").read_text()
    assert re.search(r"Kind = Literal\[.*\"blocked\"", verdicts)


def test_every_alert_says_what_and_what_to_do() -> None:
    """A summary, a description, a severity."""
    found = rules()
    assert len({rule["alert"] for rule in found}) == len(found) >= 8
    for rule in found:
        assert {"summary", "description"} <= set(yaml.safe_load(json.dumps(rule["annotations"]))), rule
        assert rule["labels"] in [{"severity": each} for each in ("critical", "warning", "info")]


def test_redis_is_watched_where_it_is_used() -> None:
    """Without one, `nameward_redis_up` is 0 and says nothing."""
    without = rendered(*RANGES, "--set", "monitoring.rules.enabled=true")
    groups = one(without, "PrometheusRule", RELEASE)["spec"]["groups"]
    assert [group["name"] for group in groups] == ["nameward"]


def test_the_metrics_are_behind_a_token() -> None:
    """Scraped with the token of the Secret that the agents compare with; over TLS where it is on."""
    objects = rendered(*EVERYTHING)
    endpoint = one(objects, "ServiceMonitor", f"{RELEASE}-metrics")["spec"]["endpoints"][0]
    assert endpoint["authorization"] == {
        "type": "Bearer",
        "credentials": {"name": "nameward-metrics", "key": "token"},
    }
    assert (endpoint["scheme"], endpoint["tlsConfig"]["ca"]["secret"]["key"]) == ("https", "ca.crt")
    text = one(objects, "ConfigMap", f"{RELEASE}-agent")["data"]["nameward.yaml"]
    assert yaml.safe_load(text)["metrics"]["tokenFile"] == "/etc/nameward-metrics/token"
    service = one(objects, "Service", f"{RELEASE}-metrics")["spec"]
    assert [each["targetPort"] for each in service["ports"]] == [9153]


def test_without_monitoring_the_metrics_stay_on_the_node() -> None:
    """On loopback."""
    text = one(rendered(*RANGES), "ConfigMap", f"{RELEASE}-agent")["data"]["nameward.yaml"]
    assert yaml.safe_load(text)["metrics"] == {"listen": "127.0.0.1:9153"}
