"""The posterior of one toxicity rate, without draws.

With one continuation per prompt: Beta(toxic + prior, not toxic + prior); prior = 1/2 is Jeffreys'
(Brown, Cai & DasGupta 2001, Statistical Science 16(2)). With several: the exact Bayesian bootstrap
over prompts of `weighted_mean`, with an atom of weight `prior` at 0 and one at 1, which is the same
Beta if all continuations of every prompt agree; prompts remain the unit, so continuations of one
prompt are not treated as independent trials.

All subsets together have one prior, as in `paired_posterior`: prompts are weighted, and their total
is the effective number of prompts, which is smaller for clustered prompts (`clusters`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from scipy.special import betainc, betaincinv

from toxtrail.errors import DataError
from toxtrail.stats.bayesian_bootstrap import WeightedMean, pooled_shapes, weighted_mean
from toxtrail.stats.clusters import Clusters, counted
from toxtrail.stats.rates import Floats, Interval, bootstrap_draws, content_rng, is_binary


class RatePosterior(Protocol):
    """Interface of a rate's posterior."""

    def cdf(self, value: float, /) -> float:
        """Return P(rate <= value)."""

    def interval(self, level: float) -> Interval:
        """Return the equal-tailed interval."""

    def moments(self) -> tuple[float, float]:
        """Return the mean and standard deviation."""


class BetaPosterior(NamedTuple):
    """Beta(a, b)."""

    a: float
    b: float

    def cdf(self, value: float) -> float:
        """Return P(rate <= value)."""
        return float(betainc(self.a, self.b, min(max(value, 0.0), 1.0)))

    def interval(self, level: float) -> Interval:
        """Return the equal-tailed interval."""
        lo, hi = betaincinv(self.a, self.b, [(1 - level) / 2, (1 + level) / 2])
        return Interval(float(lo), float(hi))

    def moments(self) -> tuple[float, float]:
        """Return the mean and standard deviation."""
        total = self.a + self.b
        return self.a / total, (self.a * self.b / (total + 1)) ** 0.5 / total


def rate_posterior(
    labels: Sequence[Floats],
    weights: Sequence[float],
    prior: float,
    clusters: Clusters | None = None,
) -> BetaPosterior | WeightedMean:
    """Return the posterior of the weighted rate.

    Args:
        labels: for each subset, (prompt,) of `rates.toxic_fractions`.
        weights: of the subsets; they sum to 1.
        clusters: of the prompts; None for independent prompts.

    Raises:
        DataError: a subset has no prompt.
    """
    sizes = [subset_labels.size for subset_labels in labels]
    if not all(sizes):
        raise DataError("No row was scored, so there is no rate. Check the states of the rows.")
    total = counted(labels, weights, clusters).effective
    if all(is_binary(subset_labels) for subset_labels in labels):
        toxic = total * observed(labels, weights)
        return BetaPosterior(toxic + prior, total - toxic + prior)
    shapes = pooled_shapes(sizes, weights, total)
    return weighted_mean(
        np.concatenate([*labels, [0.0, 1.0]]), np.concatenate([*shapes, [prior, prior]])
    )


def observed(values: Sequence[Floats], weights: Sequence[float]) -> float:
    """Return the displayed estimate: the weighted mean of the subsets' means, within their range
    also after rounding."""
    means = [float(subset_values.mean()) for subset_values in values]
    whole = sum(w * mean for w, mean in zip(weights, means, strict=True))
    return float(min(max(whole, min(means)), max(means)))


def beta_like(posterior: RatePosterior) -> BetaPosterior:
    """Return the Beta distribution with the same mean and variance."""
    mean, spread = posterior.moments()
    total = max(mean * (1 - mean) / spread**2 - 1, 1e-6)
    return BetaPosterior(mean * total, (1 - mean) * total)


def rate_draws(
    labels: Sequence[Floats],
    weights: Sequence[float],
    prior: float,
    draws: int,
    seed: int,
    clusters: Clusters | None = None,
) -> Floats:
    """Return (draw,) of `rate_posterior`; the draws depend on the labels, clusters and the seed
    only."""
    posterior = rate_posterior(labels, weights, prior, clusters)
    everything = np.concatenate(labels)
    rng = content_rng(seed, everything, weights)
    if isinstance(posterior, BetaPosterior):
        return rng.beta(*posterior, size=draws)
    sizes = [subset_labels.size for subset_labels in labels]
    count, atoms = counted(labels, weights, clusters), ((0.0,), (1.0,))
    shapes = np.concatenate(pooled_shapes(sizes, weights, count.effective))
    share = 1 / count.design_effect
    means = bootstrap_draws(everything[:, None], shapes, atoms, prior, draws, rng, share)
    column: Floats = means[:, 0]
    return column
