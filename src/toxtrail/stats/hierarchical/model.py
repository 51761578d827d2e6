"""The hierarchical model of a family: partial pooling over variants and subsets.

The probability that variant v continues prompt i of subset s toxically depends on both:

    toxic[i, v] ~ Bernoulli(sigmoid(eta[v, s] + sd_prompt u[i]))        u[i] ~ Normal(0, 1)
    eta[v, s]   = mu + subset[s] + variant[v] + interaction[v, s]

    mu          ~ Normal(-5, 2)
    subset      ~ ZeroSumNormal(1.5)
    variant     = sd_variant ZeroSumNormal(1)             sd_variant ~ HalfNormal(1)
    interaction = sd_interaction ZeroSumNormal(1)         sd_interaction ~ HalfNormal(0.5)
    sd_prompt   ~ HalfNormal(2.5)

All variants share a prompt's effect u, which represents the pairing by prompt; u is integrated out.
For a prompt on which exactly j variants are toxic, the likelihood is

    prod_v exp(toxic[i, v] eta[v, s])
      * integral of exp(sd_prompt u j) / prod_v (1 + exp(eta[v, s] + sd_prompt u)) dPhi(u)

so k[v, s], the number of prompts on which v was toxic, and h[s, j], the number of prompts on which
exactly j variants were toxic, are sufficient statistics. With a single subset, the terms `subset`
and `interaction` are omitted.

A family has many comparisons. Estimates that are shrunk towards each other where the data are weak
produce few false claims among them.

If several variants are fine-tunes of one recipe, `variant` has an additional level: see
`seed_effects`.

Source: Gelman, Hill & Yajima 2012, doi:10.1080/19345747.2011.618213.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import expit, logsumexp

from toxtrail.errors import DataError
from toxtrail.stats.bayes_libraries import SampleResult, load_pymc
from toxtrail.stats.hierarchical.density import family_of
from toxtrail.stats.hierarchical.seed_effects import (
    SCALE,
    RecipeGroups,
    prior_effect,
    recipe_means,
    variant_effect,
)
from toxtrail.stats.rates import Floats, Ints
from toxtrail.stats.sampling import SamplerSettings, walk

if TYPE_CHECKING:
    from toxtrail.stats.bayes_libraries import Model

PROMPT_NODES: Floats = np.linspace(-6.0, 6.0, 61)
"""Nodes of the trapezoid rule over u, in standard deviations. The error of 25 Gauss-Hermite nodes
is 20 nats or more at 28 variants."""
WEIGHTS: Floats = np.exp(-0.5 * PROMPT_NODES**2) / np.exp(-0.5 * PROMPT_NODES**2).sum()
"""Weights of PROMPT_NODES; they sum to 1."""
PRIOR_MU = (-5.0, 2.0)
"""Mean and standard deviation of the prior of mu, log-odds of the median prompt (u = 0)."""
HYPER = ("mu", "sd_variant", "sd_interaction", "sd_prompt")
SEED_NODES, SEED_WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
"""Gauss-Hermite rule over the deviation of a fine-tune from its recipe, in standard deviations."""
BLOCK = 200
"""Number of draws processed at once, to limit memory."""


class FamilyCounts(NamedTuple):
    """Counts of V variants on S subsets, for the likelihood and its checks."""

    toxic: Ints
    """Number of prompts on which the variant was toxic, (variant, subset)."""
    together: Ints
    """Number of prompts on which exactly j variants were toxic, (subset, V + 1)."""
    both: Ints
    """Number of prompts on which both variants were toxic, (subset, variant, variant). Only the
    checks use it."""
    recipes: RecipeGroups | None = None
    """Groups of variants that are fine-tunes of one recipe; None without any."""

    @property
    def prompts(self) -> Ints:
        """Number of prompts, (subset,)."""
        sizes: Ints = self.together.sum(axis=1)
        return sizes


def count_labels(labels: Sequence[Floats], recipes: RecipeGroups | None = None) -> FamilyCounts:
    """Reduce labels to counts.

    Args:
        labels: for each subset, (prompt, variant) of 0 and 1; all have the same variants.
        recipes: groups of variants that are fine-tunes of one recipe.

    Raises:
        DataError: a label is neither 0 nor 1, a subset is empty, or there are fewer than two
            variants.
    """
    if any(subset.shape[0] == 0 for subset in labels):
        raise DataError("a subset has no prompt that every variant answered")
    if any(not np.isin(subset, (0, 1)).all() for subset in labels):
        raise DataError("there is more than one continuation for a prompt")
    variants = labels[0].shape[1]
    if variants < 2:
        raise DataError("at least two variants are needed for pooling")
    toxic = np.array([subset.sum(axis=0) for subset in labels]).T
    rows = [np.bincount(s.sum(axis=1).astype(int), minlength=variants + 1) for s in labels]
    both = np.array([subset.T @ subset for subset in labels])
    return FamilyCounts(
        toxic.astype(np.int64), np.array(rows, dtype=np.int64), both.astype(np.int64), recipes
    )


def linear_predictor(
    variants: int, subsets: int, prior_mu: tuple[float, float], recipes: RecipeGroups | None = None
) -> Any:
    """Define `eta`, (variant, subset), with the priors in the module docstring.

    It must be called within the context of a PyMC model with dimensions `variant` and `subset`.

    Args:
        variants: number of variants.
        subsets: number of subsets.
        prior_mu: mean and standard deviation of the prior of mu, log-odds.
        recipes: groups of variants that are fine-tunes of one recipe.
    """
    pm = load_pymc()

    sd_variant = pm.HalfNormal("sd_variant", 1.0)
    if recipes is None:
        variant = sd_variant * pm.ZeroSumNormal("raw_variant", 1.0, dims="variant")
    else:
        variant = variant_effect(recipes, sd_variant)
    mu = pm.Normal("mu", *prior_mu)
    eta = mu + variant[:, None] + np.zeros((variants, subsets))
    if subsets > 1:
        sd_interaction = pm.HalfNormal("sd_interaction", 0.5)
        both = ("variant", "subset")
        raw = pm.ZeroSumNormal("raw_interaction", 1.0, dims=both, n_zerosum_axes=2)
        subset = pm.ZeroSumNormal("subset_effect", 1.5, dims="subset")
        eta = eta + subset[None, :] + sd_interaction * raw
    return pm.Deterministic("eta", eta, dims=("variant", "subset"))


def build(counts: FamilyCounts) -> Model:
    """Build the model in the module docstring, non-centred; `eta` is (variant, subset)."""
    pm = load_pymc()

    variants, subsets = counts.toxic.shape
    coords = {"variant": np.arange(variants), "subset": np.arange(subsets)}
    coords |= counts.recipes.coords if counts.recipes else {}
    with pm.Model(coords=coords) as model:
        eta = linear_predictor(variants, subsets, PRIOR_MU, counts.recipes)
        shift = pm.HalfNormal("sd_prompt", 2.5) * PROMPT_NODES
        tails = -pm.math.log1pexp(eta[:, :, None] + shift).sum(axis=0)  # (subset, node)
        tilt = np.arange(variants + 1)[:, None] * shift  # (j, node)
        integral = pm.math.logsumexp(tails[:, None, :] + tilt + np.log(WEIGHTS), axis=-1)
        toxic = pm.Data("toxic", counts.toxic)  # pm.Data: replaceable without recompilation
        together = pm.Data("together", counts.together)
        pm.Potential("likelihood", (toxic * eta).sum() + (together * integral).sum())
    return model


def sample_posterior(counts: FamilyCounts, effort: SamplerSettings) -> SampleResult:
    """Sample the posterior of the model of `build`, with the same variable names."""
    from toxtrail.stats.hierarchical.compiled import target

    family = family_of(counts, PRIOR_MU)
    positions, samples = walk(target(counts, family, PROMPT_NODES, WEIGHTS), family.start, effort)
    return samples._replace(posterior=family.named(positions))


def marginal_rates(eta: Floats, sd_prompt: Floats) -> Floats:
    """Return rates over the population of prompts (integrated over u), in [0, 1], (draw, variant,
    subset).

    Args:
        eta: (draw, variant, subset).
        sd_prompt: (draw,).
    """
    rates = np.empty_like(eta)
    for start in range(0, len(eta), BLOCK):
        part = slice(start, start + BLOCK)
        shift = sd_prompt[part, None, None, None] * PROMPT_NODES
        rates[part] = expit(eta[part, ..., None] + shift) @ WEIGHTS
    return rates


def seed_sd(recipes: RecipeGroups, draws: Mapping[str, Floats], share: Floats, flat: int) -> Floats:
    """Return the standard deviation, among fine-tunes of a recipe, of the rate over all subsets,
    in [0, 1], (draw, recipe). It refers to the population of possible fine-tunes, not to the
    fine-tunes in the data.

    Args:
        recipes: groups of variants that are fine-tunes of one recipe.
        draws: name -> (chain, draw, ...) of the posterior.
        share: weights of the subsets, (subset,).
        flat: number of draws of all chains together.
    """
    flat_draws = {
        name: draws[name].reshape(flat, *draws[name].shape[2:])
        for name in ("eta", "sd_prompt", "sd_recipe", "raw_seed")
    }
    middle = recipe_means(
        recipes, flat_draws["eta"], flat_draws["sd_recipe"], flat_draws["raw_seed"]
    )
    weights = SEED_WEIGHTS / SEED_WEIGHTS.sum()
    deviations = []
    for recipe, centre in enumerate(middle):
        apart = flat_draws["sd_recipe"][:, recipe, None] * SEED_NODES  # (draw, node)
        rate = marginal_rates(centre[:, None] + apart[:, :, None], flat_draws["sd_prompt"]) @ share
        around = rate - (rate @ weights)[:, None]
        deviations.append(np.sqrt((around**2) @ weights))
    result: Floats = np.stack(deviations, axis=1)
    return result


def prior_draws(
    variants: int,
    subsets: int,
    draws: int,
    rng: np.random.Generator,
    recipes: RecipeGroups | None = None,
) -> tuple[Floats, dict[str, Floats]]:
    """Sample the prior.

    Args:
        variants: number of variants.
        subsets: number of subsets.
        draws: number of draws.
        rng: random generator.
        recipes: groups of variants that are fine-tunes of one recipe.

    Returns:
        eta, (draw, variant, subset), and hyper-parameter -> (draw,), or (draw, recipe) for
        sd_recipe.
    """
    hyper = {
        "mu": rng.normal(-5.0, 2.0, draws),
        "sd_variant": np.abs(rng.normal(0, 1.0, draws)),
        "sd_prompt": np.abs(rng.normal(0, 2.5, draws)),
    }
    if recipes is None:
        variant = _zero_sum(rng.standard_normal((draws, variants)), (1,))
        variant = hyper["sd_variant"][:, None] * variant
    else:
        variant, hyper["sd_recipe"] = prior_effect(recipes, hyper["sd_variant"], rng)
    eta = hyper["mu"][:, None, None] + variant[:, :, None]
    eta = np.repeat(eta, subsets, axis=2)
    if subsets > 1:
        hyper["sd_interaction"] = np.abs(rng.normal(0, 0.5, draws))
        both = _zero_sum(rng.standard_normal((draws, variants, subsets)), (1, 2))
        subset = _zero_sum(rng.normal(0, 1.5, (draws, subsets)), (1,))
        eta = eta + subset[:, None, :] + hyper["sd_interaction"][:, None, None] * both
    return eta, hyper


def log_prior(draws: Mapping[str, Floats]) -> Floats:
    """Return the log prior density of the hyper-parameters and the subset effects, up to a
    constant, (chain, draw).

    Effects whose scale is a hyper-parameter are excluded, because power-scaling measures the
    sensitivity to the priors at the top of the hierarchy.

    Args:
        draws: name -> (chain, draw, ...) of the posterior.
    """
    log_density = -0.5 * ((draws["mu"] + 5.0) / 2.0) ** 2
    for name, scale in (("sd_variant", 1.0), ("sd_interaction", 0.5), ("sd_prompt", 2.5)):
        if name in draws:
            log_density = log_density - 0.5 * (draws[name] / scale) ** 2
    if "sd_recipe" in draws:
        log_density = log_density - 0.5 * ((draws["sd_recipe"] / SCALE) ** 2).sum(axis=-1)
    if "subset_effect" in draws:
        log_density = log_density - 0.5 * ((draws["subset_effect"] / 1.5) ** 2).sum(axis=-1)
    return log_density


def log_likelihood(counts: FamilyCounts, eta: Floats, sd_prompt: Floats) -> Floats:
    """Return the log likelihood of the data, up to a constant, (draw,).

    Args:
        counts: the data.
        eta: (draw, variant, subset).
        sd_prompt: (draw,).
    """
    log_density = np.empty(len(eta))
    j = np.arange(counts.together.shape[1])
    for start in range(0, len(eta), BLOCK):
        part = slice(start, start + BLOCK)
        shift = sd_prompt[part, None] * PROMPT_NODES  # (draw, node)
        tails = -np.logaddexp(0, eta[part, :, :, None] + shift[:, None, None]).sum(axis=1)
        tilt = j[:, None] * shift[:, None]  # (draw, j, node)
        terms = tails[:, :, None] + tilt[:, None] + np.log(WEIGHTS)
        integral = logsumexp(terms, axis=-1)  # (draw, subset, j)
        log_density[part] = (counts.toxic * eta[part]).sum(axis=(1, 2))
        log_density[part] += (counts.together * integral).sum(axis=(1, 2))
    return log_density


def _zero_sum(values: Floats, axes: tuple[int, ...]) -> Floats:
    """Subtract the mean along each axis in turn."""
    for axis in axes:
        values = values - values.mean(axis=axis, keepdims=True)
    return values
