"""The density that is sampled is the one that PyMC derives from the model."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from toxtrail.stats.hierarchical import model as hierarchical_model
from toxtrail.stats.hierarchical.density import family_of
from toxtrail.stats.hierarchical.seed_effects import recipes_of
from toxtrail.stats.sampling import SamplerSettings

pytestmark = pytest.mark.slow

SHAPES = [
    (2, (9,), None),
    (3, (12, 8, 5), None),
    (4, (20, 7), ["a", None, "a", "b"]),
    (5, (6, 30), ["a", "b", "a", "b", "a"]),
    (3, (15,), ["a", "a", "a"]),
    (70, (40, 30), None),
]
"""The last has products over variants beyond the range of numbers."""


def counted(variants, prompts, named=None):
    rng = np.random.default_rng(variants)
    labels = [(rng.random((n, variants)) < 0.3).astype(float) for n in prompts]
    return hierarchical_model.count_labels(labels, recipes_of(named or []) if named else None)


NUMBERS = ctypes.POINTER(ctypes.c_double)
SIGNATURE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, *[NUMBERS] * 4)


def made(counts):
    """The family, and what the machine code says of a position."""
    from toxtrail.stats.hierarchical.compiled import target

    family = family_of(counts, hierarchical_model.PRIOR_MU)
    own = target(counts, family, hierarchical_model.PROMPT_NODES, hierarchical_model.WEIGHTS)
    code = SIGNATURE(own.density.address)

    def density(position):
        gradient, value = np.zeros(own.size), np.zeros(1)
        places = [a.ctypes.data_as(NUMBERS) for a in (position, gradient, value, own.data)]
        assert code(own.size + 1, *places) < 0
        finite = code(own.size, *places) == 0
        assert finite == (np.isfinite(value[0]) and np.isfinite(gradient).all())
        return value[0], gradient

    return family, density


@pytest.mark.parametrize(("variants", "prompts", "named"), SHAPES)
def test_the_gradient_is_that_of_the_density(variants, prompts, named):
    family, own = made(counted(variants, prompts, named))
    for seed in range(3):
        at, step = family.start(seed), 1e-6
        numeric = [(own(at + e)[0] - own(at - e)[0]) / (2 * step) for e in np.eye(at.size) * step]
        assert own(at)[1] == pytest.approx(np.array(numeric), rel=1e-6, abs=1e-5)


@pytest.mark.parametrize(("variants", "prompts", "named"), SHAPES)
def test_the_density_is_that_of_the_model(variants, prompts, named):
    """Likelihood of the named parameters, standard normals and half-normals on their logarithms."""
    counts = counted(variants, prompts, named)
    family, own = made(counts)
    for seed in range(3):
        at = family.start(seed)
        draws = family.named(at[None, None])
        (likelihood,) = hierarchical_model.log_likelihood(
            counts, draws["eta"][0], draws["sd_prompt"][0]
        )
        logs, z = at[: len(family.scales)], at[len(family.scales) :]
        prior = (logs - 0.5 * np.exp(2 * logs)).sum() - 0.5 * (z**2).sum()
        assert own(at)[0] == pytest.approx(likelihood + prior, abs=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(("variants", "prompts", "named"), SHAPES)
def test_the_prior_of_the_effects_is_that_of_the_model(variants, prompts, named):
    """Mean and covariance of eta, given the scales, against PyMC's own draws."""
    import pymc as pm

    counts = counted(variants, prompts, named)
    family = family_of(counts, hierarchical_model.PRIOR_MU)
    fixed = dict(zip(_scale_names(counts), family.scales, strict=True))
    model = hierarchical_model.build(counts)
    given = {model[n]: v for n, v in _as_given(fixed, counts).items() if n in model.named_vars}
    eta = pm.do(model, given)["eta"]
    theirs = pm.draw(eta, 4000, random_seed=1, mode="FAST_COMPILE").reshape(4000, -1)
    w = family.factors(family.scales)
    covariance = (family.design * w**2) @ family.design.T
    assert theirs.mean(axis=0) == pytest.approx(np.full(len(covariance), -5.0), abs=0.2)
    assert np.cov(theirs.T) == pytest.approx(covariance, abs=0.07 * covariance.max())


def _scale_names(counts):
    recipes = [f"sd_recipe {n}" for n in counts.recipes.names] if counts.recipes else []
    more = ["sd_interaction"] if counts.toxic.shape[1] > 1 else []
    return ["sd_prompt", "sd_variant", *recipes, *more]


def _as_given(fixed, counts):
    found = {n: v for n, v in fixed.items() if not n.startswith("sd_recipe ")}
    own = [v for n, v in fixed.items() if n.startswith("sd_recipe ")]
    return {**found, **({"sd_recipe": np.array(own)} if own else {})}


def test_positions_far_out_have_no_density_and_no_warning():
    family, own = made(counted(3, (12, 8)))
    for far in (7.0, 300.0, -300.0):
        value, gradient = own(np.full(family.size, far))
        assert value == -np.inf or np.isfinite(gradient).all()


def test_a_longer_run_begins_with_the_draws_of_a_shorter_one():
    counts = counted(3, (12, 8))
    short, long = (
        hierarchical_model.sample_posterior(counts, SamplerSettings(2, n, 0.9, 5))
        for n in (50, 120)
    )
    for name, values in short.posterior.items():
        assert np.array_equal(values, long.posterior[name][:, :50])
    assert np.array_equal(short.energy, long.energy[:, :50])
