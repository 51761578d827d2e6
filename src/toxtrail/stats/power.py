"""Power analysis: the number of prompts that a difference needs, before and after an experiment.

Let delta be the share of prompts on which exactly one of two variants is toxic, and theta the share
of those on which it is b. With n prompts in all subsets together, the number of discordant prompts
and of those toxic for b are

    D ~ Binomial(n, delta)        n01 | D ~ Binomial(D, theta)

and the verdict is the sign of a Beta(n01 + prior, D - n01 + prior) against 1/2
(`paired_posterior`). For each D it is "higher" from a smallest n01 on, so the power of n prompts is
an exact sum, without simulation. delta follows from the rates and from phi, the correlation of the
two labels over prompts:

    p11 = pa pb + phi sqrt(pa (1 - pa) pb (1 - pb)),     delta = pa + pb - 2 p11

Subsets need no separate sums: if their prompts are sampled proportionally, n01 and n10 of all
subsets follow from their mean shares; subsets of fixed size vary less, so that the power is
slightly higher if the difference varies among them.

From MANY discordant prompts on, n01 - n10 is approximated as normal, and the number of prompts is

    n = (z[1 - alpha / 2] sqrt(delta) + z[power] sqrt(delta - d^2))^2 / d^2

(Connor 1987, Biometrics 43(1), for McNemar's test), which is inaccurate for fewer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betainc, betaincc, betaincinv, gammaln, ndtr, ndtri, xlog1py, xlogy

from toxtrail.errors import ConfigError
from toxtrail.stats.paired_posterior import PairedPosterior, PairTable
from toxtrail.stats.rates import Floats

Counts = NDArray[np.int64]
MAX_PROMPTS = 10_000_000
"""Maximum number of prompts considered for assurance."""
MANY = 1024
"""Expected number of discordant prompts from which on power uses the normal approximation."""
SPREADS = 9.0
"""Range of the number of discordant prompts considered on either side, in standard deviations."""
AHEAD = 400
"""Number of larger prompt counts, beyond the first sufficient one, at which power is checked
again."""
NODES = 32
"""Number of equally probable rates that represent the belief about a rate."""


class JointProbabilities(NamedTuple):
    """Probabilities of a prompt's pair of labels; they sum to 1."""

    p11: float
    """Toxic for both."""
    p10: float
    """Toxic for a only."""
    p01: float
    """Toxic for b only."""
    p00: float
    """Toxic for neither."""

    @property
    def discordant(self) -> float:
        """Share of prompts with different labels."""
        return self.p10 + self.p01

    @property
    def difference(self) -> float:
        """b - a, in [-1, 1]."""
        return self.p01 - self.p10


def joint_probabilities(rate_a: float, rate_b: float, phi: float) -> JointProbabilities:
    """Return the two-by-two table of two rates, both in (0, 1), with this correlation over prompts.

    Raises:
        ConfigError: there is no such table; the message contains the possible correlations.
    """
    if not (0 < rate_a < 1 and 0 < rate_b < 1):
        raise ConfigError(f"Rates of {rate_a:.1%} and {rate_b:.1%}: both must be between 0 and 1.")
    low, high = phi_bounds(rate_a, rate_b)
    if not low - 1e-9 <= phi <= high + 1e-9:
        raise ConfigError(
            f"Labels with rates of {rate_a:.1%} and {rate_b:.1%} cannot correlate by {phi:g} over "
            f"prompts: {low:.2f} to {high:.2f} is possible."
        )
    p11 = rate_a * rate_b + phi * _spread(rate_a, rate_b)
    p11 = min(max(p11, 0.0, rate_a + rate_b - 1), rate_a, rate_b)
    return JointProbabilities(p11, rate_a - p11, rate_b - p11, 1 - rate_a - rate_b + p11)


def phi_bounds(rate_a: float, rate_b: float) -> tuple[float, float]:
    """Return the smallest and largest correlation of labels with these rates (Frechet's bounds)."""
    spread, product = _spread(rate_a, rate_b), rate_a * rate_b
    return (max(0.0, rate_a + rate_b - 1) - product) / spread, (
        min(rate_a, rate_b) - product
    ) / spread


