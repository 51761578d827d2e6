"""Does one cell (variant, subset) contradict what all other cells predict of it?

The pooled model takes variant x subset effects for draws of one normal distribution. A variant
that changes much in three subsets and not at all in the fourth is not one: its fourth cell is
pulled towards the others, and its interval excludes the truth. The posterior itself hides that,
since the cell helped to fit it; so each cell is predicted without its own count (Marshall &
Spiegelhalter 2007, doi:10.1214/07-BA218).

The prediction is the pooled model with normal approximations, in closed form. Empirical log-odds y
have the standard errors of their counts and, within a subset, the correlations of the labels of two
variants on the same prompts. mu, variants and subsets have wide normal priors. The scale of the
interaction has the model's prior and is summed over a grid, weighted by how well it predicts the
other cells. The probability of a count as far out is the binomial's, averaged over the prediction.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logsumexp
from scipy.stats import binom

from toxtrail.stats.hierarchical.density import SD_INTERACTION
from toxtrail.stats.hierarchical.model import FamilyCounts
from toxtrail.stats.rates import Floats

SCALES: Floats = np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0, 1.4, 2.0])
"""Of the interaction, log-odds."""
SD_MU, SD_VARIANT, SD_SUBSET, MU = 3.0, 2.0, 1.5, -2.0
"""Priors, log-odds; wider than the model's, since they replace the main effects."""
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(21)
LEAST_SD = 0.1
"""Of a predicted log-odds."""


class Cells(NamedTuple):
    """What all other cells say of each, (variant, subset)."""

    low: Floats
    """Probability of a count as low as the one seen, ties halved."""
    expected: Floats
    """Toxic prompts."""

    @property
    def p(self) -> Floats:
        """Two-sided."""
        two_sided: Floats = 2 * np.minimum(self.low, 1 - self.low)
        return two_sided


def contradictions(counts: FamilyCounts) -> Cells:
    """Each count against its prediction by all other cells."""
    shape = counts.toxic.shape
    n = np.broadcast_to(counts.prompts, shape).ravel()
    k = counts.toxic.ravel()
    y = np.log((k + 0.5) / (n - k + 0.5))
    noise = _noise(counts)
    weight, mean, variance = _left_out(y, noise, _main_effects(shape))
    sd = np.sqrt(np.maximum(variance - noise.diagonal(), LEAST_SD**2))
    share = expit(mean[..., None] + sd[..., None] * NODES)  # (scale, cell, node)
    nodes = WEIGHTS / WEIGHTS.sum()
    below = binom.cdf(k[:, None], n[:, None], share) - 0.5 * binom.pmf(
        k[:, None], n[:, None], share
    )
    low = (weight * (below @ nodes)).sum(axis=0)
    expected = n * (weight * (share @ nodes)).sum(axis=0)
    return Cells(low.reshape(shape), expected.reshape(shape))


def _main_effects(shape: tuple[int, ...]) -> Floats:
    """(cell, cell): prior covariance without the interaction."""
    variant, subset = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
    covariance: Floats = (
        SD_MU**2
        + SD_VARIANT**2 * (variant[:, None] == variant)
        + SD_SUBSET**2 * (subset[:, None] == subset)
    )
    return covariance


def _noise(counts: FamilyCounts) -> Floats:
    """(cell, cell): covariance of the empirical log-odds, given the rates."""
    variants, subsets = counts.toxic.shape
    covariance = np.zeros((variants, subsets, variants, subsets))
    for s, n in enumerate(counts.prompts):
        k = counts.toxic[:, s]
        error = np.sqrt(1 / (k + 0.5) + 1 / (n - k + 0.5))
        spread = np.sqrt(k * (n - k) / n**2)
        both = np.outer(spread, spread)
        apart = counts.both[s] / n - np.outer(k, k) / n**2
        phi = np.divide(apart, both, out=np.zeros(apart.shape), where=both > 0)
        np.fill_diagonal(phi, 1.0)
        covariance[:, s, :, s] = phi * np.outer(error, error)
    return covariance.reshape(variants * subsets, -1)


def _left_out(y: Floats, noise: Floats, main: Floats) -> tuple[Floats, Floats, Floats]:
    """(scale, cell) each: how likely a scale of the interaction is without the cell; mean and
    variance of what the other cells predict of y there, its own noise included."""
    by_scale = []
    for scale, step in zip(SCALES, np.gradient(SCALES), strict=True):
        precision = np.linalg.inv(noise + main + scale**2 * np.eye(len(y)))
        pulled = precision @ (y - MU)
        variance = 1 / precision.diagonal()
        mean = y - variance * pulled
        whole = 0.5 * np.linalg.slogdet(precision)[1] - 0.5 * pulled @ (y - MU)
        cell_density = -0.5 * np.log(variance) - 0.5 * (y - mean) ** 2 / variance
        prior = np.log(step) - 0.5 * (scale / SD_INTERACTION) ** 2
        by_scale.append((whole - cell_density + prior, mean, variance))
    weight, mean, variance = (np.array(column) for column in zip(*by_scale, strict=True))
    return np.exp(weight - logsumexp(weight, axis=0)), mean, variance
