"""BEST repeats what was published, and the trap in it is shown."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from toxtrail.errors import DataError
from toxtrail.stats.bayes_libraries import NutsSettings
from toxtrail.stats.best import (
    HYPER,
    LOCATIONS,
    WARNING,
    compile_best,
    location_difference,
    sample_best,
)
from toxtrail.stats.paired_differences import Pairs, pair_posterior, verdict
from toxtrail.stats.sampling import SamplerSettings, diagnose, settle

EFFORT = SamplerSettings(4, 2000, 0.9, 1)


def scores(n, rate, shift, rng):
    """A pile near 0, moved by `shift` logits, and a share of toxic ones above 0.5."""
    found = 1 / (1 + np.exp(-rng.normal(-5 + shift, 1, n)))
    toxic = np.arange(n) < round(rate * n)
    return np.where(toxic, rng.uniform(0.5, 1, n), found)


@pytest.fixture(scope="module")
def model():
    return compile_best()


def fitted(model, a, b):
    def assess(drawn):
        return diagnose(drawn, HYPER, {name: drawn.posterior[name] for name in LOCATIONS}, 0.95)

    settled = settle(partial(sample_best, model, a, b), assess, EFFORT, EFFORT.draws)
    assert settled.wrong == []
    return location_difference(settled.drawn, a, b, 0.5, 0.95, np.random.default_rng(0))


def by_rates(a, b):
    own = Pairs([(a >= 0.5) * 1.0], [(b >= 0.5) * 1.0], [1.0])
    return verdict(pair_posterior(own, 0.5).interval(0.95))


@pytest.mark.slow
def test_where_scores_are_what_it_assumes_it_finds_the_difference(model):
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.4, 0.05, 300), rng.normal(0.45, 0.05, 300)
    found = fitted(model, a, b)
    assert found.mean == pytest.approx(b.mean() - a.mean(), abs=0.005)
    assert found.verdict == "higher"
    assert found.fits


@pytest.mark.slow
def test_the_trap_it_misses_ten_times_as_many_toxic_texts(model):
    rng = np.random.default_rng(1)
    a, b = scores(2400, 0.01, 0, rng), scores(2400, 0.10, 0, rng)
    found = fitted(model, a, b)
    assert abs(found.mean) < 0.002
    assert not found.fits
    assert by_rates(a, b) == "higher"


@pytest.mark.slow
def test_the_trap_it_is_sure_of_a_difference_where_rates_are_equal(model):
    rng = np.random.default_rng(1)
    a, b = scores(2400, 0.05, 0, rng), scores(2400, 0.05, 0.2, rng)
    found = fitted(model, a, b)
    assert found.verdict == "higher"
    assert not found.fits
    assert by_rates(a, b) == "not decisive"


@pytest.mark.parametrize(
    ("a", "b"), [([0.1], [0.1, 0.2]), ([], [0.1, 0.2]), ([0.2, 0.2], [0.2, 0.2])]
)
def test_too_little_is_refused(a, b):
    with pytest.raises(DataError, match="at least two scores"):
        sample_best(None, np.array(a, float), np.array(b, float), EFFORT)


def test_the_warning_says_what_to_do():
    assert "not paired" in WARNING


@pytest.mark.slow
def test_it_covers_the_difference_of_what_it_assumes_and_not_that_of_rates(model):
    """Pairs of Student-t samples, and of scores whose rates differ by two points: the
    location is covered, the difference of rates never is."""
    rng, n, runs = np.random.default_rng(11), 150, 40

    def interval(a, b, seed):
        data = {"a": (a - 0.4) / 0.1, "b": (b - 0.4) / 0.1}
        found = model.sample(data, NutsSettings(300, 300, 1, seed, 0.9)).posterior
        return np.quantile(0.1 * (found["mu_b"] - found["mu_a"]), [0.025, 0.975])

    covered = 0
    for number in range(runs):
        a, b = 0.4 + 0.05 * rng.standard_t(5, n), 0.42 + 0.08 * rng.standard_t(5, n)
        low, high = interval(a, b, number)
        covered += low <= 0.02 <= high
    assert covered / runs >= 0.85
    held = 0
    for number in range(8):
        low, high = interval(scores(n, 0.05, 0, rng), scores(n, 0.07, 0, rng), number)
        held += low <= 0.02 <= high
    assert held == 0
