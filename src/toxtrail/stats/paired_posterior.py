"""Two rates on the same prompts: an exact posterior of the two-by-two table.

For each prompt with one continuation of both variants, the pair of labels is one of four
(`PairCounts`). With D = n10 + n01 discordant prompts, toxic for one variant only, and C = n11 + n00
concordant ones, the posterior is a tree of three independent shares, for `prior` = 1/2:

    delta ~ Beta(D + 3/2, C)            share of discordant prompts
    theta ~ Beta(n01 + 1/2, n10 + 1/2)  share of them that are toxic for b
    kappa ~ Beta(n11, n00)              share of concordant prompts that are toxic
    a = (1 - delta) kappa + delta (1 - theta)        b = (1 - delta) kappa + delta theta
    b - a = delta (2 theta - 1)

Choice of these parameters. theta has Jeffreys' prior, so P(b > a) = P(theta > 1/2) is a Bayesian
form of McNemar's mid-p test: with no difference, 95 % intervals exclude 0 in at most 5.5 % of
experiments of any size. The other shares have no prior of their own, except for one and a half
discordant prompts: with a half in each share (Beta(D + 1/2, C + 1/2)) large differences are shrunk
towards 0 by 5 % at 32 prompts, and rare ones are missed. The parameter 3/2 is the smallest of 0.5,
1, 1.25 and 1.5 with which intervals cover at least 92.5 % if fewer than ten discordant prompts are
expected, and 93.9 % otherwise (exact enumeration over tables of 10 to 100 prompts and the Poisson
limit: `benchmarks/interval_coverage.py`). A share of 0 of 0 is 0 or 1, as in its Beta distribution.

All subsets together are one table: the sum of the subsets' tables. A separate prior for each subset
would add one and a half prompts per subset, and a prior divided among the subsets produces false
differences. If a subset's weight is not its share of the pairs, pairs are weighted, and their total
is the effective number of pairs, 1 / sum of weight^2 / pairs (Kish 1965).

Distribution functions are integrals in one or two dimensions, by double-exponential quadrature
(Takahasi & Mori 1974, doi:10.2977/prims/1195192451), to 1e-7: there is no Monte Carlo error, no
seed, and nothing depends on names or order. A table is computed with n01 >= n10 and mirrored, so
that exchanging the variants mirrors every number.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import betainc, betaincc, betainccinv, betaincinv, betaln, expit, ndtr

from toxtrail.stats.rates import Floats, Interval

DISCORDANT = 3.0
"""Discordant prompts of the prior, in units of `prior`."""
EDGE = 1e-16
"""Mass of a share that a quadrature excludes at each end."""
XTOL = 1e-10
"""Tolerance of a quantile."""
LARGEST = 80.0
"""Largest log odds ratio (a ratio of 5e34) reported for a median or a bound: a weak prior has mass
beyond it."""


def _rule(nodes: int) -> tuple[Floats, Floats, Floats]:
    """Return the double-exponential rule on (0, 1): nodes, their distances from 1, and weights."""
    v = np.linspace(-3.2, 3.2, nodes)
    stretched = np.pi * np.sinh(v)
    nodes_at, rest = expit(stretched), expit(-stretched)
    return nodes_at, rest, (v[1] - v[0]) * np.pi * np.cosh(v) * nodes_at * rest


RULE_NODES, REST, WEIGHT = _rule(121)
SCORES = np.linspace(-6.0, 6.0, 33)
"""Normal scores of the nodes of an odds ratio, in each of two dimensions."""


class PairTable(NamedTuple):
    """Weighted pairs of labels; not always integers."""

    n11: float
    n10: float
    n01: float
    n00: float

    @property
    def mirrored(self) -> PairTable:
        """The same table with the variants exchanged."""
        return PairTable(self.n11, self.n01, self.n10, self.n00)


class PairedPosterior(NamedTuple):
    """Posterior in this module's docstring."""

    table: PairTable
    prior: float

    @property
    def delta(self) -> tuple[float, float]:
        """Parameters of the share of discordant prompts."""
        n11, n10, n01, n00 = self.table
        return n10 + n01 + DISCORDANT * self.prior, n11 + n00

    @property
    def theta(self) -> tuple[float, float]:
        """Parameters of the share of discordant prompts that are toxic for b."""
        return self.table.n01 + self.prior, self.table.n10 + self.prior

    @property
    def mirrored(self) -> PairedPosterior:
        """Posterior of a - b."""
        return PairedPosterior(self.table.mirrored, self.prior)

    @property
    def leans_down(self) -> bool:
        """Whether a is higher; such a posterior is computed mirrored."""
        return self.table.n01 < self.table.n10

    @property
    def probability_higher(self) -> float:
        """P(b > a), exact."""
        return float(betaincc(*self.theta, 0.5))

    def moments(self) -> tuple[float, float]:
        """Return the exact mean and standard deviation of b - a."""
        (a, b), (p, q) = self.delta, self.theta
        first, second = a / (a + b), a * (a + 1) / ((a + b) * (a + b + 1))
        step = (p - q) / (p + q)
        square = step * step + 4 * p * q / ((p + q) ** 2 * (p + q + 1))
        mean = first * step
        return mean, float(max(second * square - mean * mean, 0.0) ** 0.5)

    def cdf(self, difference: float) -> float:
        """Return P(b - a <= difference)."""
        if difference < 0:
            return 1.0 - self.mirrored.cdf(-difference)
        (a, b), (p, q) = self.delta, self.theta
        if difference == 0:
            return float(betainc(p, q, 0.5))
        if difference >= 1:
            return 1.0
        start = (1 + difference) / 2
        sure = float(betainc(p, q, start))  # theta so small that any delta will do
        if b == 0:
            return sure
        low = max(start, float(betaincinv(p, q, EDGE)))
        high = min(1.0, float(betainccinv(p, q, EDGE)))
        if high <= low:
            return sure
        width = high - low
        theta, rest = low + width * RULE_NODES, (1 - high) + width * REST
        density = np.exp((p - 1) * np.log(theta) + (q - 1) * np.log(rest) - betaln(p, q))
        with np.errstate(divide="ignore"):  # theta of exactly 1/2: any delta will do
            share = np.minimum(difference / (2 * theta - 1), 1.0)
        chance = betainc(a, b, share)
        return min(sure + width * float((WEIGHT * density * chance).sum()), 1.0)

    def interval(self, level: float) -> Interval:
        """Return the equal-tailed interval of b - a."""
        if self.leans_down:
            lo, hi = self.mirrored.interval(level)
            return Interval(-hi, -lo)
        return _interval(self, level)

    def odds_ratio(self, level: float) -> tuple[float, Interval]:
        """Return the posterior median and equal-tailed interval of the odds of b over the odds of
        a."""
        if self.leans_down:
            median, (lo, hi) = self.mirrored.odds_ratio(level)
            return 1 / median, Interval(1 / hi, 1 / lo)
        return _odds_ratio(self, level)

    def draws(self, n: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats, Floats]:
        """Return (draw,) each: rates of a and of b, of prompts toxic for a only and for b only."""
        delta = _beta(self.delta, n, rng)
        theta = _beta(self.theta, n, rng)
        together = (1 - delta) * _beta((self.table.n11, self.table.n00), n, rng)
        only_a, only_b = delta * (1 - theta), delta * theta
        return together + only_a, together + only_b, only_a, only_b


