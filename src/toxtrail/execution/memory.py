"""Memory use of this process."""

from __future__ import annotations

import resource
import sys


def peak_mib() -> float:
    """Return the peak resident memory of this process in MiB (Linux reports KiB, macOS bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / (1 << 10)
