"""Where a result was measured: processor, cores, memory, kernel, and the versions of all that took part."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.peers import coredns_program


def machine() -> str:
    """Return the processor and what of it there is for us."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    total = re.search(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    name = model[1] if model else platform.machine()
    memory = f", {int(total[1]) / (1 << 20):.0f} GiB" if total else ""
    return f"{name}, {len(os.sched_getaffinity(0))} cores{memory}"


def kernel() -> str:
    """Return the kernel's release."""
    return f"{platform.system()} {platform.release()}"


def versions() -> dict[str, str]:
    """Return the version of each program; what is not installed is not named."""
    asked = {
        "dnsmasq": ["dnsmasq", "--version"],
        "Unbound": ["unbound", "-V"],
        "CoreDNS": [coredns_program() or "coredns", "-version"],
        "nsd": ["nsd", "-v"],
        "dnsperf": ["dnsperf", "-h"],
        "iperf3": ["iperf3", "--version"],
        "nft": ["nft", "--version"],
    }
    found = {"Nameward": _own(), "Python": platform.python_version()}
    for name, argv in asked.items():
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10)
        except FileNotFoundError:
            continue
        number = re.search(r"\d+\.\d+(\.\d+)?\S*", done.stdout + done.stderr)
        found[name] = number[0].rstrip(",") if number else "unknown"
    return found


def _own() -> str:
    """Return our version, and which build the processes run: the compiled one, or the sources."""
    code = "import policy.build as b; from importlib.metadata import version; "
    code += "print(version('nameward'), 'compiled' if b.COMPILED else 'pure Python', sep=', ')"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
