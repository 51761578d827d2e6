"""Means under Dirichlet weights, without draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from toxtrail.stats.bayesian_bootstrap import (
    FEW,
    WeightedMean,
    effective,
    pooled_shapes,
    students_mass,
    weighted_mean,
)
from toxtrail.stats.paired_differences import summarise_difference
from toxtrail.stats.rates import bootstrap_draws


@pytest.mark.parametrize(("toxic", "n"), [(3, 10), (20, 32), (5, 480), (100, 2400)])
def test_of_two_values_it_is_a_beta(toxic, n):
    own = weighted_mean(np.array([0.0, 1.0]), np.array([n - toxic + 0.5, toxic + 0.5]))
    theirs = stats.beta(toxic + 0.5, n - toxic + 0.5)
    assert own.interval(0.95) == pytest.approx(theirs.ppf([0.025, 0.975]), abs=1e-8)
    assert own.moments() == pytest.approx((theirs.mean(), theirs.std()))
    assert own.cdf(0.1) == pytest.approx(theirs.cdf(0.1), abs=1e-8)


@pytest.mark.parametrize("n", [2, 10, 150, 600])
def test_it_is_what_draws_of_a_bayesian_bootstrap_give(n):
    rng = np.random.default_rng(n)
    values = rng.beta(0.3, 3, n)
    own = weighted_mean(values, np.ones(n))
    draws = bootstrap_draws(values[:, None], np.ones(n), [[0.0]], 1e-12, 60_000, rng)[:, 0]
    lo, hi = own.interval(0.95)
    assert [(draws <= lo).mean(), (draws <= hi).mean()] == pytest.approx([0.025, 0.975], abs=0.003)


@given(st.integers(FEW + 1, 900), st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_many_values_in_bins_give_the_same_interval(n, seed):
    values = np.random.default_rng(seed).beta(0.2, 2, n)
    own = weighted_mean(values, np.ones(n))
    whole = WeightedMean(np.sort(values), np.ones(n))
    assert own.value.size < n
    assert own.interval(0.95) == pytest.approx(whole.interval(0.95), abs=1e-6)


@given(st.lists(st.integers(-500, 500).map(lambda x: x / 100), min_size=2, max_size=40))
@settings(max_examples=25, deadline=None)
def test_the_interval_lies_within_the_values_and_mirrors(values):
    own = np.array(values)
    lo, hi = weighted_mean(own, np.ones(own.size)).interval(0.9)
    assert own.min() <= lo <= hi <= own.max()
    around = weighted_mean(-own, np.ones(own.size)).interval(0.9)
    assert (lo, hi) == pytest.approx((-around.hi, -around.lo), abs=1e-8)


@given(st.lists(st.tuples(st.floats(0.001, 1), st.floats(0.01, 100)), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_a_posterior_symmetric_about_zero_favours_neither_direction(terms):
    """The terms cancel, but a sum that is rounded at each step is not zero."""
    value, shape = np.array(terms).T
    own = weighted_mean(np.concatenate([-value, value]), np.concatenate([shape, shape]))
    assert not own.leans_down
    assert not own.mirrored.leans_down
    found = summarise_difference(own, 0.0, 0.95, 0.0001)
    assert found.probability_higher == pytest.approx(0.5, abs=1e-8)
    assert found.verdict == "not decisive"


def test_equal_values_leave_nothing_open():
    assert weighted_mean(np.full(9, 0.25), np.ones(9)).interval(0.95) == (0.25, 0.25)


def test_the_variance_of_students_interval_is_kept():
    values, n = np.random.default_rng(3).normal(0, 1, 32), 32
    own = weighted_mean(values, np.full(n, students_mass(n, 0.95) / n))
    wanted = stats.t.ppf(0.975, n - 1) / stats.norm.ppf(0.975) * values.std(ddof=1) / n**0.5
    assert own.moments()[1] == pytest.approx(wanted, rel=1e-9)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=8))
def test_prompts_that_count_alike_are_as_many_as_they_are(sizes):
    weights = [n / sum(sizes) for n in sizes]
    assert effective(sizes, weights) == pytest.approx(sum(sizes))
    assert np.concatenate(pooled_shapes(sizes, weights, sum(sizes))) == pytest.approx(1)


def test_a_million_values_take_no_more_than_their_own_room():
    values = np.random.default_rng(5).beta(0.3, 3, 1_000_000)
    own = weighted_mean(values, np.ones(values.size))
    assert own.value.size <= 2 * FEW
    se = values.std() / 1000
    assert own.interval(0.95) == pytest.approx(
        (values.mean() - 1.96 * se, values.mean() + 1.96 * se), abs=0.02 * se
    )
