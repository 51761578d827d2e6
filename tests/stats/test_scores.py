"""Means over prompts: paired by their weights, and as wide as they should be."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toxtrail.stats import rates
from toxtrail.stats.rates import equal_tailed, weighted_means
from toxtrail.stats.scores import mean_draws, summarised

SCORES = hnp.arrays(float, st.integers(1, 40), elements=st.floats(0, 1))


@given(SCORES)
def test_a_mean_lies_between_the_lowest_and_the_highest(scores):
    draws = mean_draws(scores[:, None], 200, 1, "a")
    assert draws.min() >= scores.min() - 1e-12
    assert draws.max() <= scores.max() + 1e-12


@given(SCORES, st.floats(0, 0.5))
def test_two_variants_of_one_subset_share_their_weights(scores, shift):
    both = np.column_stack([scores, scores + shift])
    first, second = mean_draws(both, 100, 1, "a").T
    alone = mean_draws(both[:, :1], 100, 1, "a")[:, 0]
    assert second - first == pytest.approx(np.full(100, shift), abs=1e-9)
    assert first == pytest.approx(alone)


def test_a_prompt_without_a_score_counts_for_nobody():
    values = np.array([[0.2, 0.2], [0.4, np.nan], [0.6, 0.6]])
    draws = mean_draws(values, 4000, 1, "a")
    assert draws[:, 0].mean() == pytest.approx(0.4, abs=0.01)
    without = mean_draws(values[[0, 2]], 4000, 1, "a")
    assert draws[:, 1].std() == pytest.approx(without[:, 1].std(), rel=0.1)


def test_nothing_scored_is_no_mean():
    draws = mean_draws(np.full((3, 1), np.nan), 50, 1, "a")
    assert summarised(draws[:, 0], 0.95) is None


def test_an_interval_covers_the_true_mean_as_often_as_it_says():
    rng, covered = np.random.default_rng(5), 0
    for _ in range(600):
        scores = rng.beta(0.4, 4, (200, 1))
        found = summarised(mean_draws(scores, 800, int(rng.integers(2**31)), "a")[:, 0], 0.95)
        covered += found.interval.lo <= 0.4 / 4.4 <= found.interval.hi
    assert 0.92 <= covered / 600 <= 0.975


def test_pairing_narrows_the_difference_of_variants_that_go_together():
    rng = np.random.default_rng(7)
    prompt = rng.beta(0.5, 3, 400)
    values = np.clip(prompt[:, None] + rng.normal(0, 0.02, (400, 2)), 0, 1)
    paired = mean_draws(values, 4000, 1, "a")
    apart = np.column_stack([mean_draws(values[:, [i]], 4000, i, f"x{i}")[:, 0] for i in (0, 1)])
    width = [np.ptp(equal_tailed(d[:, 1] - d[:, 0], 0.95)) for d in (paired, apart)]
    assert width[0] < 0.3 * width[1]


# --- many prompts: groups of them have the weights ------------------------------------------------

MANY = rates.EACH_WEIGHED + 5_000


def atoms_and_values(values, draws, seed):
    rng = np.random.default_rng(seed)
    return weighted_means(values, ((0.0, 0.0), (1.0, 1.0)), 0.5, draws, rng)


def by_name(values, draws, seed):
    return mean_draws(values, draws, seed, "a")


@pytest.mark.parametrize("drawn", [by_name, atoms_and_values])
def test_a_million_prompts_of_one_subset_take_little_memory(drawn):
    values = np.random.default_rng(1).random((1_000_000, 2))
    tracemalloc.start()
    try:
        drawn(values, 3, 1)  # a weight of each prompt: 8 MB a draw, 4 GB a block
        beside = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        drawn(values, 120, 1)
        assert tracemalloc.get_traced_memory()[1] < beside + 120 * rates.GROUPS * 8 * 1.5
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("drawn", [by_name, atoms_and_values])
def test_groups_vary_as_weights_of_each_prompt_do(drawn):
    values = np.random.default_rng(2).beta(0.1, 4.9, (MANY, 2))
    values[:, 1] = 0.5 * values[:, 0] + 0.5 * values[:, 1]
    draws = drawn(values, 600, 3)
    assert draws.mean(axis=0) == pytest.approx(values.mean(axis=0), rel=0.01)
    expected = np.cov(values.T) / MANY  # of the mean, exact as prompts become many
    assert np.cov(draws.T) == pytest.approx(expected, rel=0.25)
    assert (draws == drawn(values, 600, 3)).all()


def test_the_groups_depend_on_nothing_but_the_number_of_prompts():
    values = np.arange(MANY, dtype=float)
    sums = rates.group_sums(values)
    assert (sums == rates.group_sums(np.column_stack([values, -values]))[:, 0]).all()
    assert sums.sum() == values.sum()
    sizes = rates.group_sums(np.ones(MANY))
    assert set(sizes) == {MANY // rates.GROUPS, MANY // rates.GROUPS + 1}
    assert (rates.group_sums(values[: rates.EACH_WEIGHED]) == values[: rates.EACH_WEIGHED]).all()
