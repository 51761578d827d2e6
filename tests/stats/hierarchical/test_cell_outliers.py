"""One cell that is no draw of the others' distribution is found, and cells that are, are not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from toxtrail.stats.hierarchical.cell_outliers import contradictions
from toxtrail.stats.hierarchical.model import count_labels


def simulated(rates, prompts, seed, effect=1.5):
    rng = np.random.default_rng(seed)
    middle = np.log(rates / (1 - rates)) * 1.3
    return count_labels(
        [
            (rng.random((prompts, len(rates))) < expit(middle[:, s] + effect * u)).astype(float)
            for s, u in enumerate(rng.standard_normal((rates.shape[1], prompts, 1)))
        ]
    )


def fired(rates, prompts, runs, odd=None):
    """Share of runs in which a cell is called odd, after Bonferroni; of the named one if any."""
    found = []
    for seed in range(runs):
        p = contradictions(simulated(rates, prompts, seed)).p
        own = p.min() if odd is None else p[odd]
        found.append(own * p.size < 0.05)
    return np.mean(found)


FLAT = np.full((4, 4), 0.15)
ADDITIVE = expit(-1.8 + np.array([0, 0.3, 2.5, -0.5])[:, None] + np.array([-0.5, 0.3, 0.5, -0.3]))


@pytest.mark.parametrize("rates", [FLAT, ADDITIVE, FLAT[:3], FLAT[:, :2], ADDITIVE[:2]])
@pytest.mark.parametrize("prompts", [20, 100])
def test_variants_that_differ_alike_in_all_subsets_raise_no_alarm(rates, prompts):
    assert fired(rates, prompts, 60) <= 0.05


def test_a_variant_that_changed_in_all_subsets_but_one_is_found():
    rates = FLAT.copy()
    rates[3, :3] = 0.8
    assert fired(rates, 32, 30, odd=(3, 3)) >= 0.8


def test_a_variant_that_changed_in_one_subset_alone_is_found():
    rates = FLAT.copy()
    rates[2, 1] = 0.5
    assert fired(rates, 100, 30, odd=(2, 1)) >= 0.8


def test_order_and_the_names_of_rows_and_columns_do_not_matter():
    counts = simulated(ADDITIVE, 50, 3)
    p, expected = contradictions(counts)
    v, s = [2, 0, 3, 1], [1, 3, 0, 2]
    moved = counts._replace(
        toxic=counts.toxic[v][:, s],
        together=counts.together[s],
        both=counts.both[s][:, v][:, :, v],
    )
    again = contradictions(moved)
    assert again[0] == pytest.approx(p[v][:, s], abs=1e-9)
    assert again[1] == pytest.approx(expected[v][:, s], abs=1e-9)


@pytest.mark.parametrize("toxic", [0, 1])
def test_subsets_in_which_all_or_none_are_toxic_raise_no_alarm(toxic):
    p = contradictions(count_labels([np.full((12, 3), float(toxic))] * 3)).p
    assert np.isfinite(p).all()
    assert p.min() > 0.05
