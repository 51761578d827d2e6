"""How much memory this process has taken."""

from __future__ import annotations

import resource
import sys


def peak_mib() -> float:
    """Highest resident memory of this process; Linux counts it in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / (1 << 10)
