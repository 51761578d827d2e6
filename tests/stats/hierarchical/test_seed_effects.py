"""Recipes: who is of one, what the level adds, and that a planted spread is found."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from toxtrail.stats.hierarchical import model as hierarchical_model
from toxtrail.stats.hierarchical.model import (
    build,
    count_labels,
    prior_draws,
    sample_posterior,
    seed_sd,
)
from toxtrail.stats.hierarchical.seed_effects import recipes_of
from toxtrail.stats.sampling import SamplerSettings, diagnose, settle

NAMES = [None, "x", "x", "y", "x", None, "y", "alone"]


def test_a_recipe_needs_two_variants():
    recipes = recipes_of(NAMES)
    assert recipes.names == ("x", "y")
    assert recipes.of.tolist() == [-1, 0, 0, 1, 0, -1, 1, -1]
    assert recipes.members.tolist() == [1, 2, 3, 4, 6]
    assert recipes.groups.tolist() == [2, 0, 0, 1, 0, 3, 1, 4]
    assert recipes_of([None, "x", "y"]) is None


def labels(spreads, n, rng):
    """One base, and fine-tunes of one recipe that deviate so from each other."""
    eta = np.array([-2.5, *(-1.5 + np.asarray(spreads))])
    ease = 1.0 * rng.standard_normal((n, 1))
    return (rng.random((n, len(eta))) < expit(eta + ease)).astype(float)


def names_of(model):
    return [variable.name for variable in model.free_RVs]


def test_without_a_recipe_the_model_is_the_one_it_always_was():
    rng = np.random.default_rng(1)
    own = [labels([0.0, 0.1], 60, rng), labels([0.0, 0.1], 50, rng)]
    assert names_of(build(count_labels(own))) == [
        "sd_variant", "raw_variant", "mu", "sd_interaction", "raw_interaction", "subset_effect",
        "sd_prompt",
    ]  # fmt: skip
    assert count_labels(own).recipes is None
    eta, hyper = prior_draws(3, 2, 5, np.random.default_rng(4))
    again = prior_draws(3, 2, 5, np.random.default_rng(4), None)
    assert (eta == again[0]).all()
    assert set(hyper) == {"mu", "sd_variant", "sd_prompt", "sd_interaction"}


@pytest.mark.slow
def test_prior_draws_are_those_of_the_model():
    import pymc as pm

    recipes = recipes_of([None, "x", "x", "x"])
    rng = np.random.default_rng(1)
    model = build(count_labels([labels([0, 0, 0], 40, rng)], recipes))
    with model:
        wanted = [model["eta"], model["sd_recipe"]]
        drawn = pm.draw(wanted, 4000, random_seed=1, mode="FAST_COMPILE")
    eta, hyper = prior_draws(4, 1, 4000, np.random.default_rng(2), recipes)
    pairs = [
        (drawn[0][:, 0, 0], eta[:, 0, 0]),
        (drawn[0][:, 1, 0], eta[:, 1, 0]),
        (drawn[0][:, 1, 0] - drawn[0][:, 2, 0], eta[:, 1, 0] - eta[:, 2, 0]),
        (drawn[0][:, 0, 0] - drawn[0][:, 1, 0], eta[:, 0, 0] - eta[:, 1, 0]),
        (drawn[1][:, 0], hyper["sd_recipe"][:, 0]),
    ]
    for theirs, own in pairs:
        assert stats.ks_2samp(own, theirs).pvalue > 1e-4


def test_the_spread_of_draws_is_that_of_fine_tunes_made_from_them():
    """Against a plain simulation of many fine-tunes."""
    recipes, rng = recipes_of([None, "x", "x"]), np.random.default_rng(5)
    seed = rng.standard_normal((1, 1, 2))
    sd = np.array([[[0.4]]])
    centre = np.array([-2.0, -1.0])
    eta = np.empty((1, 1, 3, 2))
    eta[0, 0, 0] = -3.0
    eta[0, 0, 1:] = centre + 0.4 * seed[0, 0, :, None]
    draws = {"eta": eta, "sd_prompt": np.array([[1.2]]), "sd_recipe": sd, "raw_seed": seed}
    share = np.array([0.25, 0.75])
    found = seed_sd(recipes, draws, share, 1)
    many = centre + 0.4 * rng.standard_normal((20_000, 1))
    rate = hierarchical_model.marginal_rates(many[None], np.array([1.2]))[0] @ share
    assert found[0, 0] == pytest.approx(rate.std(), rel=0.03)


def fitted(spreads, seed, n=1200):
    recipes = recipes_of([None, *["x"] * len(spreads)])
    counts = count_labels([labels(spreads, n, np.random.default_rng(seed))], recipes)
    settled = settle(
        partial(sample_posterior, counts),
        lambda drawn: diagnose(drawn, ["mu", "sd_variant", "sd_prompt", "sd_recipe"], {}, 0.95),
        SamplerSettings(4, 3000, 0.97, seed),
        3000,
    )
    flat = 4 * settled.effort.draws
    spread = seed_sd(recipes, settled.drawn.posterior, np.ones(1), flat)
    return spread[:, 0], settled.wrong


@pytest.mark.slow
def test_a_planted_spread_between_seeds_is_found_and_equal_seeds_have_none():
    deviations = np.array([-0.6, -0.2, 0.1, 0.3, 0.7, -0.4])
    spread, wrong = fitted(deviations, 3)
    assert wrong == []
    true = expit(-1.5 + deviations).std(ddof=1)  # without prompts' own effects: near enough
    lo, hi = np.quantile(spread, [0.025, 0.975])
    assert lo < true < hi
    assert lo > 0.02
    same, wrong = fitted(np.zeros(6), 4)
    assert wrong == []
    assert np.median(same) < 0.015
    assert np.quantile(same, 0.025) < 0.005


@pytest.mark.slow
def test_the_interval_of_the_spread_covers_what_was_planted():
    """Eight recipes drawn from the prior of the model's own level: at least five in the 90 %
    interval (fewer would be p < .01)."""
    rng, inside = np.random.default_rng(11), 0
    for number in range(8):
        sd = abs(rng.normal(0, 0.5))
        recipes = recipes_of([None, "x", "x", "x", "x"])
        counts = count_labels([labels(sd * rng.standard_normal(4), 600, rng)], recipes)
        drawn = sample_posterior(counts, SamplerSettings(2, 800, 0.95, 100 + number))
        lo, hi = np.quantile(drawn.posterior["sd_recipe"], [0.05, 0.95])
        inside += lo < sd < hi
    assert inside >= 5
