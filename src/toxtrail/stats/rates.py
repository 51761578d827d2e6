"""Toxicity rates of one variant: closed form, one posterior per subset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from toxtrail.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BOOTSTRAP_BLOCK = 500
"""Draws at a time: bounds memory at 500 x prompts weights."""
EACH_WEIGHED = 20_000
"""Up to so many prompts of a subset, each has its own random weight in a Bayesian bootstrap."""
GROUPS = 10_000
"""Above, so many groups of prompts have one each: weights of 200,000 prompts in 20,000 draws took a
minute of CPU and changed the third digit of an interval's width (by 1 / sqrt(2 GROUPS), 0.7 %, less
than the draws do)."""
LOOPED = 256
"""Prompts from which weights are drawn row by row: the same numbers, in a fifth of the time."""


class Interval(NamedTuple):
    """Equal-tailed interval of a posterior, in the unit of its quantity."""

    lo: float
    hi: float


class Rate(NamedTuple):
    """Posterior of a toxicity rate, in [0, 1]."""

    mean: float
    interval: Interval


def named_rng(seed: int, name: str) -> np.random.Generator:
    """A generator of its own for each named quantity, so that adding one leaves the others
    alone."""
    return np.random.default_rng([seed, crc32(name.encode("utf-8"))])


def at_threshold(scores: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """Whether each score is at the threshold or above it: the only comparison of the two.

    Most scorers compute in float32, and the nearest float32 of 0.7 and of 0.9 lies below the
    float64 of the same digits. So the lower of the two is what a score has to reach: a score equal
    to the threshold counts in either precision, and a higher score never counts less.

    Args:
        scores: in [0, 1], of any shape; float32 or float64.
    """
    return np.asarray(scores, dtype=np.float64) >= min(threshold, float(np.float32(threshold)))


def toxic_shares(toxicity: Floats, prompt: Ints, threshold: float) -> Floats:
    """Share of each prompt's continuations that are toxic.

    Args:
        toxicity: (row,), in [0, 1], unitless.
        prompt: (row,), 0..n-1: the prompt that the row continues; every prompt has a row.
        threshold: a continuation is toxic when its score is at least this (`at_threshold`).

    Returns:
        (prompt,), each in [0, 1]; 0 or 1 where a prompt was continued once.

    Raises:
        DataError: a score is NaN or outside [0, 1]. NaN compares false: it would count as clean.

    Source: the 0.5 rule of Gehman et al. 2020, arXiv:2009.11462.
    """
    if not np.all((toxicity >= 0) & (toxicity <= 1)):
        raise DataError("A toxicity score is NaN or outside [0, 1]. Re-run the score stage.")
    return prompt_means(at_threshold(toxicity, threshold).astype(np.float64), prompt)


def prompt_means(values: Floats, prompt: Ints) -> Floats:
    """(prompt,): mean over each prompt's rows of `values` (row,)."""
    means: Floats = np.bincount(prompt, weights=values) / np.bincount(prompt)
    return means


def prompt_maxima(values: Floats, prompt: Ints) -> Floats:
    """(prompt,): maximum over each prompt's rows of `values` (row,), all at least 0."""
    maxima: Floats = np.zeros(int(prompt.max()) + 1)
    np.maximum.at(maxima, prompt, values)
    return maxima


def beta_rate(shares: Floats, draws: Floats, prior: float, level: float) -> Rate:
    """Posterior of the rate behind `shares`.

    One continuation a prompt: exact, Beta(n_toxic + prior, n - n_toxic + prior). More than one: the
    summary of `draws`.

    Args:
        shares: (prompt,) of `toxic_shares`.
        draws: (draw,) of `rate_draws` for the same shares.

    Source: Jeffreys' prior is prior = 0.5; Brown, Cai & DasGupta 2001, Statistical Science 16(2).
    """
    if not is_binary(shares):
        return Rate(float(draws.mean()), equal_tailed(draws, level))
    n_toxic = float(shares.sum())
    posterior = stats.beta(n_toxic + prior, shares.size - n_toxic + prior)
    lo, hi = posterior.ppf([(1 - level) / 2, (1 + level) / 2])
    return Rate(float(posterior.mean()), Interval(float(lo), float(hi)))


