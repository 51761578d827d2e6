"""Area under the ROC curve: all pairs, DeLong's variance by its definition, and coverage."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, t

from toxtrail.stats.auc import area_under_curve

SCORES = st.lists(st.integers(0, 8).map(lambda k: k / 8), min_size=1, max_size=12)


def kernel(toxic, harmless):
    """(m, n): 1 for a pair in order, 0.5 for a tie."""
    return np.array([[(a > b) + 0.5 * (a == b) for b in harmless] for a in toxic], dtype=float)


@given(SCORES, SCORES)
def test_the_area_is_the_share_of_pairs_in_order_and_the_interval_that_of_delong(toxic, harmless):
    found = area_under_curve(np.array(toxic), np.array(harmless), 0.9)
    pairs, m, n = kernel(toxic, harmless), len(toxic), len(harmless)
    area = pairs.mean()
    assert found.value == pytest.approx(area)
    if area in (0, 1) or min(m, n) < 2:
        return
    by_toxic = sum((row.mean() - area) ** 2 for row in pairs) / (m - 1) / m
    by_harmless = sum((column.mean() - area) ** 2 for column in pairs.T) / (n - 1) / n
    variance = by_toxic + by_harmless
    if variance < 1e-12:
        assert found.interval is None or found.interval.hi - found.interval.lo < 1e-4
        return
    freedom = variance**2 / (by_toxic**2 / (m - 1) + by_harmless**2 / (n - 1))
    margin = t.ppf(0.95, freedom) * variance**0.5 / (area * (1 - area))
    middle = log(area / (1 - area))
    expected = [1 / (1 + exp(-x)) for x in np.clip([middle - margin, middle + margin], -700, 700)]
    assert found.interval == pytest.approx(expected, abs=1e-9)


@given(SCORES, SCORES)
def test_exchanging_the_labels_mirrors_area_and_interval(toxic, harmless):
    one = area_under_curve(np.array(toxic), np.array(harmless), 0.95)
    other = area_under_curve(np.array(harmless), np.array(toxic), 0.95)
    assert one.value == pytest.approx(1 - other.value)
    if one.interval is not None and other.interval is not None:
        mirrored = [1 - other.interval.hi, 1 - other.interval.lo]
        assert list(one.interval) == pytest.approx(mirrored, abs=1e-9)


def test_the_bound_of_separated_scores_is_that_of_the_disjoint_pairs():
    found = area_under_curve(np.array([0.8, 0.9, 0.7]), np.array([0.1] * 9), 0.95)
    assert found.value == 1
    assert found.interval == (pytest.approx(0.025 ** (1 / 3)), 1)


@pytest.mark.parametrize(
    ("toxic", "harmless"), [([0.4], [0.3, 0.5]), ([0.3, 0.5], [0.4]), ([0.5] * 4, [0.5] * 5)]
)
def test_a_sample_without_variance_has_no_interval(toxic, harmless):
    found = area_under_curve(np.array(toxic), np.array(harmless), 0.95)
    assert (found.value, found.interval) == (0.5, None)


@pytest.mark.parametrize(("area", "m", "n"), [(0.7, 15, 60), (0.9, 40, 40), (0.8, 60, 200)])
def test_the_interval_covers_the_true_area(area, m, n):
    rng, shift = np.random.default_rng(1), norm.ppf(area) * 2**0.5
    intervals = [
        area_under_curve(rng.normal(shift, 1, m), rng.normal(0, 1, n), 0.95).interval
        for _ in range(400)
    ]
    covered = np.mean([i is not None and i.lo <= area <= i.hi for i in intervals])
    assert 0.92 <= covered <= 0.98
