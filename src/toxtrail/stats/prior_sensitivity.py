"""Would another prior have given another answer?

The prior, or the likelihood, is raised to a power a little above and below 1, and the draws are
weighted anew; how far the posterior moves is the sensitivity (0: not at all).

Source: Kallioinen, Paananen, Buerkner & Vehtari 2024, doi:10.1007/s11222-023-10366-5, as in ArviZ.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from toxtrail.stats.rates import Floats

SENSITIVITY_THRESHOLD = 0.05
"""Of both sensitivities: a prior beyond it is informative, a likelihood below it says little."""


class Sensitivity(NamedTuple):
    """Power-scaling sensitivity of one quantity, unitless."""

    prior: float
    likelihood: float

    @property
    def complaint(self) -> str:
        """A plain sentence if the prior matters; empty otherwise."""
        if self.prior < SENSITIVITY_THRESHOLD:
            return ""
        if self.likelihood < SENSITIVITY_THRESHOLD:
            return "the prior decides it more than these prompts do"
        return "the prior and these prompts pull it different ways"


def power_scaling(draws: Floats, log_prior: Floats, log_likelihood: Floats) -> Sensitivity:
    """How far the posterior of one quantity moves when its prior, or the data, weigh more or less.

    Args:
        draws: (chain, draw) of the quantity.
        log_prior, log_likelihood: (chain, draw), up to a constant.

    A quantity that does not vary has sensitivity 0.
    """
    import arviz as az
    import xarray as xr

    if np.ptp(draws) == 0:
        return Sensitivity(0.0, 0.0)
    data = az.from_dict(
        posterior={"quantity": draws}, log_likelihood={"data": log_likelihood[..., None]}
    )
    data.add_groups(log_prior=xr.Dataset({"prior": (("chain", "draw"), log_prior)}))
    prior, data_weight = (
        float(az.psens(data, component=part)["quantity"]) for part in ("prior", "likelihood")
    )
    return Sensitivity(prior, data_weight)
