"""The hierarchical model of counts without prompt effects, for published tables.

Variant v was toxic on toxic[v, s] of n[v, s] prompts of subset s:

    toxic[v, s] ~ Binomial(n[v, s], sigmoid(eta[v, s]))
    eta[v, s]   = mu + subset[s] + variant[v] + interaction[v, s]

    mu          ~ Normal(-3.5, 2)
    subset      ~ ZeroSumNormal(1.5)
    variant     = sd_variant ZeroSumNormal(1)             sd_variant ~ HalfNormal(1)
    interaction = sd_interaction ZeroSumNormal(1)         sd_interaction ~ HalfNormal(0.5)

It is the pooled model without prompt effects: nothing is paired, so differences of variants on the
same prompts are too wide (by a fifth at a typical correlation of labels), never too narrow. With
one subset there are no subset and interaction terms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from toxtrail.errors import DataError
from toxtrail.stats.bayes_libraries import load_pymc
from toxtrail.stats.hierarchical.model import linear_predictor
from toxtrail.stats.rates import Floats, Ints

if TYPE_CHECKING:
    from toxtrail.stats.bayes_libraries import Model

HYPER = ("mu", "sd_variant", "sd_interaction")
PRIOR_MU = (-3.5, 2.0)
"""Mean and standard deviation, log-odds: a rate of 3 % (.05 to 61 % in 95 of 100)."""


def build(toxic: Ints, n: Ints) -> Model:
    """Build the model in this module's docstring, non-centred; `eta` is (variant, subset).

    Args:
        toxic, n: (variant, subset), counts and prompts.

    Raises:
        DataError: one variant only, no prompt, or more toxic prompts than prompts.
    """
    pm = load_pymc()

    if toxic.shape != n.shape or toxic.shape[0] < 2:
        raise DataError("at least two variants are needed for pooling")
    if np.any(n < 1) or np.any(toxic < 0) or np.any(toxic > n):
        raise DataError("a count is not between 0 and its prompts")
    coords = {"variant": np.arange(toxic.shape[0]), "subset": np.arange(toxic.shape[1])}
    with pm.Model(coords=coords) as model:
        variants, subsets = toxic.shape
        eta = linear_predictor(variants, subsets, PRIOR_MU)
        prompts, counts = pm.Data("prompts", n), pm.Data("counts", toxic)  # swapped, not compiled
        pm.Binomial("toxic", n=prompts, logit_p=eta, observed=counts, dims=("variant", "subset"))
    return model


def rates(eta: Floats) -> Floats:
    """Return (..., variant, subset) in [0, 1]."""
    marginal: Floats = expit(eta)
    return marginal
