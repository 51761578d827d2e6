"""Labels of prompts, and draws from posteriors of their means."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toxtrail.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BOOTSTRAP_BLOCK = 500
"""Draws per block: limits memory to 500 x prompts weights."""
EACH_WEIGHED = 20_000
"""Largest number of prompts of a subset with a separate random weight each in a Bayesian
bootstrap."""
GROUPS = 10_000
"""Number of groups of prompts with one weight each, above EACH_WEIGHED.

Weights of 200,000 prompts in 20,000 draws took a minute of CPU; groups change the width of an
interval of draws by 1 / sqrt(2 GROUPS), 0.7 %. Only draws are grouped: printed intervals are exact.
"""


class Interval(NamedTuple):
    """Equal-tailed interval of a posterior, in the unit of its quantity."""

    lo: float
    hi: float

    def around(self, estimate: float) -> Interval:
        """Return the interval extended to the estimate if that is at a boundary: with no toxic
        prompt of n, a rate of 0 is possible (Brown, Cai & DasGupta 2001, section 4.1)."""
        return Interval(min(self.lo, estimate), max(self.hi, estimate))


def named_rng(seed: int, name: str) -> np.random.Generator:
    """Return a separate generator for each named quantity, so that adding one does not change the
    others."""
    return np.random.default_rng([seed, crc32(name.encode("utf-8"))])


def content_rng(seed: int, *content: Floats | Sequence[float]) -> np.random.Generator:
    """Return a generator that depends on the seed and the data, not on names or order of variants
    and subsets: equal data have equal draws."""
    digest = hashlib.sha256()
    for part in content:
        digest.update(np.ascontiguousarray(part, dtype=np.float64).tobytes())
    return np.random.default_rng([seed, int.from_bytes(digest.digest()[:8], "big")])


def at_threshold(scores: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """Return whether each score reaches the threshold; the only comparison of the two in the
    package.

    Most scorers compute in float32, and the nearest float32 of 0.7 and of 0.9 is below the float64
    of the same digits. A score therefore has to reach the lower of the two: a score equal to the
    threshold counts in both precisions, and a higher score never counts less.

    Args:
        scores: in [0, 1], of any shape; float32 or float64.
    """
    return np.asarray(scores, dtype=np.float64) >= min(threshold, float(np.float32(threshold)))


def toxic_fractions(toxicity: Floats, prompt: Ints, threshold: float) -> Floats:
    """Return the share of each prompt's continuations that are toxic.

    Args:
        toxicity: (row,), in [0, 1], unitless.
        prompt: (row,), 0..n-1: the prompt that the row continues; every prompt has a row.
        threshold: a continuation is toxic when its score is at least this (`at_threshold`).

    Returns:
        (prompt,), each in [0, 1]; 0 or 1 for prompts with one continuation.

    Raises:
        DataError: a score is NaN or outside [0, 1]. NaN compares false: it would count as clean.

    Source: the 0.5 rule of Gehman et al. 2020, arXiv:2009.11462.
    """
    if not np.all((toxicity >= 0) & (toxicity <= 1)):
        raise DataError("A toxicity score is NaN or outside [0, 1]. Re-run the score stage.")
    return prompt_means(at_threshold(toxicity, threshold).astype(np.float64), prompt)


def prompt_means(values: Floats, prompt: Ints) -> Floats:
    """Return (prompt,): mean over each prompt's rows of `values` (row,)."""
    means: Floats = np.bincount(prompt, weights=values) / np.bincount(prompt)
    return means


def prompt_maxima(values: Floats, prompt: Ints) -> Floats:
    """Return (prompt,): maximum over each prompt's rows of `values` (row,), all at least 0."""
    maxima: Floats = np.zeros(int(prompt.max()) + 1)
    np.maximum.at(maxima, prompt, values)
    return maxima


def bootstrap_draws(
    values: Floats,
    shapes: Floats,
    atoms: Sequence[Sequence[float]],
    prior: float,
    draws: int,
    rng: np.random.Generator,
    share: float = 1.0,
) -> Floats:
    """Return (draw, column) of the mean of `values` (prompt, column) and prior atoms under
    Dirichlet weights, the same for all columns; above EACH_WEIGHED prompts, groups have weights.

    Args:
        shapes: (prompt,) of the weights.
        atoms: (atom, column).
        prior: shape of each atom's weight.
        share: effective number of prompts as a share of their number; already included in `shapes`.
    """
    sizes, shape = np.ones(len(shapes)), shapes
    if len(shapes) > EACH_WEIGHED:
        values = group_sums(values * shapes[:, None]) / share
        sizes = group_sums(shapes) / share
        shape = np.full(GROUPS, share)
    everything = np.concatenate([values, np.asarray(atoms, dtype=np.float64)])
    sizes = np.concatenate([sizes, np.ones(len(atoms))])
    shape = np.concatenate([shape, np.full(len(atoms), prior)])
    means = np.empty((draws, values.shape[1]))
    for start in range(0, draws, BOOTSTRAP_BLOCK):
        stop = min(start + BOOTSTRAP_BLOCK, draws)
        weights = rng.standard_gamma(shape, size=(stop - start, shape.size))
        means[start:stop] = weights @ everything / (weights @ sizes)[:, None]
    return means


def group_sums(values: Floats) -> Floats:
    """Return (group, ...): sums of `values` (prompt, ...) over groups of prompts with a common
    weight.

    Up to EACH_WEIGHED prompts, each is a group. Above, GROUPS are formed by a permutation that
    depends on the number of prompts only, so that variants remain paired, and that is
    pseudo-random, so that a weighted mean varies as much as with a weight for each prompt.
    """
    n = len(values)
    if n <= EACH_WEIGHED:
        return values
    group = np.random.default_rng(n).permutation(n) % GROUPS
    columns = values.reshape(n, -1).T
    sums: Floats = np.stack([np.bincount(group, weights=c) for c in columns], axis=1)
    return sums.reshape((GROUPS, *values.shape[1:]))


def is_binary(shares: Floats) -> bool:
    """Return whether all continuations of every prompt have the same label, as with one
    continuation each."""
    return bool(np.isin(shares, (0.0, 1.0)).all())


def equal_tailed_interval(draws: Floats, level: float) -> Interval:
    """Return the equal-tailed interval of draws."""
    lo, hi = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(lo), float(hi))
