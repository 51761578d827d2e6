"""Rates along a dose: does more of a fine-tune make a model more toxic?

Each posterior draw of the variants' rates gives one least-squares slope of their log-odds on the
dose. The draws are a Bayesian bootstrap over prompts with one weight for each prompt in all
variants, which is the pairing (see `rate_posterior` for its prior atoms); so the interval speaks
of other prompts, not of other seeds of the fine-tunes.

A straight line in the log-odds is a summary, no model of how doses work; that rates never fall from
one dose to the next is asked of the same draws without it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import logit

from toxtrail.stats.bayesian_bootstrap import effective, pooled_shapes
from toxtrail.stats.rates import Floats, bootstrap_draws, content_rng


def paired_rates(
    labels: Sequence[Floats], weights: Sequence[float], prior: float, draws: int, seed: int
) -> Floats:
    """(draw, variant): rates over several subsets, one set of weights for all variants. They depend
    on the labels and the seed alone.

    Args:
        labels: of each subset, (prompt, variant): share of a prompt's continuations that are toxic.
        weights: of each subset; they sum to 1, and share one prior.
    """
    variants, sizes = labels[0].shape[1], [len(subset_labels) for subset_labels in labels]
    shapes = np.concatenate(pooled_shapes(sizes, weights, effective(sizes, weights)))
    values, atoms = np.concatenate(labels), ([0.0] * variants, [1.0] * variants)
    rng = content_rng(seed, values, weights)
    return bootstrap_draws(values, shapes, atoms, prior, draws, rng)


def slopes(rates: Floats, doses: Floats) -> Floats:
    """(draw,): change of the log-odds with one unit of dose, by least squares.

    Args:
        rates: (draw, variant), within 0 and 1.
        doses: (variant,), not all equal.
    """
    tiny = np.finfo(np.float64).tiny
    odds = logit(np.clip(rates, tiny, 1 - np.finfo(np.float64).epsneg))
    apart = doses - doses.mean()
    change: Floats = odds @ apart / (apart @ apart)
    return change


def never_falls(rates: Floats, doses: Floats) -> Floats:
    """(draw,): 1 where the rate, averaged over the variants of a dose, falls from no dose to the
    next, else 0."""
    levels = np.unique(doses)
    means = np.stack([rates[:, doses == level].mean(axis=1) for level in levels], axis=1)
    rising: Floats = np.all(np.diff(means, axis=1) >= 0, axis=1).astype(np.float64)
    return rising
