"""What may be said of the largest of many differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import betaincc, expit

from toxtrail.stats.bayesian_bootstrap import weighted_mean
from toxtrail.stats.highest_density import highest_density
from toxtrail.stats.paired_posterior import PairedPosterior, PairTable
from toxtrail.stats.selection_correction import (
    expected_by_chance,
    expected_wrong_signs,
    simultaneous_level,
)


def test_one_difference_needs_no_correction():
    assert simultaneous_level(0.95, 1) == pytest.approx(0.95)
    assert simultaneous_level(0.95, 5) == pytest.approx(0.99)


def test_of_forty_differences_two_are_called_by_chance():
    assert expected_by_chance(0.95, 40) == pytest.approx(2)
    assert expected_wrong_signs([0.99, 0.98]) == pytest.approx(0.03)
    assert expected_wrong_signs([]) == 0


@pytest.mark.parametrize("variants", [2, 8, 28])
def test_no_variant_is_named_in_more_than_a_twentieth_of_families_without_effects(variants):
    """Variants share their prompts' effects, and one base."""
    rng, runs, n = np.random.default_rng(variants), 400, 128
    chance = expit(-3 + 2 * rng.standard_normal((runs, 1, n)))
    base = rng.random((runs, 1, n)) < chance
    tuned = rng.random((runs, variants - 1, n)) < chance
    n01, n10 = (tuned & ~base).sum(-1), (base & ~tuned).sum(-1)
    higher = betaincc(n01 + 0.5, n10 + 0.5, 0.5)
    level = simultaneous_level(0.95, variants - 1)
    assert (higher.max(axis=1) > (1 + level) / 2).mean() <= 0.05
    if variants == 28:
        assert (higher.max(axis=1) > 0.975).mean() > 0.15


@pytest.mark.parametrize("table", [(3, 0, 2, 100), (5, 4, 9, 14), (0, 0, 0, 32), (9, 60, 3, 400)])
def test_the_highest_density_interval_is_the_shortest_that_holds_its_mass(table):
    own = PairedPosterior(PairTable(*map(float, table)), 0.5)
    dense, equal = highest_density(own, 0.95), own.interval(0.95)
    assert own.cdf(dense.hi) - own.cdf(dense.lo) == pytest.approx(0.95, abs=1e-3)
    assert dense.hi - dense.lo <= equal.hi - equal.lo
    for step in (-0.01, 0.01):
        lower = own.cdf(dense.lo) + step
        if 0 < lower < 0.05:
            shifted = (own_quantile(own, lower), own_quantile(own, lower + 0.95))
            assert dense.hi - dense.lo <= (shifted[1] - shifted[0]) * 1.002


def own_quantile(own, mass):
    low, high = -1.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if own.cdf(middle) < mass else (low, middle)
    return low


def test_exchanging_the_variants_mirrors_the_highest_density_interval():
    own = PairedPosterior(PairTable(5.0, 4.0, 9.0, 14.0), 0.5)
    lo, hi = highest_density(own, 0.9)
    assert highest_density(own.mirrored, 0.9) == (-hi, -lo)


def test_a_mean_of_two_values_has_the_highest_density_interval_of_its_beta():
    own = weighted_mean(np.array([0.0, 1.0]), np.array([3.0, 9.0]))
    beta = stats.beta(9, 3)
    lower = np.linspace(1e-6, 0.05 - 1e-6, 4001)
    widths = beta.ppf(lower + 0.95) - beta.ppf(lower)
    best = lower[widths.argmin()]
    assert highest_density(own, 0.95) == pytest.approx(
        (beta.ppf(best), beta.ppf(best + 0.95)), abs=2e-3
    )
