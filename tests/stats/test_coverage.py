"""Do intervals cover what made the data as often as they say, and claim what is not there as
seldom?

Differences of one subset are enumerated, without Monte Carlo error; the whole grid is that of
benchmarks/interval_coverage.py."""

from __future__ import annotations

import numpy as np
import pytest
from interval_coverage import chances, enumerated, mid_p, simulated
from scipy.stats import beta

from toxtrail.stats.paired_differences import Pairs, mean_posterior, pair_posterior
from toxtrail.stats.paired_posterior import PairedPosterior, PairTable
from toxtrail.stats.rate_posterior import rate_posterior

RUNS = 250
MARGIN = 3.3 * (0.95 * 0.05 / RUNS) ** 0.5
"""Of Monte Carlo error of a coverage."""


@pytest.mark.parametrize("n", [10, 32, 60])
@pytest.mark.parametrize("base", [0.005, 0.05, 0.3])
@pytest.mark.parametrize("step", [0.0, 0.02, 0.05, 0.2, 0.4, 0.64])
@pytest.mark.parametrize("phi", [0.2, 0.8])
def test_one_subset_is_covered_at_every_size_of_effect(n, base, step, phi):
    _, p10, p01, _ = chances(base, step, phi)
    covered, called = enumerated(n, p10, p01)
    assert covered >= (0.93 if n * (p10 + p01) >= 10 else 0.915)
    if step == 0:
        assert called <= 0.055


@pytest.mark.parametrize("rate", [2.2, 2.4, 2.6, 3.0])
def test_rare_effects_are_covered(rate):
    """Where the chance of seeing nothing is just larger than what an interval may miss."""
    covered, _ = enumerated(400, 0.0, rate / 400)
    assert covered >= 0.925


@pytest.mark.parametrize(
    ("sizes", "bases", "gaps", "phi"),
    [
        ([32] * 4, [0.03, 0.1, 0.15, 0.22], [0.7, 0.66, 0.6, 0.6], 0.3),
        ([32] * 8, [0.05] * 8, [0.2] * 8, 0.4),
        ([100] * 8, [0.005] * 8, [0.01] * 8, 0.3),
        ([300, 10, 10, 10, 10], [0.02, 0.1, 0.1, 0.2, 0.3], [0.05] * 5, 0.3),
    ],
)
def test_all_subsets_together_are_covered_and_their_odds_ratio(sizes, bases, gaps, phi):
    found = simulated(sizes, bases, gaps, phi, 150, 1)
    margin = 3 * (0.95 * 0.05 / 150) ** 0.5
    assert found["difference"] >= 0.945 - margin
    assert found["odds"] >= 0.945 - margin


def test_several_subsets_cost_no_power():
    """McNemar's mid-p test on the sum of the tables finds no more."""
    _, p10, p01, _ = chances(0.005, 0.01, 0.37)
    rng, found = np.random.default_rng(2), []
    for _, n10, n01, _ in rng.multinomial(800, [0.0, p10, p01, 1 - p10 - p01], 4000):
        ours = PairedPosterior(PairTable(0.0, float(n10), float(n01), 1.0), 0.5).probability_higher
        found.append((ours > 0.975, mid_p(n10, n01) < 0.05 and n01 > n10))
    ours, theirs = np.mean(found, axis=0)
    assert ours >= theirs
    assert ours >= 0.7


def test_mid_p_is_statsmodels_with_half_of_the_point():
    assert mid_p(1, 8) == pytest.approx(2 * (10 / 512 - 0.5 * 9 / 512))


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
        low, high = rate_posterior([own], [1.0], 0.5).interval(0.95)
        covered += low <= rate <= high
    assert covered / RUNS == pytest.approx(0.95, abs=MARGIN + 0.01)


@pytest.mark.parametrize(("rates", "n"), [((0.05, 0.08), 800), ((0.25, 0.25), 200)])
def test_a_difference_of_several_continuations_is_covered(rates, n):
    rng, covered = np.random.default_rng(2), 0
    for _ in range(RUNS):
        a, b = shares(rng, n, 5, rates, 0.3).T
        low, high = pair_posterior(Pairs([a], [b], [1.0]), 0.5).interval(0.95)
        covered += low <= rates[1] - rates[0] <= high
    assert covered / RUNS == pytest.approx(0.95, abs=MARGIN + 0.01)


def test_continuations_taken_for_independent_prompts_would_not_cover():
    """The control: what the rate's interval would be, had every continuation been a prompt."""
    rng, covered = np.random.default_rng(3), 0
    for _ in range(RUNS):
        own = shares(rng, 200, 5, [0.25], 0.3)[:, 0]
        toxic = round(own.sum() * 5)
        low, high = beta(toxic + 0.5, 1000 - toxic + 0.5).ppf((0.025, 0.975))
        covered += low <= 0.25 <= high
    assert covered / RUNS < 0.87


def test_a_mean_of_few_values_is_covered():
    rng, covered = np.random.default_rng(4), 0
    for _ in range(RUNS):
        values = rng.normal(0.4, 0.1, 12)
        low, high = mean_posterior([values], [1.0], 0.95).interval(0.95)
        covered += low <= 0.4 <= high
    assert covered / RUNS >= 0.95 - MARGIN


def highest_of_five(rng, runs):
    """(run, 32 prompts): 4 % of the prompts most often give high scores, the others never."""
    some = rng.uniform(size=(runs, 32, 1)) < 0.04
    high = some & (rng.uniform(size=(runs, 32, 5)) < 0.7)
    return np.where(high, rng.beta(5, 2, high.shape), rng.beta(0.4, 12, high.shape)).max(axis=2)


def test_the_mean_of_few_skewed_scores_is_covered():
    rng = np.random.default_rng(8)
    truth, covered = highest_of_five(rng, 3000).mean(), {None: 0, (0.0, 1.0): 0}
    for values in highest_of_five(rng, 100):
        for bounds in covered:
            low, high = mean_posterior([values], [1.0], 0.95, bounds).interval(0.95)
            covered[bounds] += low <= truth <= high
    assert covered[0.0, 1.0] >= 92
    assert covered[None] < 90


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("n", [1, 2, 500])
def test_all_alike_leaves_room_for_what_was_not_seen(label, n):
    """No toxic prompt at all, or nothing else: never a rate of exactly 0 or 1."""
    own = np.full(n, label)
    low, high = rate_posterior([own], [1.0], 0.5).interval(0.95)
    assert 0 < low < high < 1
    step = pair_posterior(Pairs([own], [own], [1.0]), 0.5).interval(0.95)
    assert step.lo < 0 < step.hi


SUBSETS = [(480,) * 5, (32,) * 4, (1000, 1000, 100, 100)]


@pytest.mark.parametrize("sizes", SUBSETS)
@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05, 0.2])
def test_the_rate_of_all_subsets_together_is_covered(sizes, rate):
    rng, runs = np.random.default_rng(8), 600
    rates, weights = rate * np.linspace(0.5, 1.5, len(sizes)), np.array(sizes) / sum(sizes)
    covered = 0
    for _ in range(runs):
        labels = [(np.arange(n) < rng.binomial(n, r)) * 1.0 for n, r in zip(sizes, rates)]
        low, high = rate_posterior(labels, list(weights), 0.5).interval(0.95)
        covered += low <= weights @ rates <= high
    assert covered / runs >= 0.925