class VerdictRule(NamedTuple):
    """Rule for a verdict: the equal-tailed interval at `level` excludes 0."""

    prior: float
    """Prior of the share of discordant prompts that are toxic for b."""
    level: float
    """Level of the interval, in (0, 1)."""


def power(table: JointProbabilities, prompts: int, rule: VerdictRule) -> float:
    """Return the probability that n prompts detect the difference with its sign; without a
    difference, that b is called higher."""
    delta, d = min(table.discordant, 1.0), abs(table.difference)
    if delta <= 0:
        return 0.0
    theta = min(0.5 + d / (2 * delta), 1.0)
    mean = prompts * delta
    if mean > MANY:
        z, spread = ndtri((1 + rule.level) / 2), math.sqrt(max(delta - d * d, 1e-300))
        return float(ndtr((math.sqrt(prompts) * d - z * math.sqrt(delta)) / spread))
    reach = SPREADS * math.sqrt(mean * (1 - delta)) + 40
    n_discordant = np.arange(
        max(0, math.floor(mean - reach)), min(prompts, math.ceil(mean + reach)) + 1
    )
    return float(
        _binomial(prompts, n_discordant, delta)
        @ _called(theta, rule, int(n_discordant[-1]).bit_length())[n_discordant]
    )


def required_prompts(table: JointProbabilities, target: float, rule: VerdictRule) -> int:
    """Return the smallest number of prompts from which on `power` remains at `target` or more.

    Power is not monotone in the number of prompts, because counts are integers: it drops wherever
    one more prompt toxic for b is required.

    Raises:
        ConfigError: the difference is 0.
    """
    d = table.difference
    if d == 0:
        raise ConfigError("No number of prompts detects a difference of 0.")
    z_level, z_power = ndtri([(1 + rule.level) / 2, target])
    spread = math.sqrt(table.discordant), math.sqrt(max(table.discordant - d * d, 0.0))
    normal = math.ceil((float(z_level) * spread[0] + float(z_power) * spread[1]) ** 2 / d**2)
    if normal * table.discordant > MANY:
        return normal
    first = _first(lambda n: power(table, n, rule) >= target)
    ahead = range(first + min(first + 50, AHEAD), first, -1)
    return next((n + 1 for n in ahead if power(table, n, rule) < target), first)


def detectable_difference(
    rate: float, phi: float, prompts: int, target: float, rule: VerdictRule, falls: bool = False
) -> float | None:
    """Return the smallest increase or decrease of a rate that n prompts detect; None if there is
    none.

    Args:
        rate: in (0, 1).
        phi: correlation over prompts; reduced if the rates do not allow it.
    """
    most = (rate if falls else 1 - rate) * (1 - 1e-9)
    sign = -1 if falls else 1

    def missing(size: float) -> float:
        return power(nearest_table(rate, sign * size, phi), prompts, rule) - target

    least = most * 1e-9
    if missing(most) < 0 or missing(least) >= 0:
        return None
    return float(brentq(missing, least, most, xtol=1e-6))


def rate_draws_from_interval(rate: float, width: float, level: float) -> Floats:
    """Return (NODES,) equally probable values of a rate with this interval: quantiles of the Beta
    distribution of the same mean and spread."""
    sd = width / (2 * float(ndtri((1 + level) / 2)))
    weight = max(rate * (1 - rate) / sd**2 - 1, 1.0)
    places = (np.arange(NODES) + 0.5) / NODES
    rates = betaincinv(rate * weight, (1 - rate) * weight, places)
    return np.asarray(np.clip(rates, 1e-6, 1 - 1e-6))


