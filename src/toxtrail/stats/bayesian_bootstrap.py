"""The mean of bounded values under random weights: an exact Bayesian bootstrap.

The posterior of a mean over prompts, without an assumption about the distribution of the values:

    weight ~ Dirichlet(shape)        mean = sum_i weight[i] x[i]

where prior atoms may be added to the prompts. With G[i] ~ Gamma(shape[i]) independent,

    P(mean <= t) = P(sum_i G[i] (x[i] - t) <= 0),

a linear combination of gamma variables, whose distribution function is one integral of their
characteristic functions (Davies 1973, doi:10.1093/biomet/60.2.415). It is computed to 1e-9, without
draws and without a seed.

If there are more than FEW distinct values, the values in each of BINS equal bins of their range are
replaced by two values with the same mass, mean and variance; time and memory then do not grow with
the square of the number of prompts.

Source: Rubin 1981, doi:10.1214/aos/1176345338; with atoms, Ferguson 1973.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from toxtrail.stats.rates import Floats, Interval

FEW, BINS = 200, 100
GAUSSIAN, GAMMA = 12.0, 40.0
"""Standard deviations, and scales of the largest gamma variable, beyond which the mass is
negligible."""
SILENT = 28.0
"""-log of the value of the characteristic function at which the sum is truncated."""
MOST_STEPS = 1 << 15
SLOW = 12.0
"""Total shape up to which the characteristic function falls and oscillates so slowly that it is
summed in equal steps of the logarithm of its argument."""
LOG_STEP = 0.2
"""Step of that sum. The integrand is analytic in a strip of half-width pi/2: an error below
1e-12."""


class WeightedMean(NamedTuple):
    """Posterior of a mean; created by `weighted_mean`."""

    value: Floats
    """(term,)."""
    shape: Floats
    """(term,): shapes of the gamma weights."""

    @property
    def support(self) -> tuple[float, float]:
        """Smallest and largest value."""
        return float(self.value.min()), float(self.value.max())

    @property
    def mirrored(self) -> WeightedMean:
        """Posterior of the negative mean."""
        return WeightedMean(-self.value[::-1], self.shape[::-1])

    @property
    def leans_down(self) -> bool:
        """Whether the mean is negative; such a posterior is computed mirrored.

        The sum is rounded once, in whatever order: a mean and its mirror image are never both
        negative.
        """
        return math.fsum(self.shape * self.value) < 0

    @property
    def probability_higher(self) -> float:
        """P(mean > 0)."""
        return 1 - self.cdf(0.0)

    def moments(self) -> tuple[float, float]:
        """Return the mean and standard deviation."""
        total = float(self.shape.sum())
        mean = float((self.shape * self.value).sum() / total)
        spread = float((self.shape * (self.value - mean) ** 2).sum())
        return mean, (spread / (total * (total + 1))) ** 0.5

    def cdf(self, mean: float) -> float:
        """Return P(mean <= value)."""
        low, high = self.support
        if mean < low or mean >= high:
            return float(mean >= high)
        return _below_zero(self.value - mean, self.shape)

    def interval(self, level: float) -> Interval:
        """Return the equal-tailed interval."""
        if self.leans_down:
            lo, hi = _interval(self.mirrored, level)
            return Interval(-hi, -lo)
        return _interval(self, level)


def weighted_mean(values: Floats, shapes: Floats) -> WeightedMean:
    """Return the posterior of the mean of independent values.

    Args:
        values: (term,), finite.
        shapes: (term,), above 0: 1 for a prompt in a plain Bayesian bootstrap.
    """
    value, inverse = np.unique(values, return_inverse=True)
    shape = np.bincount(inverse, weights=shapes).astype(np.float64)
    if value.size > FEW:
        value, shape = _binned(value, shape)
    return WeightedMean(value, shape)


def students_mass(
    n: float, level: float, variance_ratio: float = 1.0, freedom: float | None = None
) -> float:
    """Return the total shape of the weights of n values (at least 2) for which the posterior of
    their mean has the variance of Student's interval at this level.

    The plain bootstrap (total n) is too narrow by 7 % at 32 values and by 2 % at 100.

    Args:
        variance_ratio: variance of the mean divided by that of n independent values.
        freedom: degrees of freedom of the variance; None for n - 1.
    """
    quantile = stats.t.ppf((1 + level) / 2, n - 1 if freedom is None else freedom)
    wider = float(quantile / stats.norm.ppf((1 + level) / 2))
    return max((n - 1) / variance_ratio / wider**2 - 1, 0.5)


def pooled_shapes(sizes: Sequence[int], weights: Sequence[float], total: float) -> list[Floats]:
    """Return, for each subset, (prompt,) shapes that sum to `total`, divided by the subsets'
    weights."""
    return [np.full(n, total * w / n) for n, w in zip(sizes, weights, strict=True)]


def effective(sizes: Sequence[int], weights: Sequence[float]) -> float:
    """Return the effective number of prompts: their number if weights are proportional to the
    subsets' sizes (Kish 1965)."""
    return 1 / sum(w * w / n for n, w in zip(sizes, weights, strict=True))


