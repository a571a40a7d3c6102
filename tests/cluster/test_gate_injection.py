"""The gate's init container, put into every pod of a governed namespace by the API server itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.charted import install, until
from tests.cluster.real import RealApi

pytestmark = pytest.mark.cluster

GOVERNED = {
    "nameward.dev/governed": "true",
    "pod-security.kubernetes.io/enforce": "restricted",
}
RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod(space: str, name: str, **spec: Any) -> dict[str, Any]:
    """A pod as Obot makes them: restricted, one container."""
    main = {"name": "mcp", "image": "server", "securityContext": RESTRICTED}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": space},
        "spec": {"containers": [main], **spec},
    }


@pytest.fixture(scope="module")
def gated() -> Iterator[RealApi]:
    """An API server with the gate's policies in force, for this module: they are cluster-wide."""
    from enforcer.demo.failure import CannotRunHereError

    try:
        started = RealApi().start()
    except CannotRunHereError as error:
        pytest.skip(str(error))
    try:
        install(started, "gate", more=("--set", "gate.enabled=true"))
        space = started.namespace("warm", labels=GOVERNED)

        def is_injected() -> bool:
            started.run("kubectl", "delete", "pod", "probe", "-n", space, "--now", "--ignore-not-found")
            made = started.run("kubectl", "create", "-f", "-", text=str_of(pod(space, "probe")))
            if made.returncode:
                return False
            return "initContainers" in started.get("pod", "probe", "-n", space)["spec"]

        until(is_injected, "the gate's policies are in force", 60.0)
        yield started
    finally:
        started.stop()


def str_of(made: dict[str, Any]) -> str:
    """As JSON, for kubectl."""
    return json.dumps(made)


def test_a_pod_gets_the_gate_first(gated: RealApi) -> None:
    """Before init containers of its own, restricted as Pod Security wants it, and knowing who it is."""
    space = gated.namespace("gate", labels=GOVERNED)
    own = {"name": "own", "image": "init", "securityContext": RESTRICTED}
    gated.apply(pod(space, "plain"), pod(space, "with", initContainers=[own]))
    first = gated.get("pod", "plain", "-n", space)["spec"]["initContainers"]
    both = gated.get("pod", "with", "-n", space)["spec"]["initContainers"]
    assert [each["name"] for each in first] == ["nameward-gate"]
    assert [each["name"] for each in both] == ["nameward-gate", "own"]
    assert first[0]["args"] == ["gate"]
    fields = {each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in first[0]["env"]}
    assert fields == {
        "POD_NAMESPACE": "metadata.namespace",
        "POD_NAME": "metadata.name",
        "POD_UID": "metadata.uid",
    }
    assert first[0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_gate_that_does_nothing_is_refused(gated: RealApi) -> None:
    """Its name with another image, another command, or the environment of an interpreter."""
    space = gated.namespace("gate", labels=GOVERNED)
    right = gated.get("pod", "probe", "-n", _warm(gated))["spec"]["initContainers"][0]
    fakes: list[dict[str, Any]] = [
        {**right, "image": "elsewhere/nothing"},
        {**right, "command": ["true"]},
        {**right, "args": ["check"]},
        {**right, "env": [*right["env"], {"name": "PYTHONPATH", "value": "/tmp"}]},
        {**right, "env": [{**right["env"][0], "name": "PYTHONPATH"}, *right["env"][1:]]},
        {**right, "env": [_from("metadata.annotations['who']", right["env"][0]), *right["env"][1:]]},
        {**right, "restartPolicy": "Always"},
        {**right, "volumeMounts": [{"name": "own", "mountPath": "/opt"}]},
    ]
    volumes = [{"name": "own", "emptyDir": {}}]
    for number, fake in enumerate(fakes):
        made = pod(space, f"fake-{number}", initContainers=[fake], volumes=volumes)
        refused = gated.run("kubectl", "create", "-f", "-", text=str_of(made))
        assert refused.returncode == 1, fake
        assert "has to be nameward-gate as the cluster's policy adds it" in refused.stderr
    gated.apply(pod(space, "right", initContainers=[right]))


def test_the_gate_keeps_its_image(gated: RealApi) -> None:
    """Of a pod that is there an image may be changed, all others of it too; the gate's may not."""
    space = gated.namespace("gate", labels=GOVERNED)
    gated.apply(pod(space, "one"))
    path = ["patch", "pod", "one", "-n", space, "--type=json", "-p"]
    at = "/spec/{}/0/image"
    other = [{"op": "replace", "path": at.format("containers"), "value": "elsewhere/another"}]
    gated.kubectl(*path, json.dumps(other))
    gated.kubectl("label", "pod", "one", "-n", space, "a=b")
    nothing = [{"op": "replace", "path": at.format("initContainers"), "value": "elsewhere/nothing"}]
    assert "has to be nameward-gate" in gated.refusal(*path, json.dumps(nothing))


def _from(path: str, variable: dict[str, Any]) -> dict[str, Any]:
    """The variable, with a value that the pod's author chooses."""
    return {**variable, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def _warm(gated: RealApi) -> str:
    spaces = gated.get("namespaces")["items"]
    return str(
        next(each["metadata"]["name"] for each in spaces if each["metadata"]["name"].startswith("warm"))
    )


def test_other_pods_are_left_alone(gated: RealApi) -> None:
    """Namespaces that are not governed, and pods on the host's network."""
    free = gated.namespace("free")
    gated.apply(pod(free, "plain"))
    assert "initContainers" not in gated.get("pod", "plain", "-n", free)["spec"]
    governed = gated.namespace("gate", labels={"nameward.dev/governed": "true"})
    gated.apply(pod(governed, "host", hostNetwork=True))
    assert "initContainers" not in gated.get("pod", "host", "-n", governed)["spec"]
