"""``python -m resolver``: the resolver alone, as a container runs it."""

from __future__ import annotations

import argparse
import os
import sys

from policy.runtime.settings import DEFAULT_PATH
from resolver.service import preload, run


def main() -> int:
    """Run with ``--config``, ``NAMEWARD_CONFIG`` or the usual file; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m resolver", description=__doc__)
    parser.add_argument("--config", default=os.environ.get("NAMEWARD_CONFIG", DEFAULT_PATH), metavar="F")
    arguments = parser.parse_args()
    preload()
    return run(arguments.config)


if __name__ == "__main__":
    sys.exit(main())
