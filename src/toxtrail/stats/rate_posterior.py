"""The posterior of one toxicity rate, without draws.

One continuation a prompt: Beta(toxic + prior, not toxic + prior); prior = 1/2 is Jeffreys' (Brown,
Cai & DasGupta 2001, Statistical Science 16(2)). Several: the exact Bayesian bootstrap over prompts
of `weighted_mean`, with an atom of weight `prior` at 0 and one at 1, which is the same Beta where
every prompt's continuations agree; prompts stay the unit, so continuations of one prompt are not
taken for independent trials.

All subsets together have one prior, as in `paired`: each prompt counts by its weight, and all by
the effective number of prompts, which is smaller where prompts have clusters (`clusters`).
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
    """What a posterior can answer."""

    def cdf(self, value: float, /) -> float:
        """P(rate <= value)."""

    def interval(self, level: float) -> Interval:
        """Equal-tailed interval."""

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation."""


class BetaPosterior(NamedTuple):
    """Beta(a, b)."""

    a: float
    b: float

    def cdf(self, value: float) -> float:
        """P(rate <= value)."""
        return float(betainc(self.a, self.b, min(max(value, 0.0), 1.0)))

    def interval(self, level: float) -> Interval:
        """Equal-tailed interval."""
        lo, hi = betaincinv(self.a, self.b, [(1 - level) / 2, (1 + level) / 2])
        return Interval(float(lo), float(hi))

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation."""
        total = self.a + self.b
        return self.a / total, (self.a * self.b / (total + 1)) ** 0.5 / total


def rate_posterior(
    labels: Sequence[Floats],
    weights: Sequence[float],
    prior: float,
    clusters: Clusters | None = None,
) -> BetaPosterior | WeightedMean:
    """Posterior of the weighted rate.

    Args:
        labels: of each subset, (prompt,) of `rates.toxic_shares`.
        weights: of each subset; they sum to 1.
        clusters: of the prompts; None: each is on its own.

    Raises:
        DataError: a subset has no prompt.
    """
    sizes = [subset_labels.size for subset_labels in labels]
    if not all(sizes):
        raise DataError("No row was scored: a rate of nothing is not 0. Look at the row states.")
    total = counted(labels, weights, clusters).effective
    if all(is_binary(subset_labels) for subset_labels in labels):
        toxic = total * observed(labels, weights)
        return BetaPosterior(toxic + prior, total - toxic + prior)
    shapes = pooled_shapes(sizes, weights, total)
    return weighted_mean(
        np.concatenate([*labels, [0.0, 1.0]]), np.concatenate([*shapes, [prior, prior]])
    )


def observed(values: Sequence[Floats], weights: Sequence[float]) -> float:
    """The weighted mean of the subsets' means: the estimate that is shown."""
    return float(
        sum(
            w * float(subset_values.mean())
            for subset_values, w in zip(values, weights, strict=True)
        )
    )


def beta_like(posterior: RatePosterior) -> BetaPosterior:
    """The Beta of the same mean and variance."""
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
    """(draw,) of `rate_posterior`; they depend on the labels, clusters and the seed alone."""
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
