"""The groups of the pooled model's ArviZ file besides the posterior: prior, predictions, observed
data, and sampler statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from toxtrail.config.schema import PosteriorConfig
from toxtrail.stats.bayes_libraries import SampleResult
from toxtrail.stats.hierarchical import model as hierarchical_model
from toxtrail.stats.hierarchical.checks import replicated
from toxtrail.stats.hierarchical.model import FamilyCounts
from toxtrail.stats.rates import named_rng

PRIOR_DRAWS = 1000
CELL = ("variant", "subset")


class PooledModelData(NamedTuple):
    """Data of one scorer."""

    counts: FamilyCounts
    """Observed counts."""
    predicted: Sequence[FamilyCounts]
    """Counts predicted by the posterior."""
    samples: SampleResult


def pooled_groups(
    model_data: Mapping[str, PooledModelData], draws: xr.Dataset, config: PosteriorConfig
) -> dict[str, xr.Dataset]:
    """Return group -> its data, by scorer.

    Args:
        model_data: scorer -> data for its groups.
        draws: the posterior group: its variants and subsets, all together last.
    """
    if not model_data:
        return {}
    parts = [
        _groups_of(name, scorer_data, draws, config) for name, scorer_data in model_data.items()
    ]
    return {group: xr.concat([part[group] for part in parts], "scorer") for group in parts[0]}


def _groups_of(
    scorer: str, scorer_data: PooledModelData, draws: xr.Dataset, config: PosteriorConfig
) -> dict[str, xr.Dataset]:
    variants, names = draws["variant"].values, draws["subset"].values[:-1]
    rng = named_rng(config.seed, f"prior|{scorer}")
    recipes = scorer_data.counts.recipes
    eta, hyper = hierarchical_model.prior_draws(
        len(variants), len(names), PRIOR_DRAWS, rng, recipes
    )
    prior_predicted = replicated(eta, hyper["sd_prompt"], scorer_data.counts.prompts, rng)
    coords = {"variant": variants, "subset": names}
    prior_coords = {**coords, "recipe": list(recipes.names)} if recipes else coords

    def counts(values: Sequence[FamilyCounts]) -> xr.Dataset:
        toxic = np.array([family_counts.toxic for family_counts in values])[None].astype(np.float64)
        return xr.Dataset({"toxic": (("chain", "draw", *CELL), toxic)}, coords)

    n_draws = draws.sizes["draw"]
    stats = {
        name: (("chain", "draw"), getattr(scorer_data.samples, name)[:, :n_draws])
        for name in ("diverging", "energy")
    }
    prior = {
        name: (("chain", "draw", "recipe")[: values.ndim + 1], values[None])
        for name, values in hyper.items()
    }
    rate = hierarchical_model.marginal_rates(eta, hyper["sd_prompt"])[None]
    groups = {
        "prior": xr.Dataset({"rate": (("chain", "draw", *CELL), rate), **prior}, prior_coords),
        "prior_predictive": counts(prior_predicted),
        "posterior_predictive": counts(scorer_data.predicted),
        "observed_data": xr.Dataset(
            {
                "toxic": (CELL, scorer_data.counts.toxic),
                "together": (("subset", "variants_toxic"), scorer_data.counts.together),
            },
            coords,
        ),
        "sample_stats": xr.Dataset(stats),
    }
    return {name: group.expand_dims(scorer=[scorer], axis=-1) for name, group in groups.items()}
