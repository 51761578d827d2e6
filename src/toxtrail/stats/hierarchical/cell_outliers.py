"""Cells (variant, subset) whose counts contradict their prediction from all other cells.

The hierarchical model assumes that variant x subset effects come from one normal distribution. A
variant that changes much in three subsets and not at all in the fourth violates this: the estimate
of its fourth cell is shrunk towards the others, and its interval excludes the true value. The
posterior itself does not reveal that, because it was fitted to the cell; each cell is therefore
predicted without its own count (Marshall & Spiegelhalter 2007, doi:10.1214/07-BA218).

The prediction is that of the hierarchical model with normal approximations, in closed form.
Empirical log-odds y have the standard errors of their counts and, within a subset, the correlations
of the labels of two variants on the same prompts. mu, variants and subsets have wide normal priors.
The scale of the interaction has the model's prior and is summed over a grid, weighted by the
likelihood of the other cells. The tail probability of a count is that of the binomial distribution,
averaged over the prediction.
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
"""Grid of the scale of the interaction, log-odds."""
SD_MU, SD_VARIANT, SD_SUBSET, MU = 3.0, 2.0, 1.5, -2.0
"""Standard deviations of the main effects' priors, and mean of mu's, log-odds. They are at least as
wide as the model's, because they replace its estimates of the main effects."""
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(21)
"""Gauss-Hermite rule over a predicted log-odds, in standard deviations."""
LEAST_SD = 0.1
"""Minimum standard deviation of a predicted log-odds."""


class Cells(NamedTuple):
    """Predictions of each cell from all other cells, (variant, subset) each."""

    low: Floats
    """Probability of a count as low as the observed one, ties halved."""
    expected: Floats
    """Expected number of toxic prompts."""

    @property
    def p(self) -> Floats:
        """Two-sided p-value, (variant, subset)."""
        two_sided: Floats = 2 * np.minimum(self.low, 1 - self.low)
        return two_sided


def contradictions(counts: FamilyCounts) -> Cells:
    """Predict each cell's count from all other cells."""
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
    """Return the prior covariance without the interaction, (cell, cell)."""
    variant, subset = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
    covariance: Floats = (
        SD_MU**2
        + SD_VARIANT**2 * (variant[:, None] == variant)
        + SD_SUBSET**2 * (subset[:, None] == subset)
    )
    return covariance


def _noise(counts: FamilyCounts) -> Floats:
    """Return the covariance of the empirical log-odds for fixed rates, (cell, cell)."""
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
    """Predict each cell from the others, for each scale of the interaction.

    Args:
        y: empirical log-odds, (cell,).
        noise: their covariance for fixed rates, (cell, cell).
        main: prior covariance of the main effects, (cell, cell).

    Returns:
        Posterior probability of the scale without the cell; mean and variance of the prediction of
        y in the cell, including the cell's noise; (scale, cell) each.
    """
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
