"""Judge error: what the rates would be if the scorer made no mistakes.

A scorer finds a toxic text with its sensitivity and passes a harmless one with its specificity. A
rate q of texts that it calls toxic comes from a true rate p by

    q = p sensitivity + (1 - p) (1 - specificity)
    p = (q + specificity - 1) / (sensitivity + specificity - 1)

q has the posterior of `rates` (of a pair: of `contrasts`, jointly); sensitivity and specificity
have Beta(right + prior, wrong + prior) from a labelled sample. Draws in which p is outside 0 to
1, or the scorer does worse than chance, are impossible and are left out: that is conditioning on
what is possible, and it lets rates and scorer correct each other.

A scorer whose errors are the same for two variants shrinks their difference by a factor, nothing
else. One that errs more on one of them makes a difference of its own, so each variant may have a
sensitivity and a specificity of its own; variants that share a labelled sample share the draws.
Whether labels of several variants contradict one sensitivity and specificity for all is what
`unequal` says. This is for stated errors; labels of these very texts say more by `ppi`.

Source: Rogan & Gladen 1978, doi:10.1093/oxfordjournals.aje.a112510.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.stats import hypergeom

from toxtrail.errors import DataError
from toxtrail.stats.rates import Floats, Interval, equal_tailed_interval

MIN_VALID_DRAWS = 400
"""Draws that must be possible: fewer, and the bounds of an interval are noise."""


CONTRADICTION = 0.2
"""Probability of calling equal errors unequal, all comparisons together. Lenient on purpose: to
pool what is unlike makes differences that do not exist, to keep apart what is alike costs width."""


class Proportion(NamedTuple):
    """A share as a labelled sample gives it: so many right, of so many. `of` is None for a share
    that is taken as exact."""

    right: float
    of: int | None


class ScorerAccuracy(NamedTuple):
    """Of a scorer on one variant's texts."""

    sensitivity: Floats
    """(draw,), P(called toxic | toxic)."""
    specificity: Floats
    """(draw,), P(called harmless | harmless)."""


class Corrected(NamedTuple):
    """Posterior of a true rate, or of a difference of two."""

    mean: float
    interval: Interval
    possible: float
    """Share of the draws that were possible: a small one says that the scorer and its labelled
    sample do not fit these texts."""


def accuracy_draws(
    sensitivity: Proportion,
    specificity: Proportion,
    prior: float,
    draws: int,
    rng: np.random.Generator,
) -> ScorerAccuracy:
    """Posterior of a scorer's accuracy."""
    return ScorerAccuracy(
        _share_draws(sensitivity, prior, draws, rng), _share_draws(specificity, prior, draws, rng)
    )


def unequal(errors: Mapping[str, tuple[int, int]]) -> dict[str, float]:
    """Variants whose error rate is not that of all others together, with the p-value.

    Args:
        errors: variant -> errors, texts that they could have been made on.

    Source: Fisher's exact test with the mid-p correction, at `CONTRADICTION` over both kinds of
    error and all variants (Bonferroni).
    """
    wrong, texts = (sum(column) for column in zip(*errors.values(), strict=True))
    tests = 2 * (len(errors) if len(errors) > 2 else 1)
    p_values = {v: _mid_p(wrong_here, of, wrong, texts) for v, (wrong_here, of) in errors.items()}
    return {v: p for v, p in p_values.items() if p < CONTRADICTION / tests}


def _mid_p(wrong: int, texts: int, all_wrong: int, all_texts: int) -> float:
    """Two-sided; 1 where there is nothing to compare."""
    if not 0 < texts < all_texts:
        return 1.0
    chances = hypergeom.pmf(np.arange(texts + 1), all_texts, all_wrong, texts)
    observed = chances[wrong]
    equal = np.isclose(chances, observed, rtol=1e-9, atol=0)
    return float(chances[(chances < observed) & ~equal].sum() + chances[equal].sum() / 2)


def corrected_true_rate(called: Floats, accuracy: ScorerAccuracy) -> Floats:
    """(draw,): the true rate, NaN where it is impossible.

    Args:
        called: (draw,) of the rate of texts that the scorer calls toxic.
    """
    skill = accuracy.sensitivity + accuracy.specificity - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = (called + accuracy.specificity - 1) / skill
    result: Floats = np.where((skill > 0) & (rate >= 0) & (rate <= 1), rate, np.nan)
    return result


def summarise_corrected(draws: Floats, level: float) -> Corrected:
    """Summarise draws of `true_rate`, or differences of them; impossible draws are left out.

    Raises:
        DataError: hardly any draw is possible.
    """
    valid = draws[np.isfinite(draws)]
    if valid.size < MIN_VALID_DRAWS:
        raise DataError(
            f"{valid.size} of {draws.size} posterior draws are possible with the stated "
            "sensitivity and specificity: the scorer marks fewer texts as toxic than its false "
            "positives alone would be, or more than it could detect. Check that the labelled "
            "sample is of such texts."
        )
    interval = equal_tailed_interval(valid, level)
    return Corrected(float(valid.mean()), interval, valid.size / draws.size)


def _share_draws(
    proportion: Proportion, prior: float, draws: int, rng: np.random.Generator
) -> Floats:
    if proportion.of is None:
        return np.full(draws, proportion.right)
    return rng.beta(proportion.right + prior, proportion.of - proportion.right + prior, size=draws)
