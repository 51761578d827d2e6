"""Agreement of annotators on two labels, toxic and harmless, beyond the agreement by chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from toxtrail.stats.rates import Floats, Interval, content_rng

PRIOR = 0.5
"""Pseudo-count of each cell: Jeffreys' prior of the four shares."""
DRAWS = 20_000


class Kappa(NamedTuple):
    """Cohen's kappa with its interval, in [-1, 1]; None: both annotators gave one and the same
    label to every text."""

    value: float | None = None
    lo: float | None = None
    hi: float | None = None


def cohen_kappa(counts: ArrayLike, level: float) -> Kappa:
    """Return Cohen's kappa of two annotators (Cohen 1960, doi:10.1177/001316446002000104) with its
    equal-tailed interval under the Dirichlet posterior of the four shares.

    With few toxic labels, the interval of the asymptotic variance (Fleiss, Cohen & Everitt 1969,
    doi:10.1037/h0028106) is too narrow: it covered .67 at 50 texts and 3 % toxic, this one at least
    .91 in 64 designs of 50 to 600 texts. Texts are treated as independent. Equal counts have equal
    draws.

    Args:
        counts: (2, 2), texts by label of the first annotator and label of the second; not all 0.
        level: mass of the interval, in (0, 1).
    """
    table = np.asarray(counts, dtype=np.float64)
    if np.diag(table).max() == table.sum():
        return Kappa()
    # kappa does not depend on the order of the annotators and of the labels
    cells = np.concatenate([np.sort(np.diag(table)), np.sort([table[0, 1], table[1, 0]])])
    weights = content_rng(0, cells).standard_gamma(cells + PRIOR, (DRAWS, 4))
    draws = _kappa(weights / weights.sum(axis=1, keepdims=True))
    value = float(_kappa(cells / cells.sum()))
    tail = (1 - level) / 2
    interval = Interval(*np.quantile(draws, [tail, 1 - tail]).tolist()).around(value)
    return Kappa(value, *interval)


def _kappa(shares: Floats) -> Floats:
    """Return kappa of (..., 4) shares: both labels of one kind, both of the other, unlike twice."""
    same, other, first, second = np.moveaxis(shares, -1, 0)
    chance = (same + first) * (same + second) + (other + first) * (other + second)
    kappa: Floats = (same + other - chance) / (1 - chance)
    return kappa


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
