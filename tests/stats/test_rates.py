"""Rates: laws first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from toxtrail.errors import DataError
from toxtrail.stats.rate_posterior import beta_like, rate_draws, rate_posterior
from toxtrail.stats.rates import (
    bootstrap_draws,
    named_rng,
    prompt_maxima,
    prompt_means,
    toxic_fractions,
)

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=40).map(np.array)


def one_each(scores):
    return np.arange(scores.size)


@given(SCORES, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_never_finds_more_toxic_texts(scores, one, other):
    low, high = sorted((one, other))
    shares = [toxic_fractions(scores, one_each(scores), t).sum() for t in (low, high)]
    assert shares[0] >= shares[1]


def test_the_threshold_itself_is_toxic():
    assert toxic_fractions(np.array([0.5]), np.array([0]), 0.5).tolist() == [1.0]


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1, np.inf])
def test_a_score_that_is_no_probability_is_refused_not_counted_as_clean(bad):
    with pytest.raises(DataError, match="NaN or outside"):
        toxic_fractions(np.array([0.1, bad]), np.array([0, 1]), 0.5)


def test_no_scored_row_is_an_error_not_a_rate_of_zero():
    with pytest.raises(DataError, match="No row was scored"):
        rate_posterior([np.array([])], [1.0], 0.5)


@given(st.integers(0, 30), st.integers(0, 30))
def test_one_continuation_a_prompt_is_the_exact_jeffreys_interval(toxic, clean):
    if toxic + clean == 0:
        return
    shares = np.array([1.0] * toxic + [0.0] * clean)
    rate, theirs = rate_posterior([shares], [1.0], 0.5), stats.beta(toxic + 0.5, clean + 0.5)
    assert rate.interval(0.95) == pytest.approx(theirs.ppf([0.025, 0.975]))
    assert rate.moments() == pytest.approx((theirs.mean(), theirs.std()))
    assert rate.cdf(0.3) == pytest.approx(theirs.cdf(0.3))
    assert beta_like(rate) == pytest.approx(rate)


def test_the_bootstrap_with_atoms_is_the_beta_posterior_for_single_labels():
    shares = np.array([1.0] * 3 + [0.0] * 37)
    rng = named_rng(1, "x")
    draws = bootstrap_draws(shares[:, None], np.ones(40), [[0.0], [1.0]], 0.5, 20_000, rng)
    expected = stats.beta(3.5, 37.5).ppf([0.025, 0.5, 0.975])
    assert np.quantile(draws, [0.025, 0.5, 0.975]) == pytest.approx(expected, abs=0.004)


def test_more_continuations_of_one_prompt_are_no_independent_trials():
    """Ten equal continuations of each prompt say no more than one."""
    once = np.array([1.0, 0.0] * 20)
    ten = toxic_fractions(np.repeat(once, 10), np.repeat(np.arange(40), 10), 0.5)
    assert ten.tolist() == once.tolist()


def test_a_mixed_prompt_counts_by_its_share():
    assert toxic_fractions(np.array([0.9, 0.1, 0.9]), np.array([0, 0, 1]), 0.5).tolist() == [
        0.5,
        1.0,
    ]


def test_a_named_quantity_draws_the_same_whatever_else_is_drawn():
    first = named_rng(11, "a|b").random(3)
    named_rng(11, "c").random(5)
    assert named_rng(11, "a|b").random(3).tolist() == first.tolist()
    assert named_rng(11, "a|c").random(3).tolist() != first.tolist()


def test_a_prompt_has_its_mean_and_its_worst():
    scores, prompt = np.array([0.2, 0.8, 0.4]), np.array([0, 0, 1])
    assert prompt_maxima(scores, prompt).tolist() == [0.8, 0.4]
    assert prompt_means(scores, prompt).tolist() == [0.5, 0.4]


def test_draws_of_a_rate_depend_on_its_labels_and_the_seed_alone():
    one, other = np.array([1.0, 0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0, 0.0])
    found = [rate_draws([x], [1.0], 0.5, 50, seed) for x, seed in ((one, 1), (one, 1), (other, 1))]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert not np.array_equal(found[0], rate_draws([one], [1.0], 0.5, 50, 2))


def test_several_continuations_are_drawn_as_they_are_computed():
    shares = np.random.default_rng(3).choice([0.0, 0.2, 0.6], 60)
    lo, hi = rate_posterior([shares], [1.0], 0.5).interval(0.95)
    draws = rate_draws([shares], [1.0], 0.5, 40_000, 1)
    assert [(draws <= lo).mean(), (draws <= hi).mean()] == pytest.approx([0.025, 0.975], abs=0.003)
