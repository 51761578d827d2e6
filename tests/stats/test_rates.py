"""Rates: laws first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from toxtrail.errors import DataError
from toxtrail.stats.rates import (
    beta_rate,
    named_rng,
    prompt_maxima,
    prompt_means,
    rate_draws,
    toxic_shares,
    weighted_means,
)

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=40).map(np.array)


def one_each(scores):
    return np.arange(scores.size)


@given(SCORES, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_never_finds_more_toxic_texts(scores, one, other):
    low, high = sorted((one, other))
    shares = [toxic_shares(scores, one_each(scores), t).sum() for t in (low, high)]
    assert shares[0] >= shares[1]


def test_the_threshold_itself_is_toxic():
    assert toxic_shares(np.array([0.5]), np.array([0]), 0.5).tolist() == [1.0]


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1, np.inf])
def test_a_score_that_is_no_probability_is_refused_not_counted_as_clean(bad):
    with pytest.raises(DataError, match="NaN or outside"):
        toxic_shares(np.array([0.1, bad]), np.array([0, 1]), 0.5)


def test_no_scored_row_is_an_error_not_a_rate_of_zero():
    with pytest.raises(DataError, match="not 0"):
        rate_draws(np.array([]), 0.5, 1000, named_rng(1, "x"))


@given(st.integers(0, 30), st.integers(0, 30))
def test_one_continuation_a_prompt_is_the_exact_jeffreys_interval(toxic, clean):
    if toxic + clean == 0:
        return
    shares = np.array([1.0] * toxic + [0.0] * clean)
    rate = beta_rate(shares, np.array([]), 0.5, 0.95)
    posterior = stats.beta(toxic + 0.5, clean + 0.5)
    assert rate.interval == pytest.approx(posterior.ppf([0.025, 0.975]))
    assert rate.mean == pytest.approx(posterior.mean())


def test_the_bootstrap_with_atoms_is_the_beta_posterior_for_single_labels():
    shares = np.array([1.0] * 3 + [0.0] * 37)
    draws = weighted_means(shares, (0.0, 1.0), 0.5, 20_000, named_rng(1, "x"))
    expected = stats.beta(3.5, 37.5).ppf([0.025, 0.5, 0.975])
    assert np.quantile(draws, [0.025, 0.5, 0.975]) == pytest.approx(expected, abs=0.004)


def test_more_continuations_of_one_prompt_are_no_independent_trials():
    """Ten equal continuations of each prompt say no more than one."""
    once = np.array([1.0, 0.0] * 20)
    ten = toxic_shares(np.repeat(once, 10), np.repeat(np.arange(40), 10), 0.5)
    assert ten.tolist() == once.tolist()


def test_a_mixed_prompt_counts_by_its_share():
    assert toxic_shares(np.array([0.9, 0.1, 0.9]), np.array([0, 0, 1]), 0.5).tolist() == [0.5, 1.0]


def test_a_named_quantity_draws_the_same_whatever_else_is_drawn():
    first = named_rng(11, "a|b").random(3)
    named_rng(11, "c").random(5)
    assert named_rng(11, "a|b").random(3).tolist() == first.tolist()
    assert named_rng(11, "a|c").random(3).tolist() != first.tolist()


def test_a_prompt_has_its_mean_and_its_worst():
    scores, prompt = np.array([0.2, 0.8, 0.4]), np.array([0, 0, 1])
    assert prompt_maxima(scores, prompt).tolist() == [0.8, 0.4]
    assert prompt_means(scores, prompt).tolist() == [0.5, 0.4]
