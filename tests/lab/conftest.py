"""The lab without Nameward for the tests of the lab itself, and with it for the invariants."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from enforcer.demo import places, prerequisites, shared
from enforcer.demo.cluster import running as running_cluster
from enforcer.demo.failure import CannotRunHereError
from enforcer.demo.scenes import Stage
from enforcer.demo.scenes_nodes import NodesStage, set_nodes_stage
from enforcer.demo.stub import Stub
from tests.lab.staged import staged

FOREIGN_RULES = """
table ip cluster {
  chain untracked {
    type filter hook prerouting priority raw
    ip daddr 10.96.0.10 udp dport 53 notrack
    ip daddr 10.96.0.10 tcp dport 53 notrack
  }
  chain leaving {
    type nat hook postrouting priority srcnat;
    oifname "uplink0" ip saddr 10.244.0.0/24 masquerade
  }
}
table inet firewall {
  chain forward { type filter hook forward priority filter; policy accept; ct state invalid counter drop; }
}
"""
"""What others keep on a node: NodeLocal's notrack, the cluster's masquerading, a host firewall."""


@pytest.fixture(scope="session")
def open_stage() -> Iterator[Stage]:
    """A whole lab in which nothing is enforced; its pods ask the outside name server directly."""
    with staged() as stage:
        for pod in stage.lab.pods.values():
            pod.stub = Stub(pod.space, places.UPSTREAM4)
        yield stage


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """A whole lab with ``nameward node`` enforcing, beside foreign rules that it has to leave alone."""
    with staged() as made:
        made.lab.add_foreign_rules(FOREIGN_RULES)
        made.lab.ward.start()
        yield made


@pytest.fixture(scope="module")
def nodes() -> Iterator[NodesStage]:
    """Two nodes that enforce and share a Redis, with their pods."""
    try:
        prerequisites.require(redis=True)
    except CannotRunHereError as error:
        pytest.skip(str(error))
    with running_cluster() as cluster:
        made = set_nodes_stage(cluster)
        for node in cluster.nodes:
            node.ward.start()
        said = shared.differences(cluster)
        assert not said, said
        yield made
