"""Differences between two variants, paired by prompt, without draws.

With one continuation per prompt: the exact posterior of the two-by-two table (`paired_posterior`).
With several: the exact Bayesian bootstrap over prompts (`weighted_mean`) of the differences of
their shares, with an atom of weight `prior` at -1 and one at 1. Mean scores and lengths, and their
differences: the same with weights that give Student's variance (`students_mass`); scores are
bounded, with an atom of weight END at each bound.

The displayed estimate is always the observed difference, with subsets weighted. For clustered
prompts, each posterior is computed for the effective number of prompts (`clusters`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import betainc, betaincinv, ndtr

from toxtrail.errors import DataError
from toxtrail.stats.bayesian_bootstrap import (
    WeightedMean,
    pooled_shapes,
    weighted_mean,
)
from toxtrail.stats.clusters import Clusters, Counted, counted
from toxtrail.stats.paired_posterior import DISCORDANT, SCORES, PairedPosterior, PairTable
from toxtrail.stats.rate_posterior import RatePosterior, beta_like, observed
from toxtrail.stats.rates import Floats, Interval, bootstrap_draws, content_rng, is_binary

END = 0.15
"""Weight of the prior atoms at the bounds of a score.

Without them, 82 to 95 % of the intervals of the mean of a skewed score (the highest of several
continuations) cover at 32 prompts, because the few high ones are often missing from the sample; of
0.05, 0.1, 0.15, 0.25 and 0.5, it is the smallest with which at least 94 % do
(`benchmarks/several_continuations.py`).
"""
Verdict = Literal["higher", "lower", "not decisive"]
Decision = Literal["higher", "lower", "equivalent", "undecided"]


class PairCounts(NamedTuple):
    """Prompts by the labels of a and b (toxic: at least half of the continuations)."""

    n11: int
    """Prompts toxic for both."""
    n10: int
    """Prompts toxic for a only."""
    n01: int
    """Prompts toxic for b only."""
    n00: int
    """Prompts toxic for neither."""

    @property
    def n(self) -> int:
        return sum(self)


class Difference(NamedTuple):
    """Difference of two rates on the same prompts, b - a, in [-1, 1]."""

    estimate: float
    """The observed difference."""
    interval: Interval
    probability_higher: float
    """P(b > a)."""
    in_rope: float
    """P(|b - a| <= rope)."""
    above: float
    """P(b - a > rope)."""
    below: float
    """P(b - a < -rope)."""
    verdict: Verdict
    decision: Decision


def pair_counts(shares_a: Floats, shares_b: Floats) -> PairCounts:
    """Cross-tabulate two variants' labels.

    Args:
        shares_a, shares_b: (prompt,) of `rates.toxic_shares`, the same prompts in the same order.

    Raises:
        DataError: the two differ in length: they are not pairs.
    """
    if shares_a.shape != shares_b.shape or shares_a.ndim != 1:
        raise DataError(f"Cannot pair labels of shapes {shares_a.shape} and {shares_b.shape}.")
    a, b = shares_a >= 0.5, shares_b >= 0.5
    return PairCounts(
        n11=int((a & b).sum()),
        n10=int((a & ~b).sum()),
        n01=int((~a & b).sum()),
        n00=int((~a & ~b).sum()),
    )


class PairDraws(NamedTuple):
    """Posterior draws of two rates on the same prompts, for ArviZ."""

    a: Floats
    """(draw,), in [0, 1]."""
    b: Floats
    """(draw,), in [0, 1]."""
    discordant: tuple[Floats, Floats] | None
    """(draw,) each: rates of prompts toxic for a only and for b only; None for the bootstrap."""

    @property
    def difference(self) -> Floats:
        """Draws of b - a, (draw,), in [-1, 1]."""
        return self.b - self.a

    @property
    def mirrored(self) -> PairDraws:
        """The same draws with the variants exchanged."""
        apart = self.discordant
        return PairDraws(self.b, self.a, apart and (apart[1], apart[0]))


class Pairs(NamedTuple):
    """Two variants' labels on the prompts that they share, for one subset or several."""

    a: Sequence[Floats]
    """For each subset, (prompt,) of `rates.toxic_fractions`."""
    b: Sequence[Floats]
    """Labels of b for the same prompts in the same order."""
    weights: Sequence[float]
    """Weights of the subsets; they sum to 1."""
    clusters: Clusters | None = None
    """Clusters of the prompts; None for independent prompts."""

    @property
    def binary(self) -> bool:
        """Whether all continuations of a prompt have the same label, for both variants."""
        return all(map(is_binary, (*self.a, *self.b)))

    @property
    def mirrored(self) -> Pairs:
        """The same pairs with the variants exchanged."""
        return self._replace(a=self.b, b=self.a)

    def at_level(self, level: float) -> Pairs:
        """Return the pairs for an interval of another level."""
        return self._replace(clusters=self.clusters and self.clusters._replace(level=level))

    @property
    def counted(self) -> Counted:
        """Number of prompts behind the difference."""
        steps = [b - a for a, b in zip(self.a, self.b, strict=True)]
        return counted(steps, self.weights, self.clusters)

    @property
    def in_order(self) -> bool:
        """Whether the pairs are in canonical order: true for exactly one of a pair and its mirror
        image, or for both if they are equal. It depends on labels only."""
        first, second = (np.concatenate(labels) for labels in (self.a, self.b))
        return bool((first.sum(), first.tobytes()) <= (second.sum(), second.tobytes()))

    @property
    def estimate(self) -> float:
        """The observed difference b - a."""
        return observed(self.b, self.weights) - observed(self.a, self.weights)

    @property
    def sizes(self) -> list[int]:
        """Number of prompts of each subset."""
        return [subset_labels.size for subset_labels in self.a]


