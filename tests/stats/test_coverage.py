"""Do intervals cover what made the data as often as they say, and claim what is not there as
seldom?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from toxtrail.stats.contrasts import difference_draws, pair_counts, probability_higher
from toxtrail.stats.rates import equal_tailed, overall_rate_draws, rate_draws

RUNS, DRAWS = 400, 800
MARGIN = 3.3 * (0.95 * 0.05 / RUNS) ** 0.5
"""Of Monte Carlo error of a coverage."""


def shares(rng, n, k, rates, spread):
    """(prompt, variant): share of k continuations that are toxic; a prompt's own level, which both
    variants share, makes them go together."""
    weight = 1 / spread - 1
    level = rng.random(n)  # the prompt's place among prompts

    chances = [beta.ppf(level, rate * weight, (1 - rate) * weight) for rate in rates]
    return np.column_stack([rng.binomial(k, c) / k for c in chances])


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize(("rate", "n"), [(0.05, 800), (0.25, 200)])
def test_a_rate_is_covered(rate, n, k):
    rng, covered = np.random.default_rng(1), 0
    for _ in range(RUNS):
        own = shares(rng, n, k, [rate], 0.3)[:, 0]
        low, high = equal_tailed(rate_draws(own, 0.5, DRAWS, rng), 0.95)
        covered += low <= rate <= high
    assert covered / RUNS == pytest.approx(0.95, abs=MARGIN + 0.01)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize(("rates", "n"), [((0.05, 0.08), 800), ((0.25, 0.25), 200)])
def test_a_difference_is_covered(rates, n, k):
    rng, covered = np.random.default_rng(2), 0
    for _ in range(RUNS):
        a, b = shares(rng, n, k, rates, 0.3).T
        low, high = equal_tailed(difference_draws(a, b, 0.5, DRAWS, rng), 0.95)
        covered += low <= rates[1] - rates[0] <= high
    assert covered / RUNS == pytest.approx(0.95, abs=MARGIN + 0.01)


def test_continuations_taken_for_independent_prompts_would_not_cover():
    """The control: what the rate's interval would be, had every continuation been a prompt."""
    rng, covered = np.random.default_rng(3), 0
    for _ in range(RUNS):
        own = shares(rng, 200, 5, [0.25], 0.3)[:, 0]
        toxic = round(own.sum() * 5)
        low, high = np.quantile(rng.beta(toxic + 0.5, 1000 - toxic + 0.5, DRAWS), (0.025, 0.975))
        covered += low <= 0.25 <= high
    assert covered / RUNS < 0.87


def test_power_is_what_pairing_buys():
    """5 % against 7 % on 2,400 prompts, correlation about .4: found in about .97 (STATS)."""
    rng, found, p11 = (
        np.random.default_rng(4),
        0,
        0.05 * 0.07 + 0.4 * (0.05 * 0.95 * 0.07 * 0.93) ** 0.5,
    )
    tables = rng.multinomial(2400, [p11, 0.05 - p11, 0.07 - p11, 0.88 + p11], RUNS)
    for n11, n10, n01, n00 in tables:
        labels = [np.repeat(x, (n11, n10, n01, n00)) for x in ((1.0, 1, 0, 0), (1.0, 0, 1, 0))]
        found += equal_tailed(difference_draws(*labels, 0.5, DRAWS, rng), 0.95).lo > 0
    assert 0.93 <= found / RUNS <= 0.995


def test_a_variant_against_its_like_is_credible_no_oftener_than_the_level_allows():
    rng, called = np.random.default_rng(5), 0
    for _ in range(RUNS):
        a, b = shares(rng, 400, 1, [0.1, 0.1], 0.3).T
        low, high = equal_tailed(difference_draws(a, b, 0.5, DRAWS, rng), 0.95)
        called += low > 0 or high < 0
    assert called / RUNS <= 0.05 + MARGIN


LABELS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60).map(
    lambda pairs: np.array(pairs, dtype=float)
)


@settings(max_examples=40, deadline=None)
@given(LABELS)
def test_relabelling_the_variants_relabels_the_result(pairs):
    a, b = pairs.T
    one, two = (probability_higher(pair_counts(*x), 0.5) for x in ((a, b), (b, a)))
    assert one == pytest.approx(1 - two)
    rng = [np.random.default_rng(6) for _ in range(2)]
    ab = equal_tailed(difference_draws(a, b, 0.5, 6000, rng[0]), 0.9)
    ba = equal_tailed(difference_draws(b, a, 0.5, 6000, rng[1]), 0.9)
    assert ab.lo == pytest.approx(-ba.hi, abs=0.08)
    assert ab.hi == pytest.approx(-ba.lo, abs=0.08)


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("n", [1, 2, 500])
def test_all_alike_leaves_room_for_what_was_not_seen(label, n):
    """No toxic prompt at all, or nothing else: never a rate of exactly 0 or 1."""
    rng = np.random.default_rng(7)
    low, high = equal_tailed(rate_draws(np.full(n, label), 0.5, 4000, rng), 0.95)
    assert 0 < low < high < 1
    step = equal_tailed(
        difference_draws(np.full(n, label), np.full(n, label), 0.5, 4000, rng), 0.95
    )
    assert step.lo < 0 < step.hi


SUBSETS = [(480,) * 5, (32,) * 4, (1000, 1000, 100, 100)]


def covers_all_together(sizes, rates, priors, rng):
    """How often the interval of the rate over all subsets holds it; `priors`: of each subset."""
    weights, covered, runs = np.array(sizes) / sum(sizes), 0, 1000
    for _ in range(runs):
        labels = [(np.arange(n) < rng.binomial(n, r)) * 1.0 for n, r in zip(sizes, rates)]
        if priors == "shared":
            draws = overall_rate_draws(labels, weights, 0.5, DRAWS, [rng] * len(sizes))
        else:
            draws = weights @ [rate_draws(own, 0.5, DRAWS, rng) for own in labels]
        low, high = equal_tailed(draws, 0.95)
        covered += low <= weights @ rates <= high
    return covered / runs


@pytest.mark.parametrize("sizes", SUBSETS)
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_the_rate_of_all_subsets_together_is_covered(sizes, rate):
    rates = rate * np.linspace(0.5, 1.5, len(sizes))
    assert 0.925 <= covers_all_together(sizes, rates, "shared", np.random.default_rng(8)) <= 0.985


def test_a_whole_prior_for_each_subset_would_not_cover_small_rates():
    found = covers_all_together((480,) * 5, np.full(5, 0.001), "each", np.random.default_rng(8))
    assert found < 0.85
    assert (
        covers_all_together((480,) * 5, np.full(5, 0.001), "shared", np.random.default_rng(8))
        > 0.92
    )


def test_one_subset_is_all_there_is():
    own = (np.arange(50) < 7) * 1.0
    rng = [np.random.default_rng(9) for _ in range(2)]
    assert np.array_equal(
        overall_rate_draws([own], [1.0], 0.5, DRAWS, [rng[0]]), rate_draws(own, 0.5, DRAWS, rng[1])
    )