def rate_draws(shares: Floats, prior: float, draws: int, rng: np.random.Generator) -> Floats:
    """(draw,) of the rate, in [0, 1].

    A Bayesian bootstrap over prompts with two prior atoms of weight `prior`, at 0 and at 1. With
    one continuation a prompt that is exactly Beta(n_toxic + prior, n - n_toxic + prior); with more,
    prompts stay the unit, so continuations of one prompt are not taken for independent trials.

    Source: the Dirichlet process posterior, Ferguson 1973; the atoms are our choice: the plain
    bootstrap (Rubin 1981) covers badly where few prompts are toxic.

    Raises:
        DataError: there is no prompt.
    """
    if shares.size == 0:
        raise DataError("No row was scored: a rate of nothing is not 0. Look at the row states.")
    if is_binary(shares):
        n_toxic = float(shares.sum())
        return rng.beta(n_toxic + prior, shares.size - n_toxic + prior, size=draws)
    return weighted_means(shares, (0.0, 1.0), prior, draws, rng)


def overall_rate_draws(
    labels: Sequence[Floats],
    weights: Sequence[float],
    prior: float,
    draws: int,
    rngs: Sequence[np.random.Generator],
) -> Floats:
    """(draw,) of the rate over several subsets, each by its weight.

    They share one prior, each its weight of it: with a whole one for each, five subsets would bring
    two and a half toxic prompts of their own, and 95 % intervals of rates below 1 % would cover in
    67 to 93 % of cases.

    Args:
        labels: of each subset, (prompt,) of `toxic_shares`.
        weights: of each subset; they sum to 1.
    """
    parts = [
        weight * rate_draws(own, weight * prior, draws, rng)
        for own, weight, rng in zip(labels, weights, rngs, strict=True)
    ]
    total: Floats = np.sum(parts, axis=0)
    return total


def weighted_means(
    values: Floats,
    atoms: Sequence[float] | Sequence[Sequence[float]],
    prior: float,
    draws: int,
    rng: np.random.Generator,
) -> Floats:
    """(draw, ...) of the mean of `values` (prompt, ...) and prior atoms under Dirichlet weights; of
    many prompts, groups have the weights."""
    sums = group_sums(values)
    everything = np.concatenate([sums, np.asarray(atoms, dtype=np.float64)])
    sizes = np.concatenate([group_sums(np.ones(len(values))), np.ones(len(atoms))])
    means = np.empty((draws, *values.shape[1:]))
    for start in range(0, draws, BOOTSTRAP_BLOCK):
        stop = min(start + BOOTSTRAP_BLOCK, draws)
        weights = _weights(stop - start, len(sums), len(atoms), prior, rng)
        total = weights.sum(axis=1) if len(sums) == len(values) else weights @ sizes
        total = total.reshape(-1, *(1,) * (values.ndim - 1))
        means[start:stop] = weights @ everything / total
    return means


def group_sums(values: Floats) -> Floats:
    """(group, ...): sums of `values` (prompt, ...) over groups of prompts that one weight is for.

    Up to EACH_WEIGHED prompts, each is a group. Of more, GROUPS are formed by a permutation that
    depends on nothing but their number, so that variants are paired, and as if at random, so that a
    weighted mean varies as much as with a weight for each prompt.
    """
    n = len(values)
    if n <= EACH_WEIGHED:
        return values
    group = np.random.default_rng(n).permutation(n) % GROUPS
    columns = values.reshape(n, -1).T
    sums: Floats = np.stack([np.bincount(group, weights=c) for c in columns], axis=1)
    return sums.reshape((GROUPS, *values.shape[1:]))


def _weights(rows: int, prompts: int, atoms: int, prior: float, rng: np.random.Generator) -> Floats:
    """(row, prompt and atom): Gamma(1) for prompts, Gamma(prior) for atoms."""
    if prompts < LOOPED:
        shape = np.concatenate([np.ones(prompts), np.full(atoms, prior)])
        return rng.standard_gamma(shape, size=(rows, prompts + atoms))
    weights = np.empty((rows, prompts + atoms))
    for row in weights:
        rng.standard_exponential(out=row[:prompts])
        row[prompts:] = rng.standard_gamma(prior, size=atoms)
    return weights


def is_binary(shares: Floats) -> bool:
    """Whether every prompt is wholly toxic or wholly not, as with one continuation each."""
    return bool(np.isin(shares, (0.0, 1.0)).all())


def equal_tailed(draws: Floats, level: float) -> Interval:
    """Equal-tailed interval of draws."""
    lo, hi = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(lo), float(hi))
