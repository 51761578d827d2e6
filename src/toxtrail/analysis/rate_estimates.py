"""The scores of one variant by scorer and subset, and the estimate of a rate over its prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from toxtrail.analysis.score_table import (
    ALL,
    ScoreTable,
    SubsetScores,
    clusters_in,
    scorers,
    weights,
)
from toxtrail.config.schema import PosteriorConfig
from toxtrail.stats.clusters import Clusters
from toxtrail.stats.rate_posterior import observed, rate_posterior
from toxtrail.stats.rates import Floats


class VariantView(NamedTuple):
    """Data of a subset, or of all, by one scorer."""

    cells: Sequence[SubsetScores]
    """Cells of the subsets."""
    weights: Sequence[float]
    """Weights of the subsets."""
    clusters: Clusters | None
    """Clusters of the scored prompts."""

    @property
    def scored(self) -> bool:
        """Whether each subset has a scored prompt."""
        return all(cell.prompts for cell in self.cells)

    def shares(self, threshold: float) -> list[Floats]:
        """For each subset, (prompt,): share of a prompt's continuations that are toxic."""
        return [cell.toxic_fraction(threshold) for cell in self.cells]


def views_of(table: ScoreTable, level: float) -> dict[tuple[str, str], VariantView]:
    """Return (scorer, ALL or subset) -> view; scorers and subsets by name, all subsets first."""
    views = {}
    for scorer in scorers(table):
        share = weights(table, scorer)
        whole = [table[scorer, s] for s in share]
        views[scorer, ALL] = VariantView(whole, list(share.values()), _clusters(whole, level))
        for subset in share:
            cells = [table[scorer, subset]]
            views[scorer, subset] = VariantView(cells, [1.0], _clusters(cells, level))
    return views


def _clusters(cells: Sequence[SubsetScores], level: float) -> Clusters | None:
    named = {prompt: name for cell in cells for prompt, name in cell.clusters.items()}
    return clusters_in([cell.prompts for cell in cells], named, level)


class RateEstimate(NamedTuple):
    """A rate over prompts; None where nothing was scored."""

    rate: float | None
    """Observed."""
    mean: float | None
    """Posterior mean."""
    lo: float | None
    hi: float | None


def rate_estimate(
    view: VariantView, labels: Sequence[Floats], config: PosteriorConfig
) -> RateEstimate:
    """Return the rate of a view.

    Args:
        labels: for each subset, (prompt,), the share of a prompt's continuations.
    """
    if not view.scored:
        return RateEstimate(None, None, None, None)
    posterior = rate_posterior(labels, view.weights, config.prior, view.clusters)
    rate = observed(labels, view.weights)
    interval = posterior.interval(config.level).around(rate)
    return RateEstimate(rate, posterior.moments()[0], *interval)
