"""Highest-density intervals without draws."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy.interpolate import PchipInterpolator

from toxtrail.stats.rates import Interval

NODES, TAIL = 97, 1e-5
"""Number of points at which the distribution function is computed, and the mass excluded at each
end."""
STARTS = 2001
"""Number of candidate lower bounds of an interval."""


class Posterior(Protocol):
    """Interface of `PairedPosterior` and `WeightedMean`."""

    @property
    def leans_down(self) -> bool: ...
    @property
    def mirrored(self) -> Posterior: ...
    def cdf(self, value: float, /) -> float: ...
    def interval(self, level: float) -> Interval: ...


def highest_density(posterior: Posterior, level: float) -> Interval:
    """Return the shortest interval that contains `level` of a posterior.

    The distribution function is computed at NODES points and interpolated monotonically; bounds are
    accurate to about a thousandth of the interval's width.

    Source: Hyndman 1996, doi:10.1080/00031305.1996.10473359.
    """
    if posterior.leans_down:
        lo, hi = highest_density(posterior.mirrored, level)
        return Interval(-hi, -lo)
    low, high = posterior.interval(1 - 2 * TAIL)
    if low == high:
        return Interval(low, high)
    grid = np.linspace(low, high, NODES)
    mass = np.array([posterior.cdf(float(at)) for at in grid])
    below = PchipInterpolator(grid, np.maximum.accumulate(mass))
    fine = np.linspace(low, high, NODES * 50)
    rising = np.asarray(below(fine))
    start = np.linspace(rising[0], rising[-1] - level, STARTS)
    left, right = np.interp(start, rising, fine), np.interp(start + level, rising, fine)
    first = int(np.argmin(right - left))
    shortest, equal = Interval(float(left[first]), float(right[first])), posterior.interval(level)
    return shortest if shortest.hi - shortest.lo < equal.hi - equal.lo else equal
