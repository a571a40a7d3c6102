"""Scenes that only a cluster has: the installation, what kubectl shows, first packets of new pods, the end.

Owns plays and their words, and the stage in a cluster. Never sets up a cluster itself.
"""

from __future__ import annotations

import dataclasses
import threading
import time

from enforcer.demo import lab as labs
from enforcer.demo import places, scenes_attacks
from enforcer.demo.kube.client import RefusedError
from enforcer.demo.kube.lab import ClusterLab
from enforcer.demo.kube.ward import AGENT, NAMESPACE
from enforcer.demo.manifests import obot_policy
from enforcer.demo.pods import Pod
from enforcer.demo.processes import output_of, wait_until
from enforcer.demo.scenes import Facts, Scene, Stage, set_stage

_ROLL_LOOKUPS_A_S = 200
_REALIZED_S = 30.0


@dataclasses.dataclass(slots=True)
class ClusterStage(Stage):
    """The stage of the common scenes, in a cluster."""

    cluster_lab: ClusterLab


def set_cluster_stage(lab: ClusterLab) -> ClusterStage:
    """Write the policies and make the pods; Nameward is not installed yet."""
    stage = set_stage(lab)
    return ClusterStage(
        lab=lab,
        crm=stage.crm,
        ledger=stage.ledger,
        bulk=stage.bulk,
        temp=stage.temp,
        stranger=stage.stranger,
        cluster_lab=lab,
    )


def installed(stage: ClusterStage, facts: Facts) -> None:
    """The chart installs, and its pods are ready only when the node enforces."""
    took_s = stage.cluster_lab.ward.start()
    status = stage.cluster_lab.ward.status()
    facts.check(status["enforcing"] is True, f"enforcing after {took_s:.0f} s")
    facts.check(not status["rejectedPolicies"], f"{status['rejectedPolicies'] or 'no'} policies rejected")
    tables = output_of(stage.lab.node, ["nft", "list", "tables"]).splitlines()
    beside = "table ip kube-proxy" in tables and "table inet nameward" in tables
    facts.check(beside, "its table stands beside kube-proxy's" if beside else ", ".join(tables))


def realized(stage: ClusterStage, facts: Facts) -> None:
    """kubectl says of each policy that it is in force, and on how many pods."""
    row = ""

    def is_realized() -> bool:
        nonlocal row
        listed = stage.cluster_lab.cluster.kubectl(
            "get",
            "firewallpolicies",
            f"obot-mnp-{labs.CRM_SERVER}-fw",
            "-n",
            places.NAMESPACE,
            "--no-headers",
        )
        row = " ".join(listed.split())
        return "True" in row.split()

    facts.check(wait_until(is_realized, _REALIZED_S, 0.5), f"kubectl get fwp: {row}")


def mistaken(stage: ClusterStage, facts: Facts) -> None:
    """A policy with a mistake is refused with a sentence, before anything could trust in it."""
    wrong = obot_policy("mistake", [places.CRM])
    permit = wrong["spec"]["rules"][0]
    permit["ports"] = [str(permit.pop("port"))]
    try:
        stage.cluster_lab.cluster.apply_laxly(wrong)
    except RefusedError as error:
        said = str(error)
        facts.check("write port: 443" in said, f"refused: {said[said.find('in the rule') :]}")
    else:
        facts.check(holds=False, seen="accepted")


