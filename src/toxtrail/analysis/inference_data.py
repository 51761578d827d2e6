"""The groups of an ArviZ file besides the posterior: prior, prior and posterior predictive, and
observed data.

The prior of a difference is improper (see `stats.paired_posterior`), so it has no draws.
Predictions are counts of prompts, for the observed number of prompts. They exist for one
continuation per prompt and prompts without clusters; otherwise they are NaN, because neither the
bootstrap nor clustered prompts have a likelihood to predict from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from toxtrail.analysis.score_table import ALL, draws_to_dataset
from toxtrail.config.schema import PosteriorConfig
from toxtrail.records.results import PairRow
from toxtrail.stats.paired_differences import PairDraws
from toxtrail.stats.rates import Floats, content_rng

GROUP_DRAWS = 1000
"""Number of draws of priors and predictions."""
DISCORDANT = ("n10", "n01")
RATE, PAIR = ("scorer", "subset"), ("scorer", "pair", "subset")
Groups = dict[str, xr.Dataset]


def rate_groups(
    rates: Mapping[tuple[str, str], Floats | None],
    observed_counts: Mapping[tuple[str, str], tuple[int, int]],
    config: PosteriorConfig,
) -> Groups:
    """Return the groups of a variant's rates.

    Args:
        rates: (scorer, subset) -> (draw,).
        observed_counts: (scorer, subset) -> toxic prompts and prompts, where each was continued
            once; not of all subsets together.
    """
    prior: dict[tuple[str, ...], Floats] = {}
    before, after = {}, {}
    for (scorer, subset), (_, n) in observed_counts.items():
        rng = content_rng(config.seed, [observed_counts[scorer, subset][0], n])
        chance = rng.beta(config.prior, config.prior, size=GROUP_DRAWS)
        prior[scorer, subset] = chance
        before[scorer, subset] = rng.binomial(n, chance).astype(np.float64)
        draws = rates[scorer, subset]
        if draws is not None:
            after[scorer, subset] = rng.binomial(n, draws[:GROUP_DRAWS]).astype(np.float64)
    if not observed_counts:
        return {}
    observed = {key: float(toxic) for key, (toxic, _) in observed_counts.items()}
    return {
        "prior": draws_to_dataset(prior, "rate", RATE),
        "prior_predictive": draws_to_dataset(_tuple_keys(before), "n_toxic", RATE),
        **(
            {"posterior_predictive": draws_to_dataset(_tuple_keys(after), "n_toxic", RATE)}
            if after
            else {}
        ),
        "observed_data": _observed_dataset(observed, "n_toxic", RATE),
    }


def pair_groups(
    draws: Mapping[tuple[str, str, str], PairDraws | None],
    rows: Sequence[PairRow],
    config: PosteriorConfig,
) -> Groups:
    """Return the groups of a comparison's differences, for each subset separately.

    Args:
        draws: (scorer, pair, subset) -> draws.
        rows: rows of the summary, in the order of `draws`.
    """
    after: dict[str, dict[tuple[str, ...], Floats]] = {name: {} for name in DISCORDANT}
    observed: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in DISCORDANT}
    for (key, pair_draws), row in zip(draws.items(), rows, strict=True):
        clustered = row.n_clusters < row.n
        if pair_draws is None or pair_draws.discordant is None:
            continue
        if row.subset == ALL or clustered:
            continue
        rng = content_rng(config.seed, [row.n11, row.n10, row.n01, row.n00])
        a, b = pair_draws.discordant
        chances = np.column_stack([a, b, 1 - a - b])[:GROUP_DRAWS].clip(0, 1)
        counts = rng.multinomial(row.n, chances / chances.sum(axis=1, keepdims=True))
        for index, (name, count) in enumerate(zip(DISCORDANT, (row.n10, row.n01), strict=True)):
            after[name][key] = counts[:, index].astype(np.float64)
            observed[name][key] = float(count)
    if not after[DISCORDANT[0]]:
        return {}
    return {
        "posterior_predictive": _merge_discordant(after),
        "observed_data": xr.merge([_observed_dataset(observed[n], n, PAIR) for n in DISCORDANT]),
    }


def _merge_discordant(counts: Mapping[str, Mapping[tuple[str, ...], Floats]]) -> xr.Dataset:
    return xr.merge([draws_to_dataset(counts[name], name, PAIR) for name in DISCORDANT])


def _tuple_keys(counts: Mapping[tuple[str, str], Floats]) -> dict[tuple[str, ...], Floats]:
    return {tuple(key): column for key, column in counts.items()}


def _observed_dataset(
    values: Mapping[tuple[str, ...], float] | Mapping[tuple[str, str], float],
    name: str,
    dims: Sequence[str],
) -> xr.Dataset:
    """Return a dataset with these dims; NaN where nothing was observed."""
    dataset = draws_to_dataset({tuple(k): np.full(4, v) for k, v in values.items()}, name, dims)
    return dataset.isel(chain=0, draw=0, drop=True)