def pair_posterior(pairs: Pairs, prior: float) -> PairedPosterior | WeightedMean:
    """Return the posterior of b - a over all subsets of `pairs` together.

    Raises:
        DataError: a subset has no pair.
    """
    if not all(pairs.sizes):
        raise DataError("The variants share no prompt: there are no pairs.")
    if pairs.binary:
        return PairedPosterior(joint_table(pairs), prior)
    shapes = pooled_shapes(pairs.sizes, pairs.weights, pairs.counted.effective)
    steps = [b - a for a, b in zip(pairs.a, pairs.b, strict=True)]
    return weighted_mean(
        np.concatenate([*steps, [-1.0, 1.0]]), np.concatenate([*shapes, [prior, prior]])
    )


def joint_table(pairs: Pairs) -> PairTable:
    """Return the two-by-two table of all subsets together, with weighted pairs; its sum is the
    effective number of prompts."""
    total = pairs.counted.effective
    parts = [
        np.array(pair_counts(a, b)) * (total * weight / a.size)
        for a, b, weight in zip(pairs.a, pairs.b, pairs.weights, strict=True)
    ]
    whole = np.sum(parts, axis=0)
    nearest = np.round(whole)
    exact = np.where(np.abs(whole - nearest) < 1e-9 * max(total, 1), nearest, whole)
    return PairTable(*exact.tolist())


def mean_posterior(
    values: Sequence[Floats],
    weights: Sequence[float],
    level: float,
    bounds: tuple[float, float] | None = None,
    clusters: Clusters | None = None,
) -> WeightedMean | None:
    """Return the posterior of the weighted mean of any values; None for fewer than two values, an
    empty subset, or prompts of a single cluster.

    Args:
        values: for each subset, (prompt,), finite.
        weights: of the subsets; they sum to 1.
        level: of the requested interval.
        bounds: smallest and largest possible value, if any.
        clusters: of the prompts; None for independent prompts.
    """
    sizes = [subset_values.size for subset_values in values]
    if not all(sizes) or (mass := counted(values, weights, clusters).mass(level)) is None:
        return None
    shapes = pooled_shapes(sizes, weights, mass)
    ends = [] if bounds is None else list(bounds)
    return weighted_mean(
        np.concatenate([*values, ends]), np.concatenate([*shapes, [END] * len(ends)])
    )


def pair_draws(pairs: Pairs, prior: float, draws: int, seed: int) -> PairDraws:
    """Draw from `pair_posterior`, with both rates.

    The draws depend on the labels and the seed only, and exchanging the variants mirrors them.
    """
    if not pairs.in_order:
        return pair_draws(pairs.mirrored, prior, draws, seed).mirrored
    first, second = (np.concatenate(labels) for labels in (pairs.a, pairs.b))
    rng = content_rng(seed, first, second, pairs.weights)
    posterior = pair_posterior(pairs, prior)
    if isinstance(posterior, PairedPosterior):
        a, b, only_a, only_b = posterior.draws(draws, rng)
        return PairDraws(a, b, (only_a, only_b))
    count = pairs.counted
    shapes = np.concatenate(pooled_shapes(pairs.sizes, pairs.weights, count.effective))
    both, atoms = np.column_stack([first, second]), ((1.0, 0.0), (0.0, 1.0))
    share = 1 / count.design_effect
    means = bootstrap_draws(both, shapes, atoms, prior, draws, rng, share)
    return PairDraws(means[:, 0], means[:, 1], None)


def unpaired_is_credible(a: RatePosterior, b: RatePosterior, level: float) -> bool:
    """Return whether the interval of b - a would exclude 0 if the two variants had been given
    different prompts, as most published tables assume.

    For several continuations per prompt, Beta distributions of the same mean and variance are used.
    """
    first, second = beta_like(a), beta_like(b)
    nodes = betaincinv(first.a, first.b, ndtr(SCORES))
    weight = np.exp(-0.5 * SCORES**2)
    higher = 1 - float((weight * betainc(second.a, second.b, nodes)).sum() / weight.sum())
    return max(higher, 1 - higher) > (1 + level) / 2


def odds_ratio(pairs: Pairs, prior: float, level: float) -> tuple[float, Interval] | None:
    """Return the odds of b over the odds of a, with its interval: of the observed rates, or the
    posterior median if one of them is 0 or 1. None for several continuations per prompt."""
    if not pairs.binary:
        return None
    posterior = PairedPosterior(joint_table(pairs), prior)
    a, b = observed(pairs.a, pairs.weights), observed(pairs.b, pairs.weights)
    median, interval = posterior.odds_ratio(level)
    inside = 0 < a < 1 and 0 < b < 1
    ratio = (b / (1 - b)) / (a / (1 - a)) if inside else median
    return ratio, interval.around(ratio)


