"""Differences paired by prompt: laws, golden numbers, calibration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from toxtrail.errors import DataError
from toxtrail.stats.contrasts import (
    PairCounts,
    decision,
    difference_draws,
    pair_counts,
    phi,
    probability_higher,
    summarise,
    verdict,
)
from toxtrail.stats.rates import Interval, named_rng, rate_draws

LABELS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60).map(
    lambda pairs: np.array(pairs, dtype=float)
)


def labels(counts: PairCounts) -> tuple[np.ndarray, np.ndarray]:
    a = [1] * counts.n11 + [1] * counts.n10 + [0] * counts.n01 + [0] * counts.n00
    b = [1] * counts.n11 + [0] * counts.n10 + [1] * counts.n01 + [0] * counts.n00
    return np.array(a, float), np.array(b, float)


def test_the_golden_case_of_2400_prompts():
    a, b = labels(PairCounts(n11=100, n10=147, n01=128, n00=2025))
    draws = difference_draws(a, b, 0.5, 400_000, named_rng(1, "golden"))
    quantiles = np.quantile(-100 * draws, [0.025, 0.5, 0.975])
    assert quantiles == pytest.approx([-0.562, 0.789, 2.145], abs=0.02)
    assert 1 - probability_higher(pair_counts(a, b), 0.5) == pytest.approx(0.8741, abs=5e-5)


@given(LABELS)
def test_the_four_counts_are_all_prompts(pairs):
    counts = pair_counts(pairs[:, 0], pairs[:, 1])
    assert counts.n == len(pairs)
    assert labels(counts)[0].sum() == pairs[:, 0].sum()


@given(LABELS)
def test_swapping_the_variants_turns_the_probability_round(pairs):
    one = probability_higher(pair_counts(pairs[:, 0], pairs[:, 1]), 0.5)
    other = probability_higher(pair_counts(pairs[:, 1], pairs[:, 0]), 0.5)
    assert one + other == pytest.approx(1)


@given(LABELS)
def test_a_variant_against_itself_is_never_decisive(pairs):
    same = pairs[:, 0]
    draws = difference_draws(same, same, 0.5, 2000, named_rng(3, "self"))
    assert summarise(draws, 0.95, 0.01).verdict == "not decisive"


def test_a_clear_difference_is_called_by_its_direction():
    a, b = labels(PairCounts(n11=5, n10=2, n01=40, n00=53))
    up = summarise(difference_draws(a, b, 0.5, 20_000, named_rng(1, "x")), 0.95, 0.01)
    down = summarise(difference_draws(b, a, 0.5, 20_000, named_rng(1, "x")), 0.95, 0.01)
    assert (up.verdict, down.verdict) == ("higher", "lower")
    assert up.probability_higher > 0.999


def test_an_interval_that_touches_zero_decides_nothing():
    assert verdict(Interval(0.0, 0.1)) == "not decisive"


def test_labels_of_different_lengths_are_no_pairs():
    with pytest.raises(DataError, match="Cannot pair"):
        pair_counts(np.zeros(3), np.zeros(4))


def test_no_shared_prompt_is_an_error():
    with pytest.raises(DataError, match="nothing to pair"):
        difference_draws(np.array([]), np.array([]), 0.5, 1000, named_rng(1, "x"))


def test_phi_is_one_for_equal_labels_and_none_where_nothing_varies():
    assert phi(PairCounts(5, 0, 0, 5)) == pytest.approx(1)
    assert phi(PairCounts(0, 0, 0, 9)) is None


def ranks(paired: bool) -> np.ndarray:
    """Rank of the true difference among posterior draws, over data sets drawn from the prior."""
    rng = np.random.default_rng(7)
    found = []
    for simulation in range(2000):
        delta, theta, both = rng.beta(0.5, 0.5), rng.beta(0.5, 0.5), rng.uniform()
        cells = [(1 - delta) * both, delta * (1 - theta), delta * theta, (1 - delta) * (1 - both)]
        a, b = labels(PairCounts(*rng.multinomial(200, cells)))
        own = named_rng(simulation, "sbc")
        if paired:
            draws = difference_draws(a, b, 0.5, 99, own)
        else:
            draws = rate_draws(b, 0.5, 99, own) - rate_draws(a, 0.5, 99, own)
        found.append(int((draws < delta * (2 * theta - 1)).sum()))
    return np.array(found)


def uniformity(found: np.ndarray) -> float:
    observed, _ = np.histogram(found, bins=10, range=(0, 100))
    return float(stats.chisquare(observed).pvalue)


def test_the_paired_posterior_is_calibrated_by_simulation():
    assert uniformity(ranks(paired=True)) > 1e-4


def test_the_calibration_test_would_notice_a_posterior_that_ignores_the_pairing():
    assert uniformity(ranks(paired=False)) < 1e-4


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ((0.02, 0.05), "higher"),
        ((-0.05, -0.02), "lower"),
        ((-0.01, 0.01), "equivalent"),
        ((0.005, 0.009), "equivalent"),
        ((0.005, 0.05), "undecided"),
        ((-0.05, 0.05), "undecided"),
        ((0.01, 0.05), "undecided"),
    ],
)
def test_a_decision_asks_for_more_than_zero(interval, said):
    assert decision(Interval(*interval), 0.01) == said


@given(values=st.lists(st.floats(-1, 1), min_size=1, max_size=40), rope=st.floats(0, 0.5))
def test_a_difference_is_in_the_region_above_or_below(values, rope):
    found = summarise(np.array(values), 0.95, rope)
    assert found.in_rope + found.above + found.below == pytest.approx(1)
