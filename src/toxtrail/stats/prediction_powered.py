"""Rates and differences corrected for a scorer's errors by human labels of some texts.

The texts of m of the n prompts, randomly sampled, are labelled. With y a prompt's labelled value
(for a rate 0 or 1, for a difference y_b - y_a) and f the scorer's, the estimate is
prediction-powered,

    power mean_n(f) + mean_m(y - power f),

unbiased for any errors of the scorer on any variant. `power`, from 0 (labels only) to 1, minimises
the estimated variance, so the interval is no wider than that of the labels alone. The m prompts are
among the n: with f = 0 or 1 for one continuation, the estimate is mean_m(y - w f) + w mean(f of the
others), w = power (1 - m/n), two independent parts. Subsets are strata with design weights.

The interval is that of a sample of labels with the same variance: an effective number of labelled
prompts (Korn & Graubard 1998) is used in the score interval of a rate (Wilson 1927) or the adjusted
interval of a paired difference (Bonett & Price 2012), which are valid for few toxic texts, where a
normal or t interval is too narrow. The effective number is at least the number of labels.
`UNSEEN_RATE` and `UNSEEN_DIFFERENCE` are our choice, by simulation (benchmarks/labels.py): without
them an accurate scorer, of whose errors 50 labels may show none, gives intervals that are too
narrow.

Source: Angelopoulos, Duchi & Zrnic 2023, PPI++, arXiv:2311.01453.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from toxtrail.stats.rates import Floats, Interval

MIN_LABELS = 10
"""Minimum number of labelled prompts for an estimate; our choice."""
UNSEEN_RATE, UNSEEN_DIFFERENCE = 1.0, 0.5
"""Squared errors of the scorer, summed over the labelled prompts, that the labels may not have
shown."""


class Stratum(NamedTuple):
    """Subset with at least one labelled prompt."""

    weight: float
    """Weight of the subset; weights of all strata sum to 1."""
    others: Floats
    """(prompt,): the scorer's value of each unlabelled prompt."""
    scored: Floats
    """(label,): the scorer's value of each labelled prompt, over all of its continuations."""
    called: Floats
    """(label,): the scorer's value of the labelled continuation."""
    labelled: Floats
    """(label,): the human label of that continuation."""


class LabelCorrected(NamedTuple):
    """Estimate of a rate or a difference of rates under human labels."""

    value: float
    interval: Interval
    labels: int
    """Number of labelled prompts."""
    power: float
    """Weight of the scorer's values, 0 to 1; 0: labels only."""
    effective: float
    """Number of labelled prompts that would alone give the same precision."""


def labelled_rate(strata: Sequence[Stratum], level: float) -> LabelCorrected | None:
    """Estimate a rate; values are 0 or 1. None for too few labels, or a subset without labels."""
    estimate = _estimate(strata)
    if estimate is None:
        return None
    value = min(max(estimate.value, 0.0), 1.0)
    size = _effective(value * (1 - value), estimate, UNSEEN_RATE)
    return LabelCorrected(value, _wilson(value, size, level), estimate.labels, estimate.power, size)


def labelled_difference(strata: Sequence[Stratum], level: float) -> LabelCorrected | None:
    """Estimate a paired difference b - a; values are -1, 0 or 1. None as for a rate."""
    estimate = _estimate(strata)
    if estimate is None:
        return None
    value = min(max(estimate.value, -1.0), 1.0)
    discordant = sum(s.weight * float(np.abs(s.labelled).mean()) for s in strata)
    discordant = min(max(discordant, abs(value)), 1.0)
    size = _effective(discordant - value**2, estimate, UNSEEN_DIFFERENCE)
    interval = _bonett_price(value, discordant, size, level)
    return LabelCorrected(value, interval, estimate.labels, estimate.power, size)


class _Estimate(NamedTuple):
    value: float
    variance: float
    power: float
    labels: int
    floor: float
    """Number of labelled prompts; fewer if they are not proportional to the weights (Kish)."""


def _estimate(strata: Sequence[Stratum]) -> _Estimate | None:
    labels = sum(s.labelled.size for s in strata)
    freedom = labels - len(strata) - 1
    if labels < MIN_LABELS or freedom < 1 or any(s.labelled.size == 0 for s in strata):
        return None
    scale = labels / freedom
    parts = [_moments(s, scale) for s in strata]
    power = _power(parts)
    return _Estimate(
        value=sum(p.labelled + power * p.scored for p in parts),
        variance=max(
            sum(p.labelled_variance - 2 * power * p.shared + power**2 * p.both for p in parts), 0.0
        ),
        power=power,
        labels=labels,
        floor=1 / sum(s.weight**2 / s.labelled.size for s in strata),
    )


class _Moments(NamedTuple):
    """Contribution of a stratum; the variance at a power is own - 2 power shared + power^2 both."""

    labelled: float
    scored: float
    labelled_variance: float
    shared: float
    both: float


def _moments(stratum: Stratum, scale: float) -> _Moments:
    m, rest = stratum.labelled.size, stratum.others.size
    share = rest / (m + rest)
    # the labelled prompts are among all: the scorer's values of them enter twice
    surplus = stratum.called - (1 - share) * stratum.scored
    y, u = stratum.labelled - stratum.labelled.mean(), surplus - surplus.mean()
    factor = stratum.weight**2 * scale / m**2
    others = share * float(stratum.others.mean()) if rest else 0.0
    scored = np.concatenate([stratum.others, stratum.scored])
    spread = share**2 * float(scored.var()) / rest if rest else 0.0
    return _Moments(
        labelled=stratum.weight * float(stratum.labelled.mean()),
        scored=stratum.weight * (others - float(surplus.mean())),
        labelled_variance=factor * float(y @ y),
        shared=factor * float(y @ u),
        both=factor * float(u @ u) + stratum.weight**2 * spread,
    )


def _power(parts: Sequence[_Moments]) -> float:
    both = sum(p.both for p in parts)
    return min(max(sum(p.shared for p in parts) / both, 0.0), 1.0) if both > 0 else 0.0


def _effective(unit: float, estimate: _Estimate, unseen: float) -> float:
    """Return the number of labels that would alone have this variance.

    Args:
        unit: variance of one label.
    """
    return max(unit / (estimate.variance + unseen / estimate.labels**2), estimate.floor)


def _wilson(rate: float, n: float, level: float) -> Interval:
    z = float(ndtri((1 + level) / 2))
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    return Interval(max(centre - half, 0.0), min(centre + half, 1.0))


def _bonett_price(difference: float, discordant: float, n: float, level: float) -> Interval:
    z = float(ndtri((1 + level) / 2))
    up, down = ((n * (discordant + s * difference) / 2 + 1) / (n + 2) for s in (1, -1))
    half = z * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return Interval(max(up - down - half, -1.0), min(up - down + half, 1.0))