@lru_cache(maxsize=4096)
def _interval(posterior: PairedPosterior, level: float) -> Interval:
    """Return the interval of a posterior whose table has n01 >= n10."""
    lo, hi = (
        float(brentq(lambda x, m=mass: posterior.cdf(x) - m, -1.0, 1.0, xtol=XTOL))
        for mass in ((1 - level) / 2, (1 + level) / 2)
    )
    return Interval(lo, hi)


@lru_cache(maxsize=4096)
def _odds_ratio(posterior: PairedPosterior, level: float) -> tuple[float, Interval]:
    """Return the odds ratio of a posterior whose table has n01 >= n10."""
    cdf = _log_odds_cdf(posterior)

    def quantile(mass: float) -> float:
        if cdf(-LARGEST) >= mass:
            return float(np.exp(-LARGEST))
        if cdf(LARGEST) <= mass:
            return float(np.exp(LARGEST))
        return float(np.exp(brentq(lambda x: cdf(x) - mass, -LARGEST, LARGEST, xtol=1e-9)))

    return quantile(0.5), Interval(quantile((1 - level) / 2), quantile((1 + level) / 2))


class _Share(NamedTuple):
    """Nodes of a share with weights that sum to 1."""

    value: Floats
    rest: Floats
    weight: Floats


def _nodes(parameters: tuple[float, float]) -> _Share:
    """Return quantiles at equidistant normal scores: the trapezoidal rule."""
    a, b = parameters
    if a == 0 or b == 0:
        whole = np.array([1.0 if b == 0 and a > 0 else 0.0])
        return _Share(whole, 1 - whole, np.ones(1))
    below, above = ndtr(SCORES), ndtr(-SCORES)
    nodes_at = np.where(SCORES < 0, betaincinv(a, b, below), betainccinv(a, b, above))
    rest = np.where(SCORES < 0, betainccinv(b, a, below), betaincinv(b, a, above))
    weight = np.exp(-0.5 * SCORES**2)
    return _Share(nodes_at, rest, weight / weight.sum())


def _log_odds_cdf(posterior: PairedPosterior) -> Callable[[float], float]:
    """Return P(log odds ratio <= x): given delta and kappa, the ratio increases with theta.

    With s = delta theta, p11 + p00 = 1 - delta and q = p11 p00, the ratio r is reached at

        (p11 + s)(p00 + s) = r (p11 + delta - s)(p00 + delta - s).
    """
    delta, kappa = _nodes(posterior.delta), _nodes((posterior.table.n11, posterior.table.n00))
    discordant, concordant = delta.value[:, None], delta.rest[:, None]
    product = concordant**2 * (kappa.value * kappa.rest)[None, :]
    weight = delta.weight[:, None] * kappa.weight[None, :]

    def cdf(log_ratio: float) -> float:
        left, right = min(1.0, np.exp(-log_ratio)), min(1.0, np.exp(log_ratio))  # r = right / left
        square = left - right
        linear = left * concordant + right * (2 * discordant + concordant)
        constant = left * product - right * (discordant**2 + concordant * discordant + product)
        root = np.sqrt(np.maximum(linear**2 - 4 * square * constant, 0.0))
        theta = np.clip(-2 * constant / (linear + root) / discordant, 0.0, 1.0)
        return float((weight * betainc(*posterior.theta, theta)).sum())

    return cdf


def _beta(parameters: tuple[float, float], n: int, rng: np.random.Generator) -> Floats:
    a, b = parameters
    if a == 0 or b == 0:
        return np.full(n, 1.0 if b == 0 and a > 0 else 0.0)
    return rng.beta(a, b, size=n)
