"""One real cluster for all of these tests: the chart is installed, the actors' pods run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from enforcer.demo.failure import CannotRunHereError, LabFailureError
from enforcer.demo.kube import cluster as clusters
from enforcer.demo.kube.lab import ClusterLab, running
from enforcer.demo.kube.scenes import ClusterStage, set_cluster_stage


@pytest.fixture(scope="session")
def bare() -> Iterator[ClusterStage]:
    """The cluster and the actors, before anybody has installed Nameward."""
    try:
        clusters.require()
    except CannotRunHereError as error:
        pytest.skip(str(error))
    with running() as lab:
        yield set_cluster_stage(lab)


@pytest.fixture(scope="session")
def found(bare: ClusterStage) -> str:
    """The node's rules before Nameward came: what is left when it goes."""
    return bare.cluster_lab.foreign_rules


@pytest.fixture(scope="session")
def stage(bare: ClusterStage, found: str) -> ClusterStage:
    """The same with the chart installed and the node enforcing."""
    try:
        bare.cluster_lab.ward.start()
    except LabFailureError as error:
        pytest.fail(f"{error}\n{bare.cluster_lab.ward.tail(40)}")
    return bare


@pytest.fixture(scope="session")
def lab(stage: ClusterStage) -> ClusterLab:
    """The cluster alone, with Nameward in it."""
    return stage.cluster_lab
