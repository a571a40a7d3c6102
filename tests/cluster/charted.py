"""What of the administrators' chart a test needs in the API server: its kinds, its admission policies."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from enforcer.demo.kube import binaries
from enforcer.kube.answers import ApiRefused
from tests.cluster.real import RealApi

Json = dict[str, Any]

CHART = Path(__file__).parents[2] / "deploy" / "charts" / "nameward"
GROUP = "networking.aviatrix.com"
OWN_GROUP = "nameward.dev"
RELEASE = "nameward"
SPACE = "nameward-system"
NEEDED = ("--set", "config.enforcement.clusterCIDRs={10.0.0.0/8}")
POLICIES = f"/apis/{GROUP}/v1alpha1/namespaces/{{}}/firewallpolicies"
WEB_POLICIES = f"/apis/{GROUP}/v1alpha1/namespaces/{{}}/webgrouppolicies"
STATUSES = f"/apis/{OWN_GROUP}/v1alpha1/namespaces/{{}}/policystatuses"
NODE_STATUSES = f"/apis/{OWN_GROUP}/v1alpha1/nodestatuses"


def until(holds: Callable[[], object], what: str, limit_s: float = 30.0) -> None:
    """Poll until it holds. Raises AssertionError with ``what`` after the limit."""
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what}"
        time.sleep(0.05)


def rendered(*arguments: str, namespace: str = SPACE) -> list[Json]:
    """The chart's objects as Helm renders them."""
    command = [str(binaries.path_of("helm")), "template", RELEASE, str(CHART), "-n", namespace, *NEEDED]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def install_kinds(api: RealApi) -> None:
    """Apply the chart's CRDs and wait until they are served."""
    api.kubectl("apply", "--server-side", "-f", str(CHART / "crds"))
    names = sorted(path.stem.partition("_") for path in (CHART / "crds").glob("*.yaml"))
    crds = [f"crd/{plural}.{group}" for group, _, plural in names]
    api.kubectl("wait", "--for=condition=Established", "--timeout=60s", *crds)


def install(api: RealApi, *templates: str, more: Sequence[str] = ()) -> None:
    """Apply some of the chart's templates, and the namespace of the release."""
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
    shown = (argument for name in templates for argument in ("-s", f"templates/{name}.yaml"))
    api.apply(*rendered(*shown, *more))


def install_admission(api: RealApi) -> None:
    """Apply kinds and admission policies, and wait until they are in force."""
    install_kinds(api)
    install(api, "admission-fields", "admission-nodes", "admission-namespaces")
    door = api.admin
    space = api.namespace("admission")

    def in_force() -> bool:
        bad = [
            (POLICIES, firewall_policy("x", spec={"stray": 1})),
            (WEB_POLICIES, webgroup_policy("x", stray=1)),
        ]
        return all(refused(door, path.format(space), body, dryRun="All") for path, body in bad)

    until(in_force, "the admission policies are in force")


def firewall_policy(name: str, /, spec: Json | None = None, **rule: object) -> Json:
    """A FirewallPolicy as Obot's provider writes it; ``rule`` changes its first rule."""
    first = {
        "name": "allow-approved-egress",
        "action": "permit",
        "selector": {"matchLabels": {"app": "ms1"}},
        "destinationSmartGroups": [{"name": "any-destination"}],
        "webGroups": [{"name": "approved"}],
        "protocol": "tcp",
        "port": 443,
        "logging": True,
    }
    first = {key: value for key, value in (first | rule).items() if value is not None}
    body = {
        "rules": [
            first,
            {
                "name": "deny-all-external",
                "action": "deny",
                "selector": {"matchLabels": {"app": "ms1"}},
                "destinationSmartGroups": [{"name": "any-destination"}],
                "protocol": "any",
                "logging": True,
            },
        ],
        "smartGroups": [{"name": "any-destination", "selectors": [{"cidr": "0.0.0.0/0"}]}],
        "webGroups": [{"name": "approved", "domains": ["api.example.com", "*.example.org"]}],
    }
    return _policy("FirewallPolicy", name, body | (spec or {}))


def webgroup_policy(name: str, /, **spec: object) -> Json:
    """A WebgroupPolicy; ``spec`` changes its fields (None: without that one)."""
    body = {"allowedDomains": ["api.example.com"], "selector": {"matchLabels": {"app": "ms1"}}} | spec
    return _policy("WebgroupPolicy", name, {key: value for key, value in body.items() if value is not None})


def _policy(kind: str, name: str, spec: Json) -> Json:
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {key: value for key, value in spec.items() if value is not None},
    }


def refused(door: Any, path: str, body: Json, **query: str) -> str:
    """The words with which the server refuses to create it; "" if it takes it."""
    return refusal(lambda: door.create(path, body, **query))


def refusal(act: Callable[[], object]) -> str:
    """The words of a refusal; "" if there was none."""
    try:
        act()
    except ApiRefused as error:
        return error.message or str(error)
    return ""
