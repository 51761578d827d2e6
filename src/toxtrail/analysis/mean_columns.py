"""Columns of a mean over prompts."""

from __future__ import annotations

from collections.abc import Sequence

from toxtrail.stats.clusters import Clusters
from toxtrail.stats.paired_differences import mean_posterior
from toxtrail.stats.rate_posterior import observed
from toxtrail.stats.rates import Floats


def mean_columns(
    name: str,
    values: Sequence[Floats],
    weights: Sequence[float],
    level: float,
    bounds: tuple[float, float],
    clusters: Clusters | None,
) -> dict[str, float | None]:
    """`<name>`, the weighted mean, with `<name>_lo` and `<name>_hi`; None where a subset has no
    value, and no interval of fewer than two values, or of one cluster.

    Args:
        values: of each subset, (prompt,).
        weights: of each subset; they sum to 1.
        bounds: smallest and largest possible value.
        clusters: of the prompts; None: each is on its own.
    """
    estimate = (
        observed(values, weights) if all(subset_values.size for subset_values in values) else None
    )
    posterior = mean_posterior(values, weights, level, bounds, clusters)
    interval = None
    if posterior and estimate is not None:
        interval = posterior.interval(level).around(estimate)
    return {
        name: estimate,
        f"{name}_lo": interval.lo if interval else None,
        f"{name}_hi": interval.hi if interval else None,
    }
