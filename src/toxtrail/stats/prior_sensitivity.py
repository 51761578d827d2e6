"""Prior sensitivity: would another prior change the result?

The prior, or the likelihood, is raised to a power slightly above and below 1, and the draws are
reweighted; the change of the posterior is the sensitivity (0: none).

Source: Kallioinen, Paananen, Buerkner & Vehtari 2024, doi:10.1007/s11222-023-10366-5, as in ArviZ.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from toxtrail.stats.bayes_libraries import prior_and_likelihood_sensitivity
from toxtrail.stats.rates import Floats

SENSITIVITY_THRESHOLD = 0.05
"""Threshold of both sensitivities: a prior above it is informative, a likelihood below it is
weak."""


class Sensitivity(NamedTuple):
    """Power-scaling sensitivity of one quantity, unitless."""

    prior: float
    likelihood: float

    @property
    def complaint(self) -> str:
        """Sentence on the prior if it matters; empty otherwise."""
        if self.prior < SENSITIVITY_THRESHOLD:
            return ""
        if self.likelihood < SENSITIVITY_THRESHOLD:
            return "the prior decides it more than these prompts do"
        return "the prior and these prompts pull it different ways"


def power_scaling(draws: Floats, log_prior: Floats, log_likelihood: Floats) -> Sensitivity:
    """Return how far the posterior of a quantity moves when its prior, or the data, are reweighted.

    Args:
        draws: (chain, draw) of the quantity.
        log_prior, log_likelihood: (chain, draw), up to a constant.

    A constant quantity has sensitivity 0.
    """
    if np.ptp(draws) == 0:
        return Sensitivity(0.0, 0.0)
    return Sensitivity(*prior_and_likelihood_sensitivity(draws, log_prior, log_likelihood))
