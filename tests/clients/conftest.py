"""Real DNS clients in a pod of a lab that Nameward enforces."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enforcer.demo import places
from enforcer.demo.processes import run
from enforcer.demo.scenes import Stage
from tests.lab.staged import staged

HERE = Path(__file__).parent
RESOLV_CONF = f"""nameserver {places.CLUSTER_DNS}
search {places.NAMESPACE}.svc.cluster.local svc.cluster.local cluster.local
options ndots:5
"""

InPod = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """A whole lab with ``nameward node`` enforcing."""
    with staged(starts=True) as made:
        yield made


@pytest.fixture(scope="session")
def in_pod(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> InPod:
    """Run a program in the CRM server's pod, with the resolv.conf that a kubelet writes."""
    resolv_conf = tmp_path_factory.mktemp("pod") / "resolv.conf"
    resolv_conf.write_text(RESOLV_CONF)
    mounted = f'mount --bind {resolv_conf} "$(readlink -f /etc/resolv.conf)" && exec "$@"'

    def started(*argv: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        if shutil.which(argv[0]) is None:
            pytest.skip(f"{argv[0]} is not installed")
        command = ["unshare", "--mount", "sh", "-c", mounted, "sh", *argv]
        return run(stage.crm.space, command, timeout_s=timeout_s)

    return started


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], str]:
    """Compile a C program of this folder: ``compiled("addrinfo", "musl-gcc")`` → path."""
    folder = tmp_path_factory.mktemp("programs")

    def build(name: str, compiler: str) -> str:
        if shutil.which(compiler) is None:
            pytest.skip(f"{compiler} is not installed")
        program = folder / f"{name}-{compiler}"
        if not program.exists():
            source = str(HERE / f"{name}.c")
            flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
            subprocess.run([compiler, *flags, source, "-o", str(program)], check=True)
        return str(program)

    return build
