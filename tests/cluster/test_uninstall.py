"""``nameward uninstall`` on a real API server, as the account of the chart's hook before deletion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from enforcer.cli import main
from enforcer.demo.failure import CannotRunHereError
from enforcer.removal import MARK
from tests.cluster.charted import SPACE, install, install_admission
from tests.cluster.real import RealApi, account

pytestmark = pytest.mark.cluster

HOOK = "nameward-uninstall"


@pytest.fixture(scope="module")
def cluster() -> Iterator[RealApi]:
    """An API server of the module's own: the command waits for every NodeStatus that there is."""
    try:
        started = RealApi().start()
    except CannotRunHereError as error:
        pytest.skip(str(error))
    try:
        install_admission(started)
        install(started, "uninstall")
        started.apply(account(SPACE, HOOK))
        yield started
    finally:
        started.stop()


def status(cluster: RealApi, node: str, *, removed: bool) -> None:
    """Write a node's status as its agent does."""
    said: dict[str, Any] = {"version": "1", "enforcing": not removed, "removed": removed, "pods": 1}
    said["updatedAt"] = "2026-11-23T00:00:00Z"
    body = {
        "apiVersion": "nameward.dev/v1alpha1",
        "kind": "NodeStatus",
        "metadata": {"name": node},
        "status": said,
    }
    cluster.apply(body)


def uninstall(cluster: RealApi, name: str = HOOK, wait: str = "1s") -> Result:
    """The command, with that account's token."""
    kubeconfig = str(cluster.kubeconfig_as(SPACE, name))
    asked = ["uninstall", "--kubeconfig", kubeconfig, "--namespace", SPACE, "--wait", wait]
    return CliRunner().invoke(main, asked)


def marks(cluster: RealApi) -> dict[str, str]:
    """The annotations of Nameward's namespace."""
    found: dict[str, str] = cluster.get("namespace", SPACE)["metadata"].get("annotations", {})
    return found


def test_nodes_are_asked_and_waited_for(cluster: RealApi) -> None:
    """Who has not answered is named, with what to do; once all have, it is done."""
    status(cluster, "node-a", removed=True)
    status(cluster, "node-b", removed=False)
    done = uninstall(cluster)
    assert done.exit_code == 1, done.output
    assert done.output.splitlines() == [
        f"asked every node to take its rules away: {MARK} on namespace {SPACE}",
        "1 of 2 nodes did not answer within 1 s: node-b",
        "their rules stay until they are restarted, or nameward uninstall --local runs there",
    ]
    first = marks(cluster)[MARK]
    status(cluster, "node-b", removed=True)
    done = uninstall(cluster, wait="30s")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[1:] == ["the rules are gone from 2 nodes"]
    assert marks(cluster)[MARK] > first


def test_who_may_not_is_told(cluster: RealApi) -> None:
    """The API server's own words; nothing is marked by it."""
    cluster.apply(account(SPACE, "somebody"))
    before = marks(cluster)
    done = uninstall(cluster, "somebody")
    assert done.exit_code == 1
    assert "the API server does not do it: 403" in done.output
    assert marks(cluster) == before


def test_outside_a_pod_it_says_what_to_name() -> None:
    """Neither a pod nor a kubeconfig."""
    done = CliRunner(env={"KUBERNETES_SERVICE_HOST": ""}).invoke(main, ["uninstall"])
    assert done.exit_code == 2
    assert "--kubeconfig FILE" in done.output
