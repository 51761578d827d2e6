"""Differences paired by prompt: laws, golden numbers, calibration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pair_tables import labels, pairs, posterior
from scipy import stats

from toxtrail.errors import DataError
from toxtrail.stats.paired_differences import (
    PairCounts,
    Pairs,
    direction,
    flat_prior,
    joint_table,
    label_correlation,
    mean_posterior,
    odds_ratio,
    pair_counts,
    pair_draws,
    pair_posterior,
    power_scaled,
    rope_decision,
    summarise_difference,
    unpaired_is_credible,
    verdict,
)
from toxtrail.stats.rate_posterior import observed, rate_posterior
from toxtrail.stats.rates import Interval

COUNTS = st.tuples(*[st.integers(0, 40)] * 4).filter(lambda table: sum(table) > 0)
SHARES = st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]), min_size=4, max_size=30)


def test_the_golden_case_of_2400_prompts():
    own = posterior(100, 128, 147, 2025)
    assert np.multiply(100, own.interval(0.95)) == pytest.approx([-0.562, 2.153], abs=0.001)
    assert own.probability_higher == pytest.approx(0.8741, abs=5e-5)
    assert own.cdf(0.0) == pytest.approx(1 - own.probability_higher, abs=1e-9)


@pytest.mark.parametrize(
    "table", [(0, 0, 0, 10), (3, 2, 20, 7), (0, 0, 0, 3840), (0, 1, 0, 31), (0, 0, 9, 1),
              (14, 2, 84, 28), (3, 0, 0, 3), (0, 0, 10, 0), (0, 0, 1, 0), (3, 7, 7, 3)],
)  # fmt: skip
def test_the_integrals_are_what_draws_from_the_tree_give(table):
    own, rng = posterior(*table), np.random.default_rng(1)
    a, b, only_a, only_b = own.draws(200_000, rng)
    d = b - a
    assert np.allclose(d, only_b - only_a)
    mean, spread = own.moments()
    assert d.mean() == pytest.approx(mean, abs=5e-3 * spread + 1e-12)
    assert d.std() == pytest.approx(spread, rel=0.01)
    lo, hi = own.interval(0.95)
    assert [(d <= lo).mean(), (d <= hi).mean()] == pytest.approx([0.025, 0.975], abs=0.0015)
    with np.errstate(divide="ignore"):
        logs = np.log(b) - np.log(1 - b) - np.log(a) + np.log(1 - a)
    median, (low, high) = own.odds_ratio(0.95)
    found = [(logs <= np.log(x)).mean() for x in (low, median, high)]
    assert found == pytest.approx([0.025, 0.5, 0.975], abs=0.004)


@given(COUNTS.filter(lambda table: table[1] + table[2] > 0))
@settings(max_examples=25, deadline=None)
def test_exchanging_the_variants_mirrors_every_number(table):
    n11, n10, n01, n00 = table
    one, other = pairs(table), pairs((n11, n01, n10, n00))
    up, down = (
        summarise_difference(pair_posterior(p, 0.5), p.estimate, 0.95, 0.02) for p in (one, other)
    )
    assert up.estimate == -down.estimate
    assert up.interval == (-down.interval.hi, -down.interval.lo)
    assert (up.above, up.below, up.in_rope) == (down.below, down.above, down.in_rope)
    assert up.probability_higher + down.probability_higher == pytest.approx(1, abs=1e-12)
    turned = {"higher": "lower", "lower": "higher"}
    assert up.verdict == turned.get(down.verdict, down.verdict)
    assert up.decision == turned.get(down.decision, down.decision)
    draws, turned_draws = (pair_draws(p, 0.5, 1000, 3) for p in (one, one.mirrored))
    assert np.array_equal(draws.difference, -turned_draws.difference)


@pytest.mark.parametrize("table", [(3, 2, 20, 7), (0, 0, 9, 3), (5, 0, 0, 5), (1, 9, 9, 1)])
def test_exchanging_the_variants_inverts_the_odds_ratio(table):
    n11, n10, n01, n00 = table
    (value, interval), (mirrored, around) = (
        odds_ratio(pairs(t), 0.5, 0.95) for t in (table, (n11, n01, n10, n00))
    )
    assert value * mirrored == pytest.approx(1)
    assert interval == pytest.approx((1 / around.hi, 1 / around.lo))


@given(COUNTS.filter(lambda table: table[1] + table[2] > 0))
@settings(max_examples=20, deadline=None)
def test_next_to_no_difference_nothing_is_divided_by_zero(table):
    own = posterior(*table)
    with np.errstate(divide="raise", invalid="raise"):
        around = [own.cdf(at) for at in (-1e-17, 0.0, 1e-17)]
    assert min(np.diff(around)) > -1e-9


@given(st.lists(st.tuples(st.integers(1, 99), st.booleans()), min_size=1, max_size=5))
def test_rounding_takes_no_rate_out_of_its_range(subsets):
    sizes = [n for n, _ in subsets]
    weights = [n / sum(sizes) for n in sizes]
    assert observed([np.ones(n) for n in sizes], weights) == 1
    labels = [np.full(n, 1.0 * toxic) for n, toxic in subsets]
    assert 0 <= observed(labels, weights) <= 1


@given(SHARES, SHARES)
@settings(max_examples=30, deadline=None)
def test_exchanging_mirrors_several_continuations_too(a, b):
    n = min(len(a), len(b))
    one = Pairs([np.array(a[:n])], [np.array(b[:n])], [1.0])
    assume(a[:n] != b[:n])
    up, down = (
        summarise_difference(pair_posterior(p, 0.5), p.estimate, 0.95, 0.02)
        for p in (one, one.mirrored)
    )
    assert up.interval == pytest.approx((-down.interval.hi, -down.interval.lo), abs=1e-9)
    assert (up.above, up.in_rope) == pytest.approx((down.below, down.in_rope), abs=1e-9)
    draws, mirrored = (pair_draws(p, 0.5, 1000, 3) for p in (one, one.mirrored))
    assert np.array_equal(draws.difference, -mirrored.difference)


@given(st.permutations(range(3)), st.permutations(range(12)))
def test_neither_the_order_of_subsets_nor_that_of_prompts_changes_a_digit(subsets, prompts):
    tables = [(2, 1, 4, 5), (0, 0, 3, 9), (6, 2, 2, 2)]
    own, turned = pairs(*tables), pairs(*[tables[i] for i in subsets])
    turned = Pairs(*([x[list(prompts)] for x in side] for side in turned[:2]), turned.weights)
    assert joint_table(own) == joint_table(turned)
    assert own.estimate == pytest.approx(turned.estimate, abs=1e-15)


@given(COUNTS)
@settings(max_examples=40, deadline=None)
def test_the_verdict_of_the_interval_is_that_of_the_probability(table):
    own = posterior(*table)
    assert verdict(own.interval(0.95)) == direction(own.probability_higher, 0.95)


@given(COUNTS)
@settings(max_examples=40, deadline=None)
def test_what_is_shown_is_what_was_observed_and_lies_in_its_interval(table):
    own = pairs(table)
    found = summarise_difference(pair_posterior(own, 0.5), own.estimate, 0.95, 0.01)
    assert found.estimate == pytest.approx((table[2] - table[1]) / sum(table))
    assert found.interval.lo <= found.estimate <= found.interval.hi


@pytest.mark.parametrize("table", [(14, 2, 84, 28), (3, 2, 20, 7), (0, 4, 9, 300)])
def test_the_posterior_mean_is_near_what_was_observed(table):
    own, observed = posterior(*table), (table[2] - table[1]) / sum(table)
    lo, hi = own.interval(0.95)
    assert abs(own.moments()[0] - observed) <= 0.1 * (hi - lo) / 2


@given(COUNTS)
@settings(max_examples=30, deadline=None)
def test_a_difference_is_in_the_region_above_or_below(table):
    own = posterior(*table)
    found = summarise_difference(own, 0.0, 0.95, 0.03)
    assert found.in_rope + found.above + found.below == pytest.approx(1)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_the_four_counts_are_all_prompts(both):
    a, b = np.array(both, dtype=float).T
    counts = pair_counts(a, b)
    assert counts.n == len(both)
    assert labels(counts)[0].sum() == a.sum()


@given(COUNTS)
@settings(max_examples=30, deadline=None)
def test_a_variant_against_itself_is_never_decisive(table):
    own = labels(table)[0]
    same = Pairs([own], [own], [1.0])
    assert (
        summarise_difference(pair_posterior(same, 0.5), 0.0, 0.95, 0.01).verdict == "not decisive"
    )
    assert not unpaired_is_credible(*[rate_posterior([own], [1.0], 0.5)] * 2, 0.95)


def test_subsets_that_weigh_by_their_prompts_are_the_sum_of_their_tables():
    found = joint_table(pairs((1, 2, 3, 4), (0, 1, 8, 11)))
    assert found == (1, 3, 11, 15)


def test_subsets_of_other_weights_count_by_them_and_as_fewer_prompts():
    found = joint_table(pairs((0, 0, 10, 0), (0, 0, 0, 30), weights=[0.5, 0.5]))
    assert found == pytest.approx((0, 0, 15, 15))  # 1 / (.25 / 10 + .25 / 30) = 30 pairs


def test_no_shared_prompt_is_an_error():
    empty = Pairs([np.array([])], [np.array([])], [1.0])
    with pytest.raises(DataError, match="share no prompt"):
        pair_posterior(empty, 0.5)


def test_labels_of_different_lengths_are_no_pairs():
    with pytest.raises(DataError, match="Cannot pair"):
        pair_counts(np.zeros(3), np.zeros(4))


def test_an_interval_that_touches_zero_decides_nothing():
    assert verdict(Interval(0.0, 0.1)) == "not decisive"


def test_phi_is_one_for_equal_labels_and_none_where_nothing_varies():
    assert label_correlation(PairCounts(5, 0, 0, 5)) == pytest.approx(1)
    assert label_correlation(PairCounts(0, 0, 0, 9)) is None


def test_the_odds_ratio_is_that_of_the_rates_beside_it():
    value, (lo, hi) = odds_ratio(pairs((14, 2, 84, 28)), 0.5, 0.95)
    assert value == pytest.approx((98 / 30) / (16 / 112))
    assert (lo, hi) == pytest.approx((12.41, 44.70), abs=0.01)
    value, (lo, hi) = odds_ratio(pairs((0, 0, 5, 95)), 0.5, 0.95)
    assert lo < value < hi < np.inf


@pytest.mark.parametrize("prior", [0.01, 0.05, 0.5, 5.0])
@pytest.mark.parametrize(
    "table", [(0, 0, 0, 1), (1, 0, 0, 0), (0, 0, 0, 10**5), (50, 0, 500, 0), (0, 0, 2, 10**6),
              (10**5, 3, 5, 10**5), (0, 30_000, 40_000, 0)],
)  # fmt: skip
def test_no_prior_and_no_table_is_without_numbers(table, prior):
    own = posterior(*table, prior=prior)
    median, (lo, hi) = own.odds_ratio(0.95)
    assert 0 < lo <= median <= hi < np.inf
    found = summarise_difference(own, 0.0, 0.95, 0.01)
    assert -1 <= found.interval.lo <= found.interval.hi <= 1


def test_the_flat_prior_makes_the_direction_uniform():
    assert flat_prior(pairs((0, 3, 1, 20))).theta == (2.0, 4.0)


def test_scaled_points_are_points_of_the_posterior():
    own = posterior(9, 6, 14, 91)
    difference, prior, seen = power_scaled(own, 4000)
    mean, spread = own.moments()
    assert (difference.mean(), difference.std()) == pytest.approx((mean, spread), rel=2e-3)
    assert np.isfinite(prior).all()
    assert np.isfinite(seen).all()


def test_draws_depend_on_the_labels_and_the_seed_alone():
    one = pairs((3, 2, 9, 20))
    assert np.array_equal(pair_draws(one, 0.5, 500, 1).a, pair_draws(one, 0.5, 500, 1).a)
    assert not np.array_equal(pair_draws(one, 0.5, 500, 1).a, pair_draws(one, 0.5, 500, 2).a)


def test_a_mean_of_fewer_than_two_values_has_no_interval():
    assert mean_posterior([np.array([0.3])], [1.0], 0.95) is None
    assert mean_posterior([np.array([0.3, 0.4]), np.array([])], [0.5, 0.5], 0.95) is None


def uniformity(found: np.ndarray) -> float:
    observed, _ = np.histogram(found, bins=10, range=(0, 1))
    return float(stats.chisquare(observed).pvalue)


def ranks(paired: bool) -> np.ndarray:
    """Where the true direction lies in its posterior, over data sets drawn from Jeffreys' prior of
    it: of 200 prompts, and half of them discordant."""
    rng, found = np.random.default_rng(7), []
    for _ in range(1500):
        theta = rng.beta(0.5, 0.5)
        n01 = rng.binomial(100, theta)
        own = posterior(40, 100 - n01, n01, 60)
        if paired:
            found.append(stats.beta(*own.theta).cdf(theta))
        else:
            a, b = (stats.beta(40 + n + 0.5, 160 - n + 0.5) for n in (100 - n01, n01))
            spread = (a.var() + b.var()) ** 0.5
            found.append(stats.norm.cdf((0.5 * (2 * theta - 1) - b.mean() + a.mean()) / spread))
    return np.array(found)


def test_the_direction_is_calibrated_by_simulation():
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
    assert rope_decision(Interval(*interval), 0.01) == said
