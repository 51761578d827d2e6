"""Means over prompts, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from toxtrail.stats.clusters import Clusters
from toxtrail.stats.paired_differences import mean_posterior
from toxtrail.stats.rate_posterior import observed
from toxtrail.stats.rates import Floats


class MeanEstimate(NamedTuple):
    """A weighted mean and its interval."""

    mean: float | None
    """None where a subset has no value."""
    lo: float | None
    """None for fewer than two values, or one cluster."""
    hi: float | None


def mean_estimate(
    values: Sequence[Floats],
    weights: Sequence[float],
    level: float,
    bounds: tuple[float, float],
    clusters: Clusters | None,
) -> MeanEstimate:
    """Estimate the weighted mean of the subsets.

    Args:
        values: of each subset, (prompt,).
        weights: of each subset; they sum to 1.
        bounds: smallest and largest possible value.
        clusters: of the prompts; None: each is on its own.
    """
    mean = (
        observed(values, weights) if all(subset_values.size for subset_values in values) else None
    )
    posterior = mean_posterior(values, weights, level, bounds, clusters)
    if posterior is None or mean is None:
        return MeanEstimate(mean, None, None)
    return MeanEstimate(mean, *posterior.interval(level).around(mean))
