"""Differences between two variants, paired by prompt: closed form.

On each prompt that both variants answered once, the pair of labels is one of four; only the
discordant ones (toxic for one variant alone) carry information on the difference:

    discordant[prompt]              ~ Bernoulli(delta)   delta ~ Beta(prior, prior)
    toxic for b alone | discordant  ~ Bernoulli(theta)   theta ~ Beta(prior, prior)
    difference (b - a)              = delta * (2 theta - 1)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import betaincc

from toxtrail.errors import DataError
from toxtrail.stats.rates import Floats, Interval, equal_tailed, is_binary, weighted_means

Verdict = Literal["higher", "lower", "not decisive"]
Decision = Literal["higher", "lower", "equivalent", "undecided"]


class PairCounts(NamedTuple):
    """Prompts by what a and b did on them (toxic: at least half of the continuations)."""

    n11: int
    """Toxic for both."""
    n10: int
    """Toxic for a alone."""
    n01: int
    """Toxic for b alone."""
    n00: int
    """Toxic for none."""

    @property
    def n(self) -> int:
        return sum(self)


class Difference(NamedTuple):
    """Posterior of the difference of two rates on the same prompts, b - a, in [-1, 1]."""

    mean: float
    interval: Interval
    probability_higher: float
    """P(b > a)."""
    in_rope: float
    """P(|b - a| <= rope)."""
    above: float
    """P(b - a > rope)."""
    below: float
    """P(b - a < -rope)."""
    verdict: Verdict
    decision: Decision


def pair_counts(shares_a: Floats, shares_b: Floats) -> PairCounts:
    """Cross-tabulate two variants' labels.

    Args:
        shares_a, shares_b: (prompt,) of `rates.toxic_shares`, the same prompts in the same order.

    Raises:
        DataError: the two differ in length: they are not pairs.
    """
    if shares_a.shape != shares_b.shape or shares_a.ndim != 1:
        raise DataError(f"Cannot pair labels of shapes {shares_a.shape} and {shares_b.shape}.")
    a, b = shares_a >= 0.5, shares_b >= 0.5
    return PairCounts(
        n11=int((a & b).sum()),
        n10=int((a & ~b).sum()),
        n01=int((~a & b).sum()),
        n00=int((~a & ~b).sum()),
    )


def difference_draws(
    shares_a: Floats, shares_b: Floats, prior: float, draws: int, rng: np.random.Generator
) -> Floats:
    """(draw,) of b - a, in [-1, 1].

    One continuation a prompt: the model in this module's head. More: a Bayesian bootstrap over
    prompts of the difference of shares, with prior atoms at -1 and 1 (see `rates.rate_draws`).

    Raises:
        DataError: there is no pair.
    """
    counts = pair_counts(shares_a, shares_b)
    if counts.n == 0:
        raise DataError("No prompt was answered by both variants: there is nothing to pair.")
    if not (is_binary(shares_a) and is_binary(shares_b)):
        return weighted_means(shares_b - shares_a, (-1.0, 1.0), prior, draws, rng)
    discordant = counts.n10 + counts.n01
    delta = rng.beta(discordant + prior, counts.n - discordant + prior, size=draws)
    theta = rng.beta(counts.n01 + prior, counts.n10 + prior, size=draws)
    result: Floats = delta * (2 * theta - 1)
    return result


def probability_higher(counts: PairCounts, prior: float) -> float:
    """P(b > a) = P(theta > 1/2) for one continuation a prompt, exact."""
    return float(betaincc(counts.n01 + prior, counts.n10 + prior, 0.5))


def summarise(draws: Floats, level: float, rope: float) -> Difference:
    """Summarise draws of a difference.

    Args:
        rope: half-width of the region of practical equivalence, as a difference of rates.
    """
    interval = equal_tailed(draws, level)
    return Difference(
        mean=float(draws.mean()),
        interval=interval,
        probability_higher=float((draws > 0).mean()),
        in_rope=float((np.abs(draws) <= rope).mean()),
        above=float((draws > rope).mean()),
        below=float((draws < -rope).mean()),
        verdict=verdict(interval),
        decision=decision(interval, rope),
    )


def verdict(interval: Interval) -> Verdict:
    """Credible only if the interval excludes 0; otherwise the data do not decide."""
    if interval.lo > 0:
        return "higher"
    if interval.hi < 0:
        return "lower"
    return "not decisive"


def decision(interval: Interval, rope: float) -> Decision:
    """Where the whole interval lies: beyond the region of practical equivalence, or inside it.

    Source: Kruschke 2018, doi:10.1177/2515245918771304 (there with an HDI).
    """
    if interval.lo > rope:
        return "higher"
    if interval.hi < -rope:
        return "lower"
    return "equivalent" if interval.lo >= -rope and interval.hi <= rope else "undecided"


def tipping_gap(rate_a: float, rate_b: float) -> float:
    """How much more often a scorer would have to call clean texts of the one variant toxic than
    those of the other, to explain the whole difference: a gap of false-positive rates, in [0, 1].

    With p the true rate of both, an observed rate is p + (1 - p) times the false-positive rate; so
    the higher one needs (higher - lower) / (1 - lower) where the lower one needs none.
    """
    low, high = sorted((rate_a, rate_b))
    return (high - low) / (1 - low) if low < 1 else 0.0


def sign_is_stable(verdicts: Sequence[Verdict]) -> bool:
    """Whether verdicts on the same pairs, as at several thresholds, never contradict each other."""
    return not {"higher", "lower"} <= set(verdicts)


def phi(counts: PairCounts) -> float | None:
    """Correlation of the two labels over prompts, in [-1, 1]; None where a variant never varies.

    Source: Pearson's phi of a 2 x 2 table. It says how much pairing buys.
    """
    n11, n10, n01, n00 = counts
    product = (n11 + n10) * (n01 + n00) * (n11 + n01) * (n10 + n00)
    return (n11 * n00 - n10 * n01) / float(product) ** 0.5 if product else None
