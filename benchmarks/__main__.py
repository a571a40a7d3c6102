"""``make bench``: what an answer costs, beside its peers in the same run."""

from __future__ import annotations

import sys

from benchmarks import serving

sys.exit(serving.main())
