"""Area under the ROC curve: the probability that a toxic text has a higher score than a harmless
one, ties counted by half."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit, stdtrit
from scipy.stats import rankdata

from toxtrail.stats.rates import Floats, Interval


class AreaUnderCurve(NamedTuple):
    """Area under the ROC curve with its interval, in [0, 1]."""

    value: float
    interval: Interval | None
    """None where the sample has no variance: a single text with one of the labels, or one score for
    all texts."""


def area_under_curve(toxic: Floats, harmless: Floats, level: float) -> AreaUnderCurve:
    """Return the area under the ROC curve with DeLong's interval on the logit scale.

    Texts are treated as independent. The quantile is that of Student's t with the degrees of
    freedom of Brunner and Munzel, because with few toxic texts the normal one is too small.

    If the scores separate the labels completely, DeLong's variance is 0. The interval then comes
    from min(m, n) disjoint pairs of a toxic and a harmless text: all of them are in order with
    probability AUC ** min(m, n), and complete separation is at most as probable (Clopper & Pearson
    1934, doi:10.1093/biomet/26.4.404).

    Args:
        toxic: (m,), scores of toxic texts; not empty.
        harmless: (n,), scores of harmless texts; not empty.
        level: mass of the interval, in (0, 1).

    Source: DeLong, DeLong & Clarke-Pearson 1988, doi:10.2307/2531595, by ranks as in Sun & Xu 2014,
    doi:10.1109/LSP.2014.2337313; degrees of freedom: Brunner & Munzel 2000, Biometrical Journal
    42(1), equation 4.5; logit scale: Pepe 2003, The Statistical Evaluation of Medical Tests for
    Classification and Prediction, chapter 5.
    """
    m, n = toxic.size, harmless.size
    ranks = rankdata(np.concatenate([toxic, harmless]))
    above = (ranks[:m] - rankdata(toxic)) / n
    below = (ranks[m:] - rankdata(harmless)) / m
    area = float(above.mean())
    if area in (0.0, 1.0):
        bound = ((1 - level) / 2) ** (1 / min(m, n))
        return AreaUnderCurve(area, Interval(bound, 1.0) if area else Interval(0.0, 1 - bound))
    if min(m, n) < 2:
        return AreaUnderCurve(area, None)
    parts = np.array([above.var(ddof=1) / m, below.var(ddof=1) / n])
    variance = float(parts.sum())
    if variance == 0:
        return AreaUnderCurve(area, None)
    freedom = variance**2 / float((parts**2 / [m - 1, n - 1]).sum())
    margin = float(stdtrit(freedom, (1 + level) / 2)) * variance**0.5 / (area * (1 - area))
    lo, hi = expit(logit(area) + np.array([-margin, margin]))
    return AreaUnderCurve(area, Interval(float(lo), float(hi)))
