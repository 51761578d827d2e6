"""Doses: the slope is the one that was planted, and nothing is claimed where nothing was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from toxtrail.stats.dose_response import is_monotone, paired_rates, slopes

DOSES = np.array([0.0, 1.0, 2.0, 4.0])


def labels(slope, n, rng, spread=1.0):
    """(prompt, variant): prompts differ in how easily they lead to something toxic."""
    ease = spread * rng.standard_normal((n, 1))
    return (rng.random((n, len(DOSES))) < expit(-2.0 + slope * DOSES + ease)).astype(float)


def found(slope, seed, n=600):
    own = labels(slope, n, np.random.default_rng(seed))
    draws = slopes(paired_rates([own], [1.0], 0.5, 2000, seed), DOSES)
    return np.quantile(draws, [0.025, 0.975])


def test_the_slope_of_exact_rates_is_exact():
    rates = expit(-3.0 + 0.7 * DOSES)[None]
    assert slopes(rates, DOSES) == pytest.approx([0.7])


def test_a_planted_slope_is_found_and_a_flat_one_is_not():
    lo, hi = found(0.4, 1)
    assert 0 < lo < 0.4 < hi < 0.6
    lo, hi = found(0.0, 2)
    assert lo < 0 < hi


def test_false_slopes_are_as_rare_as_the_level_says():
    """95 % intervals: of 100 flat series some 5 exclude 0; more than 12 would be p < .002."""
    wrong = sum(not lo < 0 < hi for lo, hi in (found(0.0, 100 + i, n=300) for i in range(100)))
    assert wrong <= 12


@given(st.lists(st.floats(0.01, 0.99), min_size=4, max_size=4), st.floats(0.1, 50))
def test_another_unit_of_dose_rescales_the_slope(rates, unit):
    row = np.array([rates])
    assert slopes(row, unit * DOSES) * unit == pytest.approx(slopes(row, DOSES), abs=1e-9)


def test_a_rate_of_zero_is_no_infinity():
    assert np.isfinite(slopes(np.array([[0.0, 0.1, 0.2, 1.0]]), DOSES)).all()


def test_it_never_falls_if_the_means_of_each_dose_rise():
    doses = np.array([0.0, 1.0, 1.0, 2.0])
    rates = np.array([[0.1, 0.5, 0.1, 0.4], [0.1, 0.5, 0.1, 0.2]])
    assert is_monotone(rates, doses).tolist() == [1.0, 0.0]


def test_subsets_weigh_as_they_are_told():
    parts = [np.zeros((400, 2)), np.ones((400, 2))]
    draws = paired_rates(parts, [0.25, 0.75], 0.5, 500, 1)
    assert draws.mean(axis=0) == pytest.approx([0.75, 0.75], abs=0.005)
