"""What breaks in a cluster: every process, and the API server. The kernel's rules outlive all of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from enforcer.demo import lab as labs
from enforcer.demo import places
from enforcer.demo.failure import LabFailureError
from enforcer.demo.kube.lab import ClusterLab
from enforcer.demo.kube.program import Program
from enforcer.demo.kube.scenes import ClusterStage
from enforcer.demo.kube.ward import NAMESPACE, RELEASE
from enforcer.demo.load import Lookups, Siege
from enforcer.demo.processes import wait_until

pytestmark = pytest.mark.e2e
WITHIN_S = 90.0
"""What has to happen on a slow machine, kubelet's back-off included."""


class Watch:
    """A pod that resolves and connects, and one that attacks, while something breaks."""

    def __init__(self, stage: ClusterStage) -> None:
        self._stage = stage
        self.lookups, self.siege = Lookups(stage.bulk), Siege(stage.crm)
        self.transfer = stage.ledger.transfer(stage.ledger.stub.ask(places.LEDGER).addresses[0])

    def __enter__(self) -> Watch:
        self.lookups.start()
        self.siege.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.lookups.stop()
        self.siege.stop()
        self.transfer.close()

    def goes_on(self) -> None:
        """Answers come, whatever has happened."""
        asked = self.lookups.asked
        assert wait_until(lambda: self.lookups.asked > asked + 50, WITHIN_S), self._stage.lab.ward.tail()

    def held(self) -> None:
        """Nothing got through, no transfer was cut."""
        assert self.transfer.grows(), self.transfer.error
        assert (self.siege.opened, self.siege.answered) == (0, 0)
        assert self._stage.lab.world.counted("attacker") == 0


@pytest.fixture
def watch(stage: ClusterStage) -> Iterator[Watch]:
    """The load, for the length of a test; the node enforces when it begins and when it ends."""
    await_enforcing(stage)
    stage.lab.world.forget()
    with Watch(stage) as made:
        made.goes_on()
        yield made
    await_enforcing(stage)


def await_enforcing(stage: ClusterStage) -> None:
    """Wait until the node says that it enforces."""
    assert wait_until(lambda: is_enforcing(stage), WITHIN_S, 0.2), stage.lab.ward.tail()


def is_enforcing(stage: ClusterStage) -> bool:
    """What the node says of itself; not asking it is a no."""
    try:
        return stage.lab.ward.status()["enforcing"] is True
    except (OSError, LookupError, ValueError, LabFailureError):
        return False


@pytest.mark.parametrize("part", ["resolver", "enforcer"])
def test_a_containers_first_process_is_killed(
    stage: ClusterStage, lab: ClusterLab, watch: Watch, part: str
) -> None:
    """kubelet starts the container again; meanwhile nothing opens and no transfer is cut."""
    killed = lab.ward.supervisor(part)
    os.kill(killed, signal.SIGKILL)

    def is_back() -> bool:
        try:
            return lab.ward.supervisor(part) != killed
        except LabFailureError:
            return False

    assert wait_until(is_back, WITHIN_S, 0.2), lab.ward.tail()
    await_enforcing(stage)
    watch.goes_on()
    watch.held()


@pytest.mark.parametrize("name", ["containerd", "kubelet", "kube-proxy"])
def test_a_program_of_the_node_is_killed(lab: ClusterLab, watch: Watch, name: str) -> None:
    """The node's own programs come and go: lookups do not notice."""
    node = lab.cluster.node
    program: Program = {"containerd": node.containerd, "kubelet": node.kubelet, "kube-proxy": node.proxy}[
        name
    ]
    lost = watch.lookups.lost
    program.stop(grace_s=0)
    watch.goes_on()
    program.start()
    watch.goes_on()
    watch.held()
    assert watch.lookups.lost == lost
    lab.cluster.await_ready_node()


def test_the_clusters_dns_is_restarted(lab: ClusterLab, watch: Watch) -> None:
    """Names of outside do not go through it; it comes back while we enforce."""
    lost = watch.lookups.lost
    lab.cluster.kubectl("delete", "pods", "-n", "kube-system", "-l", "k8s-app=kube-dns", "--grace-period=0")
    lab.cluster.await_rollout("kube-system", "deployment/coredns")
    watch.goes_on()
    watch.held()
    assert watch.lookups.lost == lost


def test_the_controllers_leader_dies(lab: ClusterLab, watch: Watch) -> None:
    """The other one goes on; containment never needed it."""
    cluster = lab.cluster
    lease = f"{RELEASE}-controller"

    def leader() -> str:
        return str(cluster.get("lease", lease, "-n", NAMESPACE)["spec"].get("holderIdentity", ""))

    first = leader()
    cluster.kubectl("delete", "pod", first.split("_")[0], "-n", NAMESPACE, "--grace-period=0", "--force")
    assert wait_until(lambda: leader() not in {"", first}, WITHIN_S, 0.5)
    watch.held()
    cluster.await_rollout(NAMESPACE, f"deployment/{RELEASE}-controller")


def _frozen(lab: ClusterLab) -> Callable[[], None]:
    lab.cluster.control.apiserver.freeze()
    return lab.cluster.control.apiserver.thaw


def _gone(lab: ClusterLab) -> Callable[[], None]:
    lab.cluster.control.apiserver.stop(grace_s=0)
    return lab.cluster.control.start_apiserver


@pytest.mark.parametrize("lose", [_frozen, _gone], ids=["frozen", "gone"])
def test_the_api_server_is_lost(
    stage: ClusterStage, lab: ClusterLab, watch: Watch, lose: Callable[[ClusterLab], Callable[[], None]]
) -> None:
    """The last good policy stays, also for an enforcer that starts anew; afterwards it catches up."""
    lost = watch.lookups.lost
    bring_back = lose(lab)
    try:
        watch.goes_on()
        lab.ward.kill("enforcer")
        await_enforcing(stage)
        watch.goes_on()
        assert stage.crm.stub.ask(places.CRM).addresses == places.SITE_OF[places.CRM][:1]
        assert stage.crm.stub.ask(places.LEDGER).rcode == "NXDOMAIN"
    finally:
        bring_back()
    assert watch.lookups.lost == lost, watch.lookups.failures
    lab.cluster.await_ready_node()
    lab.set_domains(labs.LEDGER_SERVER, [places.LEDGER, places.NEW])
    try:
        assert wait_until(lambda: bool(stage.ledger.stub.ask(places.NEW).addresses), WITHIN_S, 0.2)
    finally:
        lab.set_domains(labs.LEDGER_SERVER, [places.LEDGER])
    watch.held()