def summarise_difference(
    posterior: PairedPosterior | WeightedMean, estimate: float, level: float, rope: float
) -> Difference:
    """Summarise a posterior of a difference.

    Args:
        estimate: the observed difference.
        rope: half-width of the region of practical equivalence, as a difference of rates.
    """
    if posterior.leans_down:
        return _mirrored(summarise_difference(posterior.mirrored, -estimate, level, rope))
    interval = posterior.interval(level).around(estimate)
    below, up_to = posterior.cdf(-rope), posterior.cdf(rope)
    return Difference(
        estimate=estimate,
        interval=interval,
        probability_higher=posterior.probability_higher,
        in_rope=up_to - below,
        above=1 - up_to,
        below=below,
        verdict=verdict(interval),
        decision=rope_decision(interval, rope),
    )


def _mirrored(difference: Difference) -> Difference:
    turned: dict[str, Literal["higher", "lower"]] = {"higher": "lower", "lower": "higher"}
    return Difference(
        estimate=-difference.estimate,
        interval=Interval(-difference.interval.hi, -difference.interval.lo),
        probability_higher=1 - difference.probability_higher,
        in_rope=difference.in_rope,
        above=difference.below,
        below=difference.above,
        verdict=turned.get(difference.verdict, difference.verdict),
        decision=turned.get(difference.decision, difference.decision),
    )


def power_scaled(posterior: PairedPosterior, points: int) -> tuple[Floats, Floats, Floats]:
    """Return (point,) each: the difference, the log prior and the log likelihood at evenly spaced
    points of the posterior (a rank-one lattice, Korobov 1959), for
    `prior_sensitivity.power_scaling`."""
    rank = (np.arange(points) + 0.5) / points
    other = np.modf(np.arange(points) * (5**0.5 - 1) / 2 + 0.5 / points)[0]
    tiny = np.finfo(float).tiny
    (a, b), (p, q) = posterior.delta, posterior.theta
    delta = np.ones(points) if b == 0 else betaincinv(a, b, rank)
    theta = betaincinv(p, q, other)
    logs = np.log(np.maximum((delta, 1 - delta, theta, 1 - theta), tiny))
    prior, (n11, n10, n01, n00) = posterior.prior, posterior.table
    before = np.array([DISCORDANT * prior - 1, -1.0 if b else 0.0, prior - 1, prior - 1])
    cell_counts = np.array([n10 + n01, n11 + n00, n01, n10])
    return delta * (2 * theta - 1), before @ logs, cell_counts @ logs


def flat_prior(pairs: Pairs) -> PairedPosterior | WeightedMean:
    """Return the posterior with twice Jeffreys' prior, which is uniform for the direction."""
    return pair_posterior(pairs, 1.0)


def verdict(interval: Interval) -> Verdict:
    """Return the verdict: credible only if the interval excludes 0, otherwise not decisive."""
    if interval.lo > 0:
        return "higher"
    if interval.hi < 0:
        return "lower"
    return "not decisive"


def direction(probability_higher: float, level: float) -> Verdict:
    """Return the verdict of the equal-tailed interval at this level, which excludes 0 if and only
    if P(b > a) is beyond it."""
    if probability_higher > (1 + level) / 2:
        return "higher"
    return "lower" if probability_higher < (1 - level) / 2 else "not decisive"


def rope_decision(interval: Interval, rope: float) -> Decision:
    """Return where the interval is: beyond the region of practical equivalence, or inside it.

    Source: Kruschke 2018, doi:10.1177/2515245918771304 (there with an HDI).
    """
    if interval.lo > rope:
        return "higher"
    if interval.hi < -rope:
        return "lower"
    return "equivalent" if interval.lo >= -rope and interval.hi <= rope else "undecided"


def tipping_fpr_gap(rate_a: float, rate_b: float) -> float:
    """Return the difference of false-positive rates that would explain the complete difference, in
    [0, 1].

    With p the true rate of both, an observed rate is p + (1 - p) times the false-positive rate, so
    the higher one needs (higher - lower) / (1 - lower) if the lower one needs none.
    """
    low, high = sorted((rate_a, rate_b))
    return (high - low) / (1 - low) if low < 1 else 0.0


def sign_is_stable(verdicts: Sequence[Verdict]) -> bool:
    """Return whether verdicts on the same pairs, such as at several thresholds, never contradict
    each other."""
    return not {"higher", "lower"} <= set(verdicts)


def label_correlation(counts: PairCounts | PairTable) -> float | None:
    """Return the correlation of the two labels over prompts, in [-1, 1]; None if a variant never
    varies.

    It determines the gain from pairing.

    Source: Pearson's phi of a 2 x 2 table.
    """
    n11, n10, n01, n00 = counts
    product = (n11 + n10) * (n01 + n00) * (n11 + n01) * (n10 + n00)
    return (n11 * n00 - n10 * n01) / float(product) ** 0.5 if product else None
