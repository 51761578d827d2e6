"""The predictive checks: what the model would have produced passes, what it would not does not."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from toxtrail.stats.hierarchical.checks import (
    UNLIKE_PAIRS,
    UNLIKE_SUBSETS,
    predictive_checks,
    replicated,
    row_misfits,
)
from toxtrail.stats.hierarchical.model import count_labels

ETA, PROMPTS = np.full((4, 3), -2.5), np.array([120, 120, 120])


def labels(seed, of=(0, 0, 0, 0), scales=(2.0, 2.0, 2.0)):
    """Of each subset, (prompt, variant).

    Args:
        of: whose prompt effect a variant has.
        scales: standard deviation of prompt effects, of each subset.
    """
    rng = np.random.default_rng(seed)
    found = []
    for s, n in enumerate(PROMPTS):
        effects = rng.standard_normal((n, 4))[:, list(of)]
        chance = expit(ETA[:, s] + scales[s] * effects)
        found.append((rng.random(chance.shape) < chance).astype(float))
    return found


def predicted(scale, draws=300):
    rng = np.random.default_rng(0)
    near = np.repeat(ETA[None], draws, axis=0) + rng.normal(0, 0.15, (draws, *ETA.shape))
    return replicated(near, np.full(draws, scale), PROMPTS, rng)


SAME, LESS = predicted(2.0), predicted(1.2)


def p_of(own, statistic, data):
    return next(c.p for c in predictive_checks(count_labels(own), data) if c.statistic == statistic)


def share(statistic, data, **truth):
    return np.mean([p_of(labels(seed, **truth), statistic, data) < 0.005 for seed in range(12)])


def test_shared_prompt_effects_pass():
    assert share(UNLIKE_PAIRS, SAME) == share(UNLIKE_SUBSETS, SAME) == 0


def test_two_groups_of_variants_with_prompt_effects_of_their_own_are_found():
    """The sum over pairs fits: sd_prompt lies between."""
    assert share(UNLIKE_PAIRS, LESS, of=(0, 0, 1, 1)) >= 0.8


def test_a_subset_without_shared_effects_is_found():
    assert share(UNLIKE_SUBSETS, LESS, scales=(0.0, 3.5, 3.5)) >= 0.8


def test_a_row_whose_joint_counts_are_off_is_named_and_no_other():
    own = labels(1)
    own[2][:, 3] = own[2][:, 0]  # on one subset the same as another variant
    own[2][:40, [0, 3]] = 1
    found = row_misfits(count_labels(own), SAME, [(0, 1), (0, 2), (0, 3)])
    assert (2, 2, "n11") in {(one.pair, one.subset, one.statistic) for one in found}
    assert {one.subset for one in found} == {2}
    assert row_misfits(count_labels(labels(1)), SAME, [(0, 1), (0, 2), (0, 3)]) == []
    assert row_misfits(count_labels(own), SAME, []) == []
