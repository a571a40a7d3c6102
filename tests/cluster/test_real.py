"""The API server of the tests is a real one, and refuses what RBAC does not allow."""

from __future__ import annotations

import json

import pytest

from tests.cluster.real import RealApi, account

pytestmark = pytest.mark.cluster


def test_it_is_the_version_that_we_built(api: RealApi) -> None:
    """Server and client say the same version."""
    said = json.loads(api.kubectl("version", "-o", "json"))
    assert said["serverVersion"]["gitVersion"] == said["clientVersion"]["gitVersion"] == "v1.35.4"


def test_an_account_may_do_what_its_role_says_and_nothing_else(api: RealApi) -> None:
    """RBAC is on: the verb that is missing is refused, in words that name it."""
    space = api.namespace()
    api.apply(account(space, "reader"))
    api.kubectl("create", "role", "reader", "-n", space, "--verb=get,list", "--resource=configmaps")
    api.kubectl(
        "create", "rolebinding", "reader", "-n", space, "--role=reader", f"--serviceaccount={space}:reader"
    )
    kubeconfig = api.kubeconfig_as(space, "reader")
    assert api.get("configmaps", "-n", space, kubeconfig=kubeconfig)["items"] == []
    refused = api.refusal("create", "configmap", "x", "-n", space, kubeconfig=kubeconfig)
    assert 'cannot create resource "configmaps"' in refused
    verbs = {event["verb"] for event in api.audit(f"system:serviceaccount:{space}:reader")}
    assert {"list", "create"} <= verbs


def test_a_pods_token_names_its_node(api: RealApi) -> None:
    """What admission needs to hold an agent to its own node's object."""
    space = api.namespace()
    api.apply(
        account(space, "agent"),
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "agent-1", "namespace": space},
            "spec": {
                "nodeName": "node-1",
                "serviceAccountName": "agent",
                "containers": [{"name": "main", "image": "nothing"}],
            },
        },
    )
    said = api.kubectl(
        "auth", "whoami", "-o", "json", kubeconfig=api.kubeconfig_as(space, "agent", pod="agent-1")
    )
    extra = json.loads(said)["status"]["userInfo"]["extra"]
    assert extra["authentication.kubernetes.io/node-name"] == ["node-1"]


def test_a_mutating_policy_is_served(api: RealApi) -> None:
    """The gate's injection needs it; before 1.36 it is off unless asked for."""
    assert "mutatingadmissionpolicies" in api.kubectl("api-resources", "-o", "name")


def test_it_comes_back_with_what_it_held(own_api: RealApi) -> None:
    """A killed API server is started again: etcd kept everything."""
    space = own_api.namespace()
    own_api.control.apiserver.stop(grace_s=0)
    assert not own_api.control.is_ready()
    own_api.control.start_apiserver()
    assert own_api.get("namespace", space)["metadata"]["name"] == space
