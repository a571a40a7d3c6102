"""``make bench``: what an answer costs, beside its peers in the same run; then what sharing costs."""

from __future__ import annotations

import sys

from benchmarks import serving, shared

sys.exit(serving.main() or shared.main())
