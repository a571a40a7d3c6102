"""What the administrators' chart renders: golden, by preset; and what must hold in each of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from policy.runtime.settings import load_settings
from tests.charts.renders import (
    CHART,
    EVERYTHING,
    PRESETS,
    RANGES,
    RELEASE,
    ROOT,
    SPACE,
    Json,
    configuration,
    containers,
    helm,
    one,
    preset,
    rendered,
    text_of,
)

pytestmark = pytest.mark.cluster
BETWEEN = "---\n"
GOLDEN = ROOT / "tests" / "golden" / "charts"
RENDERS = {
    "default": RANGES,
    **{name: (*preset(name), *RANGES) for name in PRESETS},
    "everything": EVERYTHING,
}
VARIANTS = pytest.mark.parametrize("arguments", RENDERS.values(), ids=RENDERS)


@pytest.mark.parametrize("name", RENDERS)
def test_it_renders_what_was_agreed(name: str) -> None:
    """Golden, of a preset what differs from the default: `make golden` writes it anew."""
    golden = GOLDEN / f"nameward-{name}.yaml"
    now = text_of(*RENDERS[name])
    if name in PRESETS:
        plain = set(text_of(*RENDERS["default"]).split(BETWEEN))
        now = BETWEEN.join(each for each in now.split(BETWEEN) if each not in plain)
    if os.environ.get("NAMEWARD_WRITE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(now)
    assert now == golden.read_text()


@VARIANTS
def test_it_has_nothing_to_complain_of(arguments: tuple[str, ...]) -> None:
    """`helm lint --strict`."""
    done = helm("lint", "--strict", str(CHART), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_preset_is_tested() -> None:
    """The files beside values.yaml are the ones known here."""
    assert {path.stem for path in CHART.glob("values-*.yaml")} == {f"values-{name}" for name in PRESETS}


@VARIANTS
def test_the_configuration_is_one_that_nameward_takes(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """What the chart writes for the nodes loads, with the variables that the pod has."""
    file = tmp_path / "nameward.yaml"
    file.write_text(yaml.safe_dump(configuration(*arguments)))
    environ = {
        each["name"]: each["value"].replace("$(HOST_IP)", "192.168.0.7")
        for each in containers(rendered(*arguments), "DaemonSet", f"{RELEASE}-agent")["enforcer"]["env"]
        if "value" in each
    }
    settings = load_settings(str(file), environ | {"NAMEWARD_NODE": "node-a"})
    assert settings.policy.source == "kubernetes"


@VARIANTS
def test_the_agents_pod_is_as_decided(arguments: tuple[str, ...]) -> None:
    """On the host's network without a declared port; rolled by surge; two containers, one with a token."""
    agents = one(rendered(*arguments), "DaemonSet", f"{RELEASE}-agent")["spec"]
    pod = agents["template"]["spec"]
    assert agents["updateStrategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert (pod["hostNetwork"], pod["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["nodeSelector"]["kubernetes.io/os"] == "linux"
    assert not pod["automountServiceAccountToken"]
    by_name = {each["name"]: each for each in pod["containers"]}
    assert set(by_name) == {"enforcer", "resolver"}
    assert not any("ports" in each for each in by_name.values())
    assert [name for name, each in by_name.items() if "token" in mounts(each)] == ["enforcer"]
    health = {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}
    assert len(health) == 2
    assert len(health & mounts(by_name["resolver"])) == len(health & mounts(by_name["enforcer"])) == 1
    assert not mounts(by_name["resolver"]) & mounts(by_name["enforcer"]) & health


def mounts(container: Json) -> set[str]:
    """The names of the volumes that it has."""
    return {each["name"] for each in container["volumeMounts"]}


@VARIANTS
def test_no_container_may_more_than_it_must(arguments: tuple[str, ...]) -> None:
    """Every container of every workload: no privilege, a read-only root, limits, seccomp."""
    objects = rendered(*arguments)
    pods = {
        f"{each['kind']} {each['metadata']['name']}": (each["spec"].get("template") or each)["spec"]
        for each in objects
        if each["kind"] in {"DaemonSet", "Deployment", "Job", "Pod"}
    }
    assert len(pods) >= 4
    for place, pod in pods.items():
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, place
        assert not {"hostPID", "hostIPC"} & set(pod), place
        for each in pod["containers"]:
            security = each["securityContext"]
            assert not security["allowPrivilegeEscalation"], place
            assert "privileged" not in security, place
            assert security["readOnlyRootFilesystem"], place
            assert security["capabilities"]["drop"] == ["ALL"], place
            assert {"memory"} <= set(each["resources"]["limits"]), place
            if each["name"] != "enforcer":
                assert "add" not in security["capabilities"], place
                assert pod["securityContext"].get("runAsNonRoot") or security["runAsNonRoot"], place


def test_one_more_capability_where_it_listens_on_port_53() -> None:
    """NET_BIND_SERVICE is there only with dns.listen."""
    plain = containers(rendered(*RANGES), "DaemonSet", f"{RELEASE}-agent")["enforcer"]
    listens = (*RANGES, "--set", "config.dns.listen={192.0.2.1}")
    more = containers(rendered(*listens), "DaemonSet", f"{RELEASE}-agent")["enforcer"]
    assert plain["securityContext"]["capabilities"]["add"] == ["NET_ADMIN", "SETUID", "CHOWN"]
    assert more["securityContext"]["capabilities"]["add"][3:] == ["NET_BIND_SERVICE"]


def test_a_digest_wins_over_the_tag() -> None:
    """In every workload, so that an air-gapped registry serves what was looked at."""
    digest = "sha256:" + "0" * 64
    objects = rendered(
        *RANGES, "--set", f"image.digest={digest},image.tag=latest,image.repository=r.example/n"
    )
    images = {
        container["image"]
        for each in objects
        if each["kind"] in {"DaemonSet", "Deployment", "Job", "Pod"}
        for container in (each["spec"].get("template") or each)["spec"]["containers"]
    }
    assert images == {f"r.example/n@{digest}"}


def test_a_changed_configuration_rolls_the_agents() -> None:
    """Some settings are read at the start alone; a roll costs nothing."""

    def checksum(*more: str) -> str:
        agents = one(rendered(*RANGES, *more), "DaemonSet", f"{RELEASE}-agent")
        found: str = agents["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        return found

    assert checksum() == checksum() != checksum("--set", "config.dns.maxTTL=30s")


def test_namespaces_are_governed_by_label_unless_named() -> None:
    """By the label of the default, by other labels, or by name: what is said replaces it."""

    def governed(*more: str) -> object:
        return configuration(*RANGES, *more)["policy"]["governedNamespaces"]

    assert governed() == {"matchLabels": {"nameward.dev/governed": "true"}}
    assert governed("--set", "config.policy.governedNamespaces={a,b}") == ["a", "b"]
    by_label = ("--set-string", r"config.policy.governedNamespaces.matchLabels.egress=governed")
    assert governed(*by_label) == {"matchLabels": {"egress": "governed"}}


def test_helm_test_goes_where_pods_are_governed() -> None:
    """Into a namespace that it makes if labels govern, else into the first that is named."""

    def places(*more: str) -> tuple[set[str], list[str]]:
        hooks = [
            each
            for each in rendered(*RANGES, *more)
            if each["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"
        ]
        made = [each["metadata"]["name"] for each in hooks if each["kind"] == "Namespace"]
        return {each["metadata"]["namespace"] for each in hooks if each["kind"] != "Namespace"}, made

    assert places() == ({f"{RELEASE}-test"}, [f"{RELEASE}-test"])
    assert places("--set", "config.policy.governedNamespaces={a,b}") == ({"a"}, [])
    assert places("--set", "tests.namespace=c") == ({"c"}, [])
    assert places("--set", "tests.enabled=false") == (set(), [])


def test_the_release_says_its_own_names() -> None:
    """Two releases in two namespaces share no name but the kinds'."""
    done = helm("template", "other", str(CHART), "-n", "elsewhere", *EVERYTHING)
    names = [each["metadata"] for each in yaml.safe_load_all(done.stdout) if each]
    assert {each["name"].startswith("other") for each in names} == {True}
    assert {each.get("namespace") for each in names} <= {None, "elsewhere", "other-test", "obot-mcp"}
    assert SPACE not in done.stdout


def test_images_for_an_air_gapped_registry() -> None:
    """images.txt lists all that the chart can start, and nothing else."""
    wanted = {
        container["image"]
        for each in rendered(*EVERYTHING)
        if each["kind"] in {"DaemonSet", "Deployment", "Job", "Pod"}
        for container in (each["spec"].get("template") or each)["spec"]["containers"]
    }
    listed = [
        line.split()[0] for line in (CHART / "images.txt").read_text().splitlines() if line[:1] not in "#"
    ]
    assert sorted(listed) == sorted(wanted)
