"""The release goes, last of all: the node is as it was found, and Nameward can come again."""

from __future__ import annotations

import re

import pytest

from enforcer.demo.kube import scenes
from enforcer.demo.kube.scenes import ClusterStage
from enforcer.demo.processes import output_of
from enforcer.demo.scenes import play

pytestmark = pytest.mark.e2e


def without_counts(rules: str) -> set[str]:
    """The rules' lines, but for what counts packets and what kube-proxy makes of the pods there are."""
    return {
        re.sub(r"counter packets \d+ bytes \d+", "counter", line).strip()
        for line in rules.splitlines()
        if line.startswith(("table", "\tchain"))
        and not re.search(r"chain (service|endpoint|no-endpoints|external|firewall)", line)
    }


def test_the_ruleset_is_left_as_it_was_found(stage: ClusterStage, found: str) -> None:
    """helm uninstall: no table, rule, route or file of ours is left."""
    step = play(scenes.LAST[1], stage)
    assert step.ok, f"{step.seen}\n{stage.cluster_lab.ward.tail()}"
    left = output_of(stage.lab.node, ["nft", "list", "ruleset"])
    assert without_counts(left) == without_counts(found)


def test_it_can_be_installed_again(stage: ClusterStage) -> None:
    """What the removal left behind does not hinder the next one."""
    stage.cluster_lab.ward.start()
    assert stage.lab.ward.status()["enforcing"] is True
