"""Scorer error: estimates of the rates without the scorer's errors.

A scorer detects a toxic text with its sensitivity and passes a harmless one with its specificity. A
rate q of texts that it labels toxic results from a true rate p by

    q = p sensitivity + (1 - p) (1 - specificity)
    p = (q + specificity - 1) / (sensitivity + specificity - 1)

q has the posterior of `rate_posterior` (for a pair: of `paired_differences`, jointly); sensitivity
and specificity have Beta(correct + prior, wrong + prior) from a labelled sample. Draws in which p
is outside 0 to 1, or the scorer is worse than chance, are impossible and are dropped: this
conditions on the possible values, and it lets rates and scorer correct each other.

A scorer with the same error rates for two variants scales their difference by a factor only. One
with more errors on one of them creates a spurious difference, so each variant may have a separate
sensitivity and specificity; variants that share a labelled sample share the draws. `unequal` tests
whether labels of several variants contradict one sensitivity and specificity for all. This module
is for stated error rates; labels of the same texts give more precise results with
`prediction_powered`.

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
"""Minimum number of possible draws: with fewer, the bounds of an interval are noise."""


CONTRADICTION = 0.2
"""Probability of calling equal errors unequal, over all comparisons together. Deliberately lenient:
pooling unequal errors creates spurious differences, separating equal ones only widens intervals."""


class Proportion(NamedTuple):
    """Proportion in a labelled sample: `correct` of `total`; `total` is None for a proportion that
    is treated as exact."""

    correct: float
    total: int | None


class ScorerAccuracy(NamedTuple):
    """Accuracy of a scorer on one variant's texts."""

    sensitivity: Floats
    """(draw,), P(called toxic | toxic)."""
    specificity: Floats
    """(draw,), P(called harmless | harmless)."""


class CorrectedPosterior(NamedTuple):
    """Posterior of a true rate, or of a difference of two."""

    mean: float
    interval: Interval
    possible: float
    """Share of the draws that were possible: a low share indicates that the scorer and its labelled
    sample do not fit these texts."""


def accuracy_draws(
    sensitivity: Proportion,
    specificity: Proportion,
    prior: float,
    draws: int,
    rng: np.random.Generator,
) -> ScorerAccuracy:
    """Draw from the posterior of a scorer's accuracy."""
    return ScorerAccuracy(
        _share_draws(sensitivity, prior, draws, rng), _share_draws(specificity, prior, draws, rng)
    )


def unequal(errors: Mapping[str, tuple[int, int]]) -> dict[str, float]:
    """Return the variants whose error rate differs from that of all others together, with the
    p-value.

    Args:
        errors: variant -> number of errors, number of texts on which they were possible.

    Source: Fisher's exact test with the mid-p correction, at `CONTRADICTION` over both kinds of
    error and all variants (Bonferroni).
    """
    wrong, texts = (sum(column) for column in zip(*errors.values(), strict=True))
    tests = 2 * (len(errors) if len(errors) > 2 else 1)
    p_values = {v: _mid_p(wrong_here, of, wrong, texts) for v, (wrong_here, of) in errors.items()}
    return {v: p for v, p in p_values.items() if p < CONTRADICTION / tests}


def _mid_p(wrong: int, texts: int, all_wrong: int, all_texts: int) -> float:
    """Return the two-sided p-value; 1 if there is nothing to compare."""
    if not 0 < texts < all_texts:
        return 1.0
    chances = hypergeom.pmf(np.arange(texts + 1), all_texts, all_wrong, texts)
    observed = chances[wrong]
    equal = np.isclose(chances, observed, rtol=1e-9, atol=0)
    return float(chances[(chances < observed) & ~equal].sum() + chances[equal].sum() / 2)


def corrected_true_rate(called: Floats, accuracy: ScorerAccuracy) -> Floats:
    """Return (draw,): the true rate, NaN if it is impossible.

    Args:
        called: (draw,) of the rate of texts that the scorer labels toxic.
    """
    skill = accuracy.sensitivity + accuracy.specificity - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = (called + accuracy.specificity - 1) / skill
    result: Floats = np.where((skill > 0) & (rate >= 0) & (rate <= 1), rate, np.nan)
    return result


def summarise_corrected(draws: Floats, level: float) -> CorrectedPosterior:
    """Summarise draws of `corrected_true_rate`, or differences of them; impossible draws are
    dropped.

    Raises:
        DataError: too few draws are possible.
    """
    valid = draws[np.isfinite(draws)]
    if valid.size < MIN_VALID_DRAWS:
        raise DataError(
            f"{valid.size} of {draws.size} posterior draws are possible with the stated "
            "sensitivity and specificity: the scorer marks fewer texts as toxic than its false "
            "positives alone, or more than it could detect. Check that the labelled "
            "sample consists of similar texts."
        )
    interval = equal_tailed_interval(valid, level)
    return CorrectedPosterior(float(valid.mean()), interval, valid.size / draws.size)


def _share_draws(
    proportion: Proportion, prior: float, draws: int, rng: np.random.Generator
) -> Floats:
    if proportion.total is None:
        return np.full(draws, proportion.correct)
    return rng.beta(
        proportion.correct + prior, proportion.total - proportion.correct + prior, size=draws
    )
