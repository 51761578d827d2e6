"""Mean scores: nothing is assumed of how they are spread.

A stratified Bayesian bootstrap over prompts. Each prompt of a subset gets a random weight, the same
for every variant, which is the pairing; a posterior draw of a mean is the weighted mean:

    weight[i] ~ Exponential(1)        mean[v] = sum_i weight[i] x[i, v] / sum_i weight[i]

x is what a prompt says of a variant: the mean score of its continuations, or their highest
(expected maximum toxicity, Gehman et al. 2020, arXiv:2009.11462, section 3). All subsets together
are the sum over subsets, each by its share of the prompts. Above `rates.EACH_WEIGHED` prompts of a
subset, i is a group of them, and x[i] their sum.

It suits scores between 0 and 1, not rare labels: with one toxic prompt in a hundred its 95 %
intervals cover in half of the cases. Rates have models of their own (`rates`, `contrasts`).

Source: Rubin 1981, doi:10.1214/aos/1176345338.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from toxtrail.stats.rates import (
    BOOTSTRAP_BLOCK,
    Floats,
    Interval,
    equal_tailed,
    group_sums,
    named_rng,
)


class Mean(NamedTuple):
    """Posterior of a mean over prompts, or of a difference of two, in the unit of the scores."""

    mean: float
    interval: Interval


def mean_draws(values: Floats, draws: int, seed: int, stratum: str) -> Floats:
    """(draw, column): posterior draws of the mean of each column.

    Args:
        values: (prompt, column), NaN where a prompt has no value there; all prompts that were
            asked, in one order for all variants.
        stratum: name of the subset: with the seed it decides the weights, so that two calls for one
            subset are paired.

    A column without any value is NaN.
    """
    known = np.isfinite(values)
    filled, present = group_sums(np.where(known, values, 0.0)), group_sums(known.astype(float))
    found = np.empty((draws, values.shape[1]))
    with np.errstate(invalid="ignore"):
        for rows, weights in _weights(len(filled), draws, seed, stratum):
            found[rows] = (weights @ filled) / (weights @ present)
    return found


def summarised(draws: Floats, level: float) -> Mean | None:
    """The posterior mean and its interval; None where there were no values."""
    if np.isnan(draws).any():
        return None
    return Mean(float(draws.mean()), equal_tailed(draws, level))


def _weights(prompts: int, draws: int, seed: int, stratum: str) -> Iterator[tuple[slice, Floats]]:
    rng = named_rng(seed, f"prompts|{stratum}")
    for start in range(0, draws, BOOTSTRAP_BLOCK):
        rows = slice(start, min(start + BOOTSTRAP_BLOCK, draws))
        yield rows, rng.standard_exponential((rows.stop - rows.start, prompts))
