"""Dose-response: does a larger dose of a fine-tune make a model more toxic?

Each posterior draw of the variants' rates gives one least-squares slope of their log-odds on the
dose. The draws are a Bayesian bootstrap over prompts with one weight for each prompt in all
variants, which pairs them (see `rate_posterior` for its prior atoms); the interval therefore
generalises to other prompts, not to other seeds of the fine-tunes.

A straight line in the log-odds is a summary, not a model of the dose-response relation; whether
rates never fall from one dose to the next is computed from the same draws without it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import logit

from toxtrail.stats.bayesian_bootstrap import pooled_shapes
from toxtrail.stats.clusters import Clusters, Counted, counted
from toxtrail.stats.rates import Floats, bootstrap_draws, content_rng


def paired_rates(
    labels: Sequence[Floats],
    weights: Sequence[float],
    prior: float,
    draws: int,
    seed: int,
    clusters: Clusters | None = None,
) -> Floats:
    """Return (draw, variant): rates over several subsets, with the same weights for all variants.

    The draws depend on the labels and the seed only.

    Args:
        labels: for each subset, (prompt, variant): share of a prompt's continuations that are
            toxic.
        weights: of the subsets; they sum to 1, and share one prior.
        clusters: of the prompts; None for independent prompts.
    """
    variants, sizes = labels[0].shape[1], [len(subset_labels) for subset_labels in labels]
    rests = _rests_on(labels, weights, clusters)
    shapes = np.concatenate(pooled_shapes(sizes, weights, rests.effective))
    values, atoms = np.concatenate(labels), ([0.0] * variants, [1.0] * variants)
    rng = content_rng(seed, values, weights)
    return bootstrap_draws(values, shapes, atoms, prior, draws, rng, 1 / rests.design_effect)


def _rests_on(
    labels: Sequence[Floats], weights: Sequence[float], clusters: Clusters | None
) -> Counted:
    """Return the smallest effective number of prompts of a variant's rate, or of its difference
    from the first variant: all variants have the same weights."""
    columns = [[subset_labels[:, v] for subset_labels in labels] for v in range(labels[0].shape[1])]
    steps = [[y - x for x, y in zip(columns[0], column, strict=True)] for column in columns[1:]]
    counts = [
        counted(values, weights, clusters)
        for values in ([*columns, *steps] if clusters else columns[:1])
    ]
    return min(counts, key=lambda count: count.effective)


def slopes(rates: Floats, doses: Floats) -> Floats:
    """Return (draw,): change of the log-odds per unit of dose, by least squares.

    Args:
        rates: (draw, variant), between 0 and 1.
        doses: (variant,), not all equal.
    """
    tiny = np.finfo(np.float64).tiny
    odds = logit(np.clip(rates, tiny, 1 - np.finfo(np.float64).epsneg))
    apart = doses - doses.mean()
    change: Floats = odds @ apart / (apart @ apart)
    return change


def is_monotone(rates: Floats, doses: Floats) -> Floats:
    """Return (draw,): 1 if the rate, averaged over the variants of a dose, never falls from one
    dose to the next, else 0."""
    levels = np.unique(doses)
    means = np.stack([rates[:, doses == level].mean(axis=1) for level in levels], axis=1)
    rising: Floats = np.all(np.diff(means, axis=1) >= 0, axis=1).astype(np.float64)
    return rising
