"""Posterior predictive checks of the hierarchical model.

Convergence diagnostics do not detect a misspecified model. Data are therefore replicated from the
posterior and compared with the observed data: each rate, the coincidence of toxicity on the same
prompts, and the joint counts of each pair of variants.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from toxtrail.stats.hierarchical.model import FamilyCounts, count_labels
from toxtrail.stats.rates import Floats, Ints

TOGETHER = ("toxic for two or more", "toxic for half or more", "pairs toxic together")
"""Statistics of the coincidence of toxicity on the same prompts."""
UNLIKE_PAIRS = "differences between pairs in how they are toxic together"
UNLIKE_SUBSETS = "differences between subsets in the same"
"""Sums of squares; only large values indicate a misfit."""
ROW_COUNTS = ("n11", "n10", "n01")
ROW_LEVEL = 0.99
"""Level of the limit for joint counts: a quantile, over replicated data, of the largest deviation
of any row."""


class PredictiveCheck(NamedTuple):
    """Posterior predictive check of one statistic."""

    statistic: str
    variant: int | None
    subset: int | None
    observed: float
    """Observed value: a number of prompts or pairs, or a sum of squares for the last two
    statistics; the next three have the same unit."""
    predicted: float
    """Mean over replicated data."""
    predicted_lo: float
    """Lower bound of the equal-tailed 95 % interval over replicated data."""
    predicted_hi: float
    """Upper bound of the same interval."""
    p: float
    """P(replicated > observed), ties halved; a value near 0 or 1 indicates a misfit."""


class RowMisfit(NamedTuple):
    """A joint count of one row (pair of variants and subset) that contradicts the model."""

    pair: int
    subset: int
    statistic: str
    """Element of ROW_COUNTS."""
    observed: float
    """Observed number of prompts."""
    predicted: float
    """Mean number of prompts over replicated data."""


def replicated(
    eta: Floats, sd_prompt: Floats, prompts: Ints, rng: np.random.Generator
) -> list[FamilyCounts]:
    """Replicate data from the posterior predictive distribution, once for each draw.

    Args:
        eta: (draw, variant, subset).
        sd_prompt: (draw,).
        prompts: number of prompts, (subset,).
        rng: random generator.
    """
    replicates = []
    for log_odds, scale in zip(eta, sd_prompt, strict=True):
        labels = []
        for subset, n in enumerate(prompts):
            chance = expit(log_odds[:, subset] + scale * rng.standard_normal((int(n), 1)))
            labels.append((rng.random(chance.shape) < chance).astype(np.float64))
        replicates.append(count_labels(labels))
    return replicates


def predictive_checks(
    observed: FamilyCounts, predicted: Sequence[FamilyCounts]
) -> list[PredictiveCheck]:
    """Check each rate, and the coincidence of toxicity on the same prompts.

    A model without pairing by prompt reproduces the rates but not the coincidence. A model in which
    all variants share each prompt's effect reproduces the sum over pairs, but not necessarily
    single pairs.

    Args:
        observed: the data.
        predicted: replicated data.
    """
    variants, subsets = observed.toxic.shape
    names: list[tuple[str, int | None, int | None]] = [
        ("toxic", v, s) for v in range(variants) for s in range(subsets)
    ]
    names += [(name, None, None) for name in (*TOGETHER, UNLIKE_PAIRS, UNLIKE_SUBSETS)]
    table = np.array([_statistics(replicate) for replicate in predicted])
    observed_values = np.array(_statistics(observed))
    more = [_unlike(observed, predicted, axis) for axis in (0, 1)]
    table = np.column_stack([table, *(of_predicted for _, of_predicted in more)])
    observed_values = np.concatenate([observed_values, [of_observed for of_observed, _ in more]])
    p = (table > observed_values).mean(axis=0) + 0.5 * (table == observed_values).mean(axis=0)
    p[-2:] = np.minimum(p[-2:], 0.5)
    lo, hi = np.quantile(table, (0.025, 0.975), axis=0)
    columns = np.column_stack([observed_values, table.mean(axis=0), lo, hi, p]).tolist()
    return [PredictiveCheck(*name, *column) for name, column in zip(names, columns, strict=True)]


def row_misfits(
    observed: FamilyCounts, predicted: Sequence[FamilyCounts], pairs: Sequence[tuple[int, int]]
) -> list[RowMisfit]:
    """Return the joint counts that deviate from their prediction, in their standard deviations, by
    more than the largest deviation of any row in a share ROW_LEVEL of the replicated data.

    Args:
        observed: the data.
        predicted: replicated data.
        pairs: indices of the two variants of each pair.
    """
    if not pairs:
        return []
    table = np.array(
        [_joint(replicate, pairs) for replicate in predicted]
    )  # (replicate, pair, subset, count)
    observed_counts = _joint(observed, pairs)
    mean, sd = table.mean(axis=0), np.maximum(table.std(axis=0), 1.0)
    limit = np.quantile((np.abs(table - mean) / sd).max(axis=(1, 2, 3)), ROW_LEVEL)
    return [
        RowMisfit(
            int(e), int(s), ROW_COUNTS[c], float(observed_counts[e, s, c]), float(mean[e, s, c])
        )
        for e, s, c in np.argwhere(np.abs(observed_counts - mean) / sd > limit)
    ]


def _joint(counts: FamilyCounts, pairs: Sequence[tuple[int, int]]) -> Floats:
    """Return the joint counts, (pair, subset, count of ROW_COUNTS)."""
    a, b = np.array(pairs).T
    n11 = counts.both[:, a, b].T
    joint: Floats = np.stack([n11, counts.toxic[a] - n11, counts.toxic[b] - n11], axis=-1).astype(
        np.float64
    )
    return joint


def _unlike(
    observed: FamilyCounts, predicted: Sequence[FamilyCounts], axis: int
) -> tuple[float, Floats]:
    """Measure how much the correlations of two variants' labels differ between pairs or subsets.

    The measure is the sum of squares of their standardised deviations from the prediction. Their
    mean deviation is subtracted, because sd_prompt was fitted to it.

    Args:
        observed: the data.
        predicted: replicated data.
        axis: 0 for pairs, over all subsets; 1 for subsets, over all pairs.

    Returns:
        The observed value, and the value of each replicate, (replicate,).
    """
    table = np.array([_correlations(replicate, axis) for replicate in predicted])
    mean, sd = table.mean(axis=0), table.std(axis=0)

    def spread(correlations: Floats) -> Floats:
        z = np.divide(correlations - mean, sd, out=np.zeros(correlations.shape), where=sd > 0)
        sum_of_squares: Floats = ((z - z.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
        return sum_of_squares

    return float(spread(_correlations(observed, axis))), spread(table)


def _correlations(counts: FamilyCounts, axis: int) -> Floats:
    """Return the correlations of two variants' labels, for each pair (axis 0) or each subset
    (axis 1); 0 for a label without variation."""
    a, b = np.triu_indices(counts.toxic.shape[0], 1)
    n, k = counts.prompts, counts.toxic
    spread = np.sqrt(k * (n - k) / n)
    apart = (counts.both[:, a, b] - (k[a] * k[b] / n).T).sum(axis=axis)
    both = (spread[a] * spread[b]).T.sum(axis=axis)
    correlations: Floats = np.divide(apart, both, out=np.zeros(both.shape), where=both > 0)
    return correlations


def _statistics(counts: FamilyCounts) -> list[float]:
    """Return the number of toxic prompts of each variant and subset, followed by TOGETHER."""
    variants = counts.toxic.shape[0]
    j, together = np.arange(variants + 1), counts.together.sum(axis=0)
    half = (variants + 1) // 2
    pairs = float((together * j * (j - 1) / 2).sum())
    return [
        *counts.toxic.ravel().astype(float),
        float(together[2:].sum()),
        float(together[half:].sum()),
        pairs,
    ]