def _interval(posterior: WeightedMean, level: float) -> Interval:
    low, high = posterior.support
    if low == high:
        return Interval(low, high)
    centre, spread = posterior.moments()
    lo, hi = (
        _quantile(
            posterior.cdf, mass, centre + float(stats.norm.ppf(mass)) * spread, spread, low, high
        )
        for mass in ((1 - level) / 2, (1 + level) / 2)
    )
    return Interval(lo, hi)


def _quantile(
    cdf: Callable[[float], float], mass: float, guess: float, step: float, low: float, high: float
) -> float:
    """Return the quantile of `mass`, by bracketing from a guess and Brent's method."""
    left, right = max(guess - step, low), min(guess + step, high)
    while left > low and cdf(left) > mass:
        left = max(left - 2 * step, low)
    while right < high and cdf(right) < mass:
        right = min(right + 2 * step, high)
    if not cdf(left) < mass:
        return left
    return float(brentq(lambda x: cdf(x) - mass, left, right, xtol=1e-10 * (high - low)))


def _below_zero(scale: Floats, shape: Floats) -> float:
    """Return P(sum_i G[i] scale[i] <= 0), G[i] ~ Gamma(shape[i])."""
    nonzero = scale != 0
    scale, shape = scale[nonzero], shape[nonzero]
    if not nonzero.any() or scale.min() > 0:
        return 0.0
    if scale.max() < 0:
        return 1.0
    if shape.sum() <= SLOW:
        return _below_zero_by_logarithm(scale, shape)
    mean = float((shape * scale).sum())
    spread = float((shape * scale**2).sum()) ** 0.5
    reach = abs(mean) + GAUSSIAN * spread + GAMMA * float(np.abs(scale).max())
    step = 2 * np.pi / reach
    total, block, start = 0.0, 64, 0
    while start < MOST_STEPS:
        number = np.arange(start, start + block) + 0.5
        turned = np.outer(number * step, scale)
        loss = 0.5 * (np.log1p(turned**2) @ shape)
        total += float((np.sin(np.arctan(turned) @ shape) * np.exp(-loss) / number).sum())
        start += block
        if loss[-1] + np.log(start) > SILENT:
            break
    return float(min(max(0.5 - total / np.pi, 0.0), 1.0))


def _below_zero_by_logarithm(scale: Floats, shape: Floats) -> float:
    """Return the same probability by the trapezoidal rule in log t.

    With 2 to 20 prompts, or few clusters, a sum in equal steps of t needs 30,000 steps and is not
    exact.
    """
    scale = scale / np.abs(scale).max()
    low, high = -SILENT - np.log1p(shape.sum()), SILENT
    while 0.5 * float(np.log1p((np.exp(min(high, 300.0)) * scale) ** 2) @ shape) < SILENT:
        if high > 300:
            break
        high *= 1.5
    t = np.exp(np.arange(low, min(high, 300.0), LOG_STEP))
    turned = np.outer(t, scale)
    falls = np.exp(-0.5 * (np.log1p(turned**2) @ shape))
    total = LOG_STEP * float((np.sin(np.arctan(turned) @ shape) * falls).sum())
    return float(min(max(0.5 - total / np.pi, 0.0), 1.0))


def _binned(value: Floats, shape: Floats) -> tuple[Floats, Floats]:
    """Return values in ascending order: two for each bin of their range, with its mass, mean and
    variance."""
    low, high = value[0], value[-1]
    bin_index = np.minimum(((value - low) / (high - low) * BINS).astype(np.int64), BINS - 1)
    mass = np.bincount(bin_index, weights=shape, minlength=BINS)
    used = mass > 0
    bin_index = (np.cumsum(used) - 1)[bin_index]
    mass = mass[used]
    mean = np.bincount(bin_index, weights=shape * value) / mass
    apart = np.sqrt(np.bincount(bin_index, weights=shape * (value - mean[bin_index]) ** 2) / mass)
    points = np.column_stack([mean - apart, mean + apart]).ravel()
    order = np.argsort(points, kind="stable")
    return points[order], np.repeat(mass / 2, 2)[order]
