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
from toxtrail.stats.rates import (
    Floats,
    Interval,
    equal_tailed,
    is_binary,
    rate_draws,
    weighted_means,
)

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


class PairDraws(NamedTuple):
    """Posterior draws of two rates on the same prompts."""

    a: Floats
    """(draw,), in [0, 1]."""
    b: Floats
    """(draw,), in [0, 1]."""
    discordant: tuple[Floats, Floats] | None
    """(draw,) each: rates of prompts toxic for a alone and for b alone; None for the bootstrap."""
    log_prior: Floats
    """(draw,), up to a constant; NaN for the bootstrap, which has no density."""
    log_likelihood: Floats
    """(draw,), up to a constant; NaN for the bootstrap."""

    @property
    def difference(self) -> Floats:
        """(draw,) of b - a, in [-1, 1]."""
        return self.b - self.a


def pair_draws(
    shares_a: Floats, shares_b: Floats, prior: float, draws: int, rng: np.random.Generator
) -> PairDraws:
    """Two rates, jointly.

    One continuation a prompt: the model in this module's head, and with it

        toxic for both | concordant ~ Bernoulli(kappa)   kappa ~ Beta(prior, prior)

    which the difference does not depend on. More: a Bayesian bootstrap over prompts, with a prior
    atom where a alone is toxic and one where b alone is (see `rates.rate_draws`).

    Raises:
        DataError: there is no pair.
    """
    counts = pair_counts(shares_a, shares_b)
    if counts.n == 0:
        raise DataError("No prompt was answered by both variants: there is nothing to pair.")
    if not (is_binary(shares_a) and is_binary(shares_b)):
        both = np.column_stack([shares_a, shares_b])
        means = weighted_means(both, ((1.0, 0.0), (0.0, 1.0)), prior, draws, rng)
        unknown = np.full(draws, np.nan)
        return PairDraws(means[:, 0], means[:, 1], None, unknown, unknown)
    discordant = counts.n10 + counts.n01
    delta = rng.beta(discordant + prior, counts.n - discordant + prior, size=draws)
    theta = rng.beta(counts.n01 + prior, counts.n10 + prior, size=draws)
    kappa = rng.beta(counts.n11 + prior, counts.n00 + prior, size=draws)
    together = (1 - delta) * kappa
    only_a, only_b = delta * (1 - theta), delta * theta
    tiny = np.finfo(float).tiny
    logs = [np.log(np.maximum(p, tiny)) for p in (delta, 1 - delta, theta, 1 - theta)]
    powers = (discordant, counts.n - discordant, counts.n01, counts.n10)
    return PairDraws(
        a=together + only_a,
        b=together + only_b,
        discordant=(only_a, only_b),
        log_prior=(prior - 1) * np.sum(logs, axis=0),
        log_likelihood=np.sum([n * log for n, log in zip(powers, logs, strict=True)], axis=0),
    )


def weighted_sum(parts: Sequence[PairDraws], shares: Sequence[float]) -> PairDraws:
    """All subsets together, each by its share of the prompts."""
    weighted = list(zip(shares, parts, strict=True))
    return PairDraws(
        a=np.sum([share * part.a for share, part in weighted], axis=0),
        b=np.sum([share * part.b for share, part in weighted], axis=0),
        discordant=None,
        log_prior=np.sum([part.log_prior for part in parts], axis=0),
        log_likelihood=np.sum([part.log_likelihood for part in parts], axis=0),
    )


def unpaired_draws(
    shares_a: Floats, shares_b: Floats, prior: float, draws: int, rng: np.random.Generator
) -> Floats:
    """(draw,) of b - a as if the two had been asked different prompts: what most tables print."""
    a, b = (rate_draws(shares, prior, draws, rng) for shares in (shares_a, shares_b))
    return b - a


def odds_ratio(draws: PairDraws, level: float) -> tuple[float, Interval]:
    """Odds of b over odds of a: posterior median and equal-tailed interval; 1: no difference."""
    tiny = 1e-12
    a, b = (np.clip(x, tiny, 1 - tiny) for x in (draws.a, draws.b))
    ratio = (b / (1 - b)) / (a / (1 - a))
    return float(np.median(ratio)), equal_tailed(ratio, level)


def difference_draws(
    shares_a: Floats, shares_b: Floats, prior: float, draws: int, rng: np.random.Generator
) -> Floats:
    """(draw,) of b - a of `pair_draws`, in [-1, 1].

    Raises:
        DataError: there is no pair.
    """
    return pair_draws(shares_a, shares_b, prior, draws, rng).difference


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
