"""What the chart gives beside containment: its own test, metrics behind a token, both ways of DNS."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from enforcer.demo import places
from enforcer.demo.kube.lab import ClusterLab
from enforcer.demo.kube.ward import NAMESPACE, RELEASE
from enforcer.demo.processes import output_of

pytestmark = pytest.mark.e2e

SECRET, TOKEN = "metrics-token", "a-token-of-the-tests"
OPTIONS = (
    f"monitoring.enabled=true,monitoring.existingSecret={SECRET}",
    f"tests.permitted.name={places.CRM}",
    f"tests.forbidden.name={places.DROP},tests.forbidden.address={places.ATTACKER4}",
)
ASK = """
import sys, urllib.error, urllib.request
asked = urllib.request.Request(sys.argv[1], headers={"Authorization": sys.argv[2]})
try:
    with urllib.request.urlopen(asked, timeout=20) as answer:
        print(answer.status, answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.code)
"""


@pytest.fixture(scope="module")
def upgraded(lab: ClusterLab) -> Iterator[ClusterLab]:
    """The release with monitoring, and what its own test may and may not reach; afterwards as it was."""
    literal = f"--from-literal=token={TOKEN}"
    lab.cluster.kubectl("create", "secret", "generic", SECRET, "-n", NAMESPACE, literal)
    lab.ward.install(*(word for option in OPTIONS for word in ("--set", option)))
    yield lab
    lab.ward.install()


def test_helm_test_holds(upgraded: ClusterLab) -> None:
    """A pod in a namespace of its own tries what must be refused, and reaches what its policy permits."""
    done = upgraded.cluster.run("helm", "test", RELEASE, "-n", NAMESPACE, "--timeout=240s", timeout_s=300)
    said = upgraded.cluster.run("kubectl", "logs", f"{RELEASE}-test", "-n", f"{RELEASE}-test").stdout
    assert done.returncode == 0, f"{done.stderr}\n{said}\n{upgraded.ward.tail()}"


def test_metrics_are_given_for_the_token(upgraded: ClusterLab) -> None:
    """On the node's own address, from the nodes' network: with the token alone."""
    listed = upgraded.cluster.get(
        "endpointslices", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=metrics"
    )
    [slice_] = listed["items"]
    address, port = slice_["endpoints"][0]["addresses"][0], slice_["ports"][0]["port"]

    def asked(header: str) -> str:
        return output_of(upgraded.node, ["python3", "-c", ASK, f"http://{address}:{port}/metrics", header])

    answer = asked(f"Bearer {TOKEN}")
    assert answer.startswith("200")
    assert "nameward_enforcing 1.0" in answer.splitlines()
    for wrong in ("Bearer another", "Basic Og=="):
        assert asked(wrong).strip() == "401"


def test_the_pod_may_name_a_resolver_that_nobody_is(lab: ClusterLab) -> None:
    """deploy/examples/dns: dnsPolicy None, an address that no server has; the node answers."""
    lab.set_domains("ms1dns", [places.CRM])
    pod = lab.add_pod("ms1dns", 40)
    try:
        command = ["dig", "+short", "+tries=3", "+time=5", "@192.0.2.53", places.CRM, "A"]
        deadline = time.monotonic() + 60
        while not output_of(pod.space, command).split():
            assert time.monotonic() < deadline, "the permitted name is not answered"
            time.sleep(0.2)
        refused = output_of(pod.space, ["dig", "+tries=3", "+time=5", "@192.0.2.53", places.DROP, "A"])
        assert "NXDOMAIN" in refused
    finally:
        lab.remove_pod(pod)


def test_the_agents_use_what_they_were_given(lab: ClusterLab) -> None:
    """Two containers, ready, never started twice."""
    listed = lab.cluster.get("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=agent")
    for pod in listed["items"]:
        states = {each["name"]: each for each in pod["status"]["containerStatuses"]}
        assert set(states) == {"enforcer", "resolver"}
        assert all(each["ready"] for each in states.values()), json.dumps(states)
