"""Agreement of annotators on two labels, toxic and harmless, beyond the agreement by chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

MIN_VARIANCE = 1e-12
"""Largest variance of one text that is a rounding error of 0."""


class Kappa(NamedTuple):
    """Cohen's kappa with its interval, in [-1, 1]."""

    value: float | None = None
    """None: both annotators gave one and the same label to every text."""
    lo: float | None = None
    hi: float | None = None
    """None where the asymptotic variance is 0: no disagreement, or only one label by one of the
    annotators."""


def cohen_kappa(counts: ArrayLike, level: float) -> Kappa:
    """Return Cohen's kappa of two annotators (Cohen 1960, doi:10.1177/001316446002000104) with the
    interval of its asymptotic normal distribution.

    Texts are treated as independent.

    Args:
        counts: (2, 2), texts by label of the first annotator and label of the second; not all 0.
        level: mass of the interval, in (0, 1).

    Source of the variance: Fleiss, Cohen & Everitt 1969, doi:10.1037/h0028106.
    """
    table = np.asarray(counts, dtype=np.float64)
    n = table.sum()
    share = table / n
    first, second = share.sum(axis=1), share.sum(axis=0)
    observed, chance = float(np.trace(share)), float(first @ second)
    if chance == 1:
        return Kappa()
    kappa = (observed - chance) / (1 - chance)
    same = np.diag(share) @ (1 - (first + second) * (1 - kappa)) ** 2
    crossed = share * (second[:, None] + first[None, :]) ** 2
    different = (1 - kappa) ** 2 * (crossed.sum() - np.trace(crossed))
    variance = (same + different - (kappa - chance * (1 - kappa)) ** 2) / (1 - chance) ** 2
    if variance < MIN_VARIANCE:
        return Kappa(kappa)
    margin = float(ndtri((1 + level) / 2) * np.sqrt(variance / n))
    return Kappa(kappa, max(kappa - margin, -1.0), min(kappa + margin, 1.0))


def krippendorff_alpha(texts: Sequence[Sequence[bool]]) -> float | None:
    """Return Krippendorff's alpha for nominal labels, of any number of annotators.

    Args:
        texts: for each text the labels that it has; texts with fewer than two do not count.

    Returns:
        1 for perfect agreement, 0 for agreement by chance; None if there are not two different
        labels.

    Source: Krippendorff 2011, Computing Krippendorff's alpha-reliability,
    https://repository.upenn.edu/asc_papers/43.
    """
    sizes = np.array([len(labels) for labels in texts if len(labels) > 1], dtype=np.float64)
    toxic = np.array([sum(labels) for labels in texts if len(labels) > 1], dtype=np.float64)
    n, n_toxic = sizes.sum(), toxic.sum()
    if n_toxic in (0, n):
        return None
    observed = (2 * toxic * (sizes - toxic) / (sizes - 1)).sum() / n
    expected = 2 * n_toxic * (n - n_toxic) / (n * (n - 1))
    return float(1 - observed / expected)
