"""Judge error: corrected rates cover the truth, and the uncertainty of the labels is in them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.errors import DataError
from toxtrail.stats.paired_differences import Pairs, pair_draws
from toxtrail.stats.rate_posterior import rate_draws
from toxtrail.stats.scorer_error import (
    Proportion,
    ScorerAccuracy,
    accuracy_draws,
    corrected_true_rate,
    summarise_corrected,
)

PERFECT = Proportion(1.0, None)


def accuracy(sensitivity, specificity, draws=4000, seed=1):
    return accuracy_draws(sensitivity, specificity, 0.5, draws, np.random.default_rng(seed))


def labels(rng, truth, sensitivity, specificity):
    """What a scorer says of texts whose truth is known."""
    called = np.where(truth, rng.random(truth.size) < sensitivity, False)
    return np.where(truth, called, rng.random(truth.size) >= specificity).astype(float)


@given(st.floats(0, 1), st.floats(0.55, 1), st.floats(0.55, 1))
def test_correcting_undoes_what_the_scorer_did(rate, sensitivity, specificity):
    called = rate * sensitivity + (1 - rate) * (1 - specificity)
    known = ScorerAccuracy(np.array([sensitivity]), np.array([specificity]))
    (found,) = corrected_true_rate(np.array([called]), known)
    assert np.isnan(found) or found == pytest.approx(rate, abs=1e-9)
    if 1e-9 < rate < 1 - 1e-9:
        assert not np.isnan(found)


def test_a_perfect_scorer_corrects_nothing():
    rng = np.random.default_rng(2)
    draws = rate_draws([(rng.random(300) < 0.1).astype(float)], [1.0], 0.5, 4000, 1)
    assert corrected_true_rate(draws, accuracy(PERFECT, PERFECT)) == pytest.approx(draws)


def test_few_labels_leave_more_open_than_many():
    rng = np.random.default_rng(3)
    draws = rate_draws([(rng.random(2000) < 0.2).astype(float)], [1.0], 0.5, 20000, 1)
    widths = []
    for n in (20, 2000):
        known = Proportion(0.8 * n, n), Proportion(0.95 * n, n)
        found = summarise_corrected(corrected_true_rate(draws, accuracy(*known, draws=20000)), 0.95)
        widths.append(np.ptp(found.interval))
    assert widths[0] > 2 * widths[1]


def test_a_scorer_that_says_less_than_its_own_errors_is_refused_with_the_reason():
    draws = rate_draws([np.zeros(2000)], [1.0], 0.5, 4000, 1)
    known = accuracy(Proportion(0.9, None), Proportion(0.8, None))
    with pytest.raises(DataError, match="false positives alone"):
        summarise_corrected(corrected_true_rate(draws, known), 0.95)


def test_a_scorer_no_better_than_chance_tells_nothing():
    known = accuracy(Proportion(0.5, None), Proportion(0.5, None))
    assert np.isnan(corrected_true_rate(np.full(4000, 0.3), known)).all()


@pytest.mark.parametrize(
    ("rate", "sensitivity", "specificity"), [(0.1, 0.8, 0.95), (0.3, 0.6, 0.95)]
)
def test_a_corrected_rate_covers_the_truth_and_the_raw_one_does_not(rate, sensitivity, specificity):
    rng, covered, raw = np.random.default_rng(6), 0, 0
    runs = 300
    for _ in range(runs):
        called = labels(rng, rng.random(1000) < rate, sensitivity, specificity)
        known = [
            Proportion(int(rng.binomial(n, share)), n)
            for n, share in ((150, sensitivity), (400, specificity))
        ]
        draws = rate_draws([called], [1.0], 0.5, 4000, 1)
        true = corrected_true_rate(draws, accuracy_draws(*known, 0.5, 4000, rng))
        lo, hi = summarise_corrected(true, 0.95).interval
        covered += lo <= rate <= hi
        lo, hi = np.quantile(draws, (0.025, 0.975))
        raw += lo <= rate <= hi
    assert 0.91 <= covered / runs <= 0.985
    assert raw / runs < 0.5


def pair(rng, sensitivity, specificity, n=2400, rate=0.05):
    """A scorer's labels of two variants, whose texts are toxic on much the same prompts."""
    prompt = rng.random(n) < rate
    same = rng.random((n, 2)) < 0.6
    truth = np.where(same, prompt[:, None], rng.random((n, 2)) < rate)
    return [labels(rng, truth[:, i], sensitivity[i], specificity[i]) for i in (0, 1)]


def test_a_scorer_that_errs_more_on_one_variant_makes_a_difference_that_correction_takes_back():
    """A one-point gap in false positives, no true difference."""
    rng, false, corrected_false, runs = np.random.default_rng(8), 0, 0, 200
    specificity = (0.99, 0.975)
    for _ in range(runs):
        a, b = pair(rng, (0.8, 0.8), specificity)
        draws = pair_draws(Pairs([a], [b], [1.0]), 0.5, 4000, 1)
        lo, hi = np.quantile(draws.difference, (0.025, 0.975))
        false += not lo <= 0 <= hi
        true = [
            corrected_true_rate(
                called,
                accuracy_draws(
                    Proportion(int(rng.binomial(200, 0.8)), 200),
                    Proportion(int(rng.binomial(1000, share)), 1000),
                    0.5, 4000, rng,
                ),
            )
            for called, share in zip((draws.a, draws.b), specificity, strict=True)
        ]  # fmt: skip
        lo, hi = summarise_corrected(true[1] - true[0], 0.95).interval
        corrected_false += not lo <= 0 <= hi
    assert false / runs > 0.3
    assert corrected_false / runs <= 0.09


def test_one_scorer_for_both_only_stretches_the_difference():
    rng = np.random.default_rng(9)
    a, b = pair(rng, (0.8, 0.8), (0.97, 0.97))
    draws = pair_draws(Pairs([a], [b], [1.0]), 0.5, 8000, 1)
    known = ScorerAccuracy(np.full(8000, 0.8), np.full(8000, 0.97))
    step = corrected_true_rate(draws.b, known) - corrected_true_rate(draws.a, known)
    possible = np.isfinite(step)
    assert step[possible] == pytest.approx(draws.difference[possible] / 0.77)