def required_prompts_by_simulation(
    rates: Floats, difference: float, phi: float, target: float, rule: VerdictRule
) -> int | None:
    """Return the smallest number of prompts with a mean `power` of at least `target` over the
    possible rates; None if MAX_PROMPTS is not sufficient.

    This is assurance (O'Hagan, Stevens & Campbell 2005, Pharmaceutical Statistics 4(3)).

    Args:
        rates: of variant a, equally probable, in (0, 1).
        difference: b - a, the same for all.
        phi: correlation over prompts; reduced if the rates do not allow it.
    """
    tables = [nearest_table(float(rate), difference, phi) for rate in rates]

    def enough(n: int) -> bool:
        return sum(power(table, n, rule) for table in tables) >= target * len(tables)

    return _first(enough) if enough(MAX_PROMPTS) else None


def prompts_for_width(table: PairTable, rule: VerdictRule, target_width: float) -> int:
    """Return the number of prompts, with labels in the proportions of `table`, for an interval of
    the requested width, in (0, 2)."""
    total = sum(table)
    estimate = (table.n01 - table.n10) / total

    def width(n: float) -> float:
        scaled = PairTable(*(count * n / total for count in table))
        bounds = PairedPosterior(scaled, rule.prior).interval(rule.level).around(estimate)
        return bounds.hi - bounds.lo

    if width(1) <= target_width:
        return 1
    if (least := width(MAX_PROMPTS)) > target_width:
        return prompts_by_spread(MAX_PROMPTS, least, target_width)
    log_prompts = brentq(
        lambda x: math.log(width(math.exp(x)) / target_width), 0, math.log(MAX_PROMPTS), xtol=1e-6
    )
    return math.ceil(math.exp(float(log_prompts)) - 1e-3)


def prompts_by_spread(prompts: int, width: float, target_width: float) -> int:
    """Return the approximate number of prompts for an interval of the requested width, given its
    width for another number: width decreases with the square root. For labels that are not a
    two-by-two table."""
    return math.ceil(prompts * (width / target_width) ** 2)


def nearest_table(rate: float, difference: float, phi: float) -> JointProbabilities:
    """Return the table of a rate and a difference, with the nearest possible rate and
    correlation."""
    other = min(max(rate + difference, 1e-9), 1 - 1e-9)
    low, high = phi_bounds(rate, other)
    chances = np.clip(joint_probabilities(rate, other, min(max(phi, low), high)), 0, 1)  # rounding
    return JointProbabilities(*(chances / chances.sum()).tolist())


def _first(enough: Callable[[int], bool]) -> int:
    """Return the smallest sufficient number of prompts, by bisection."""
    high = 1
    while not enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _binomial(n: int, k: Counts, share: float) -> Floats:
    """Return P(k of n) over a range with nearly all mass."""
    logs = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    chances = np.exp(logs + xlogy(k, share) + xlog1py(n - k, -share))
    return np.asarray(chances / chances.sum())


@lru_cache(maxsize=64)
def _called(theta: float, rule: VerdictRule, bits: int) -> Floats:
    """Return (discordant prompts,): probability that b is called higher, for each number of
    them."""
    least = _critical(rule)[: 1 << bits]
    total = np.arange(least.size)
    chance = betainc(np.maximum(least, 1), np.maximum(total - least, 0) + 1, theta)
    return np.where((least >= 1) & (least <= total), chance, least <= 0)


@lru_cache(maxsize=16)
def _critical(rule: VerdictRule) -> Counts:
    """Return (discordant prompts,): the smallest number toxic for b at which b is called higher;
    one more than the number of discordant prompts if there is none."""
    total = np.arange(MANY + math.ceil(SPREADS * math.sqrt(MANY)) + 50)
    bound = (1 + rule.level) / 2
    low, high = np.full(total.size, -1), total + 1
    while np.any(high - low > 1):
        middle = (low + high) // 2
        parameters = np.maximum(middle, 0) + rule.prior, total - middle + rule.prior
        is_called = (middle >= 0) & (betaincc(*parameters, 0.5) > bound)
        low, high = np.where(is_called, low, middle), np.where(is_called, middle, high)
    return high


def _spread(rate_a: float, rate_b: float) -> float:
    return math.sqrt(rate_a * (1 - rate_a) * rate_b * (1 - rate_b))
