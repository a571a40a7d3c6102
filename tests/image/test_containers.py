"""The image runs: two containers a pod, two pods a node, with no more rights than the chart gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from enforcer.demo import places, prerequisites
from enforcer.demo.failure import CannotRunHereError
from enforcer.demo.lab import running
from enforcer.demo.processes import wait_until
from enforcer.demo.scenes import Stage, set_stage
from enforcer.demo.ward import configuration
from tests.image.containers import LONG_S, Container, Image, Mount, Rights
from tests.lab.agents import flooded, goes_on, none_is_lost

pytestmark = [pytest.mark.e2e, pytest.mark.kernel]

HEALTH = "/run/health/health.sock"
ENFORCER = Rights(0, ("CAP_NET_ADMIN", "CAP_SETUID", "CAP_CHOWN"))
RESOLVER = Rights(65353)


class Pod:
    """One pod of the DaemonSet, by the image."""

    def __init__(self, name: str, image: Image, stage: Stage, folder: Path) -> None:
        lab = stage.lab.ward.config.parent
        shared, config = lab / "node-run", lab / "etc"
        asked = ["--config", "/run/etc/nameward.yaml", "--health", HEALTH]

        def container(role: str, rights: Rights, *more: str) -> Container:
            mounts = (
                Mount(config, "/run/etc"),
                Mount(lab / "manifests", "/run/manifests"),
                Mount(shared, "/run/nameward", is_writable=role == "enforcer"),
            )
            at = folder / name / role
            arguments = (role, *asked, *more)
            return Container(f"{name}-{role}", image, at, arguments, rights, stage.lab.node.path, mounts)

        self.enforcer = container("enforcer", ENFORCER, "--take-over")
        self.resolver = container("resolver", RESOLVER)

    def start(self) -> Pod:
        """Start both, in whatever order they come up."""
        self.resolver.start()
        self.enforcer.start()
        return self

    def await_ready(self) -> None:
        """Wait until the kubelet would call it ready."""
        self.enforcer.await_ready(HEALTH)
        self.resolver.await_ready(HEALTH)

    def stop(self) -> tuple[int, int]:
        """End both as the kubelet does; returns their exit codes."""
        return self.enforcer.stop(), self.resolver.stop()


Add = Callable[[str], Pod]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """The lab, with the files that a node has for the DaemonSet's pods."""
    try:
        prerequisites.require()
    except CannotRunHereError as error:
        pytest.skip(str(error))
    with running(enforced=False) as lab:
        folder = lab.folder
        (folder / "etc").mkdir()
        (folder / "node-run").mkdir()
        dns = {"upstreams": [places.UPSTREAM4], "holdTimeout": "4s", "deadline": "4.5s"}
        settings = configuration(folder, [Path("/run/manifests")], dns=dns, runtimeDir="/run/nameward")
        (folder / "etc" / "nameward.yaml").write_text(yaml.safe_dump(settings))
        yield set_stage(lab)


@pytest.fixture
def add(image: Image, stage: Stage, tmp_path: Path) -> Iterator[Add]:
    """Adds pods to the node; afterwards none is left."""
    made: list[Pod] = []

    def one(name: str) -> Pod:
        made.append(Pod(name, image, stage, tmp_path).start())
        return made[-1]

    yield one
    for pod in made:
        pod.stop()


def test_a_roll_of_containers_loses_no_lookup(stage: Stage, add: Add) -> None:
    """Across their walls: descriptors, the lock, uids for names; SIGTERM ends each first process with 0."""
    pod = add("pod-0")
    pod.await_ready()
    flood = flooded(stage)
    for number in (1, 2):
        successor = add(f"pod-{number}")
        successor.await_ready()
        said = pod.enforcer.run("nameward", "health", "--ready", HEALTH)
        assert (said.returncode, said.stdout) == (1, "handed over to another Nameward of this node\n")
        assert pod.enforcer.run("nameward", "health", HEALTH).returncode == 0
        goes_on(flood)
        assert pod.stop() == (0, 0)
        goes_on(flood)
        assert not stage.crm.connect(places.ATTACKER4).ok
        pod = successor
    none_is_lost(flood.stop())


def test_the_containers_have_what_they_need_and_no_more(stage: Stage, add: Add) -> None:
    """The resolver: no capability, no way to write; the enforcer: three capabilities, a read-only root."""
    pod = add("pod-rights")
    pod.await_ready()
    status = pod.resolver.run("cat", "/proc/1/status").stdout
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert pod.resolver.run("sh", "-c", "echo > /run/nameward/x").returncode != 0
    status = pod.enforcer.run("cat", "/proc/1/status").stdout
    capabilities = [line for line in status.splitlines() if line.startswith("CapEff")]
    assert capabilities == [f"CapEff:\t{1 << 12 | 1 << 7 | 1 << 0:016x}"]
    assert pod.enforcer.run("sh", "-c", "echo > /opt/x").returncode != 0


def test_first_processes_start_workers_again_and_leave_no_zombie(stage: Stage, add: Add) -> None:
    """Each worker killed: another is there, by the same first process; nothing stays of the first."""
    pod = add("pod-killed")
    pod.await_ready()
    for container in (pod.enforcer, pod.resolver):
        killed = container.run("sh", "-c", WORKERS).stdout.split()
        assert len(killed) == 1
        container.run("sh", "-c", f"kill -9 {killed[0]}")

        def another(container: Container = container, killed: list[str] = killed) -> bool:
            now = container.run("sh", "-c", WORKERS).stdout.split()
            return len(now) == 1 and now != killed

        assert wait_until(another, LONG_S, 0.1)
    pod.await_ready()
    answer = stage.crm.stub.ask(places.CRM)
    assert stage.crm.connect(answer.addresses[0]).ok
    for container in (pod.enforcer, pod.resolver):
        states = container.run("sh", "-c", "grep -h ^State: /proc/[0-9]*/status").stdout
        assert "(zombie)" not in states


WORKERS = 'for f in /proc/[0-9]*/comm; do grep -q ^nw- "$f" && basename "$(dirname "$f")"; done; true'
"""The shell's way to find a worker: it has a name of its own."""


def test_an_image_without_its_configuration_says_so(image: Image, stage: Stage, tmp_path: Path) -> None:
    """One sentence, exit 2; no traceback."""
    container = Container("bare", image, tmp_path / "bare", ["node"], ENFORCER, stage.lab.node.path)
    container.start()
    try:
        assert wait_until(lambda: "nameward.yaml" in container.log.read_text(), LONG_S, 0.1)
    finally:
        assert container.stop() == 2
    assert "cannot be read" in container.log.read_text()
    assert "Traceback" not in container.log.read_text()
