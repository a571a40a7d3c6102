"""The kernel's notices in a container, where the process has another number than the kernel knows it by."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.kernel

PROGRAM = """
import json, os, subprocess
from enforcer.kernel import Kernel
from enforcer.layout import TABLE
text = "add table inet T\\ndelete table inet T\\ntable inet T { chain c { counter; }; }"
text = text.replace(" T", f" {TABLE}")
kernel = Kernel()
kernel.monitor_fd()
seen = [os.getpid(), sorted(kernel.drain_events())]
kernel.install(text)
seen.append(sorted(kernel.drain_events()))
subprocess.run(["nft", "add", "rule", "inet", TABLE, "c", "drop"], check=True)
seen.append(sorted(kernel.drain_events()))
subprocess.run(["nft", "delete", "table", "inet", TABLE], check=True)
seen.append(sorted(kernel.drain_events()))
print(json.dumps(seen))
"""


@pytest.mark.parametrize("is_contained", [True, False])
def test_what_we_did_is_told_from_what_others_did(is_contained: bool) -> None:
    """Taken for another's, each change of ours would be repaired, which is the next change, for ever."""
    own = ["--pid", "--fork", "--mount-proc"] if is_contained else []
    command = ["unshare", "--net", *own, sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "unshare failed" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip("namespaces cannot be made here")
    assert done.returncode == 0, done.stderr
    pid, *seen = json.loads(done.stdout)
    assert (pid == 1) == is_contained
    assert seen == [[], [], ["changed"], ["changed", "gone"]]