class Knocking:
    """A client that looks up and connects at a steady rate, each try in a thread, and counts the failed."""

    def __init__(self, pod: Pod, name: str, a_second: int) -> None:
        self._pod, self._name, self._pause_s = pod, name, 1 / a_second
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._lock = threading.Lock()
        self._open: set[threading.Thread] = set()
        self.tried = 0
        self.failures: list[str] = []

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; returns when the last answer is there or given up."""
        self._stopping.set()
        self._thread.join(30)
        for thread in list(self._open):
            thread.join(30)

    def _run(self) -> None:
        next_at = time.monotonic()
        while not self._stopping.is_set():
            thread = threading.Thread(target=self._try, daemon=True)
            self._open.add(thread)
            self.tried += 1
            thread.start()
            next_at += self._pause_s
            time.sleep(max(0.0, next_at - time.monotonic()))

    def _try(self) -> None:
        answer = self._pod.stub.once(self._name)
        if not answer.addresses:
            with self._lock:
                self.failures.append(answer.rcode)
        self._open.discard(threading.current_thread())


def rolled(stage: ClusterStage, facts: Facts) -> None:
    """A new DaemonSet pod takes over while a pod asks 200 times a second with five seconds' patience."""
    transfer = stage.crm.transfer(stage.crm.stub.ask(places.CRM).addresses[0])
    knocking = Knocking(stage.crm, places.CRM, _ROLL_LOOKUPS_A_S)
    lab = stage.cluster_lab
    before = lab.ward.pods()
    knocking.start()
    try:
        lab.cluster.kubectl("rollout", "restart", f"daemonset/{AGENT}", "-n", NAMESPACE)
        lab.cluster.await_rollout(NAMESPACE, f"daemonset/{AGENT}")
        wait_until(lambda: not set(before) & set(lab.ward.pods()), 60.0, 0.2)
    finally:
        knocking.stop()
    changed = not set(before) & set(lab.ward.pods())
    facts.check(changed, "another pod serves the node" if changed else "the old pod is still there")
    lost = ", ".join(sorted(set(knocking.failures)))
    facts.check(
        not knocking.failures, f"{len(knocking.failures)} of {knocking.tried} lookups failed {lost}".strip()
    )
    facts.check(transfer.grows(), "a transfer goes on" if transfer.grows() else f"transfer {transfer.error}")
    packets = stage.lab.world.counted("attacker")
    facts.check(packets == 0, f"{packets} packets reached the attacker")
    transfer.close()


def removed(stage: ClusterStage, facts: Facts) -> None:
    """helm uninstall takes every rule away and leaves everybody else's."""
    before = _others(stage)
    stage.cluster_lab.ward.stop()
    tables = output_of(stage.lab.node, ["nft", "list", "tables"])
    facts.check("nameward" not in tables, "no table of ours is left" if "nameward" not in tables else tables)
    facts.check(_others(stage) == before, "the others' tables are as they were")
    rules = output_of(stage.lab.node, ["ip", "rule"]) + output_of(stage.lab.node, ["ip", "-6", "rule"])
    facts.check(len(rules.splitlines()) == _OWN_RULES, f"{len(rules.splitlines())} routing rules")
    open_again = stage.crm.connect(places.ATTACKER4)
    facts.check(open_again.ok, f"the attacker is {open_again.outcome} again")


_OWN_RULES = 5
"""The kernel's own: three of IPv4, two of IPv6."""


def _others(stage: ClusterStage) -> list[str]:
    listed = output_of(stage.lab.node, ["nft", "list", "tables"]).splitlines()
    return sorted(line for line in listed if "nameward" not in line)


BEFORE = (
    scenes_attacks.BEFORE[0],
    Scene(
        "install",
        "3: default deny",
        "helm install nameward --wait, with a real CNI plugin, kube-proxy and CoreDNS around it",
        "enforcing, no policy rejected, nobody else's rules touched",
        installed,
    ),
)
FIRST = (
    Scene(
        "kubectl get fwp",
        "3: default deny",
        "the status of a policy as the API server shows it",
        "realized, with its pods",
        realized,
    ),
    Scene(
        "a mistake",
        "3: default deny",
        'a policy with ports: ["443"] by a writer that asks for no validation',
        "refused by admission, with a sentence",
        mistaken,
    ),
)
LAST = (
    Scene(
        "DaemonSet roll",
        "3: default deny holds when things break",
        f"kubectl rollout restart under {_ROLL_LOOKUPS_A_S} lookups a second and a transfer",
        "no lookup fails, the transfer goes on, nothing opens",
        rolled,
    ),
    Scene(
        "uninstall",
        "8: nothing else is touched",
        "helm uninstall",
        "every rule of ours is gone, every other one stays",
        removed,
    ),
)
