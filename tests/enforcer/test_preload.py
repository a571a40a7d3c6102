"""What a start imports: half of it is imports, so what only some configurations need is not among them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, sys
import enforcer.cli
from enforcer.cli import daemons
from enforcer.workers import RESOLVER, preload
from policy.runtime.settings import load_settings
daemons.preload_authority(load_settings(sys.argv[1], {}))
first = sorted(sys.modules)
preload(RESOLVER)
print(json.dumps([first, sorted(sys.modules)]))
"""
PEOPLES = ("enforcer.cli.output", "markdown_it", "pygments", "rich")
"""For a terminal, which a daemon has none of."""
REDIS = ("enforcer.sharing.service", "enforcer.sharing.redis.door", "hiredis", "redis")
CLUSTERS = (
    "enforcer.kube.client",
    "enforcer.reports.service",
    "enforcer.sources.kubernetes.source",
    "kubernetes",
    "urllib3",
)
TLS = ("OpenSSL", "cryptography", "enforcer.certificate", "service_identity", "twisted.internet.ssl")
OTHERS = (
    "enforcer.controller",
    "enforcer.demo",
    "enforcer.obot",
    "jsonschema",
    "pkg_resources",
    "setuptools",
)


def loaded(tmp_path: Path, **settings: object) -> tuple[set[str], set[str]]:
    """Modules, and the packages above them, of the enforcer when it is forked, and of everything."""
    path = tmp_path / "nameward.yaml"
    minimal = {"node": "n", "policy": {"governedNamespaces": ["a"], "manifests": [str(tmp_path)]}}
    path.write_text(json.dumps(minimal | settings))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)],
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=True,
    )
    first, all_ = json.loads(done.stdout)
    return set(first), set(all_)


def test_nothing_is_imported_that_a_plain_node_does_not_need(tmp_path: Path) -> None:
    """Neither in the enforcer nor in the resolver; the enforcer does not wait for the resolver's code."""
    first, everything = loaded(tmp_path)
    assert {"enforcer.wiring", "policy.manifest_assembly"} <= first
    assert {"resolver.wiring", "dns.rdtypes"} <= everything
    assert not everything & {*PEOPLES, *REDIS, *CLUSTERS, *OTHERS}
    assert not {name for name in first if name.split(".")[0] in {"dns", "resolver"}} | (first & {*TLS})


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({"state": {"redis": {"url": "redis://127.0.0.1:6379", "hmacKeyFile": "/nowhere"}}}, REDIS),
        ({"policy": {"governedNamespaces": ["a"], "source": "kubernetes"}}, CLUSTERS),
        ({"metrics": {"certFile": "/nowhere", "keyFile": "/nowhere"}}, ("OpenSSL", "enforcer.certificate")),
    ],
)
def test_what_a_configuration_needs_is_imported_before_the_fork(
    tmp_path: Path, settings: dict[str, object], needed: tuple[str, ...]
) -> None:
    """A worker that comes back imports nothing: neither does it wait, nor meet an upgrade's code."""
    first, _ = loaded(tmp_path, **settings)
    assert first >= {*needed}
