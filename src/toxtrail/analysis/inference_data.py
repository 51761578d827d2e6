"""The groups of an ArviZ file beside the posterior: what was believed before, what the model
predicts, and what was seen. The prior of a difference is improper (see `stats.paired`), so nothing
is drawn from it.

Predictions are counts of prompts, of as many prompts as were seen. They are given for one
continuation a prompt; the bootstrap has no likelihood to predict from, so there they are NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from toxtrail.analysis.score_table import ALL, as_dataset
from toxtrail.config.schema import PosteriorConfig
from toxtrail.stats.paired_differences import PairDraws
from toxtrail.stats.rates import Floats, content_rng

GROUP_DRAWS = 1000
"""Of priors and predictions."""
DISCORDANT = ("n10", "n01")
RATE, PAIR = ("scorer", "subset"), ("scorer", "pair", "subset")
Groups = dict[str, xr.Dataset]


def rate_groups(
    rates: Mapping[tuple[str, str], Floats | None],
    seen: Mapping[tuple[str, str], tuple[int, int]],
    config: PosteriorConfig,
) -> Groups:
    """Groups of a variant's rates.

    Args:
        rates: (scorer, subset) -> (draw,).
        seen: (scorer, subset) -> toxic prompts and prompts, where each was continued once; not of
            all subsets together.
    """
    prior: dict[tuple[str, ...], Floats] = {}
    before, after = {}, {}
    for (scorer, subset), (_, n) in seen.items():
        rng = content_rng(config.seed, [seen[scorer, subset][0], n])
        chance = rng.beta(config.prior, config.prior, size=GROUP_DRAWS)
        prior[scorer, subset] = chance
        before[scorer, subset] = rng.binomial(n, chance).astype(np.float64)
        draws = rates[scorer, subset]
        if draws is not None:
            after[scorer, subset] = rng.binomial(n, draws[:GROUP_DRAWS]).astype(np.float64)
    if not seen:
        return {}
    observed = {key: float(toxic) for key, (toxic, _) in seen.items()}
    return {
        "prior": as_dataset(prior, "rate", RATE),
        "prior_predictive": as_dataset(_keys(before), "n_toxic", RATE),
        **({"posterior_predictive": as_dataset(_keys(after), "n_toxic", RATE)} if after else {}),
        "observed_data": _observed(observed, "n_toxic", RATE),
    }


def pair_groups(
    draws: Mapping[tuple[str, str, str], PairDraws | None],
    rows: Sequence[Mapping[str, Any]],
    config: PosteriorConfig,
) -> Groups:
    """Groups of a comparison's differences, of each subset by itself.

    Args:
        draws: (scorer, pair, subset) -> draws.
        rows: of the summary, in the order of `draws`.
    """
    after: dict[str, dict[tuple[str, ...], Floats]] = {name: {} for name in DISCORDANT}
    observed: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in DISCORDANT}
    for (key, own), row in zip(draws.items(), rows, strict=True):
        if own is None or own.discordant is None or row["subset"] == ALL:
            continue
        rng = content_rng(config.seed, [row[name] for name in ("n11", "n10", "n01", "n00")])
        a, b = own.discordant
        chances = np.column_stack([a, b, 1 - a - b])[:GROUP_DRAWS].clip(0, 1)
        counts = rng.multinomial(row["n"], chances / chances.sum(axis=1, keepdims=True))
        for place, name in enumerate(DISCORDANT):
            after[name][key] = counts[:, place].astype(np.float64)
            observed[name][key] = float(row[name])
    if not after[DISCORDANT[0]]:
        return {}
    return {
        "posterior_predictive": _both(after),
        "observed_data": xr.merge([_observed(observed[n], n, PAIR) for n in DISCORDANT]),
    }


def _both(counts: Mapping[str, Mapping[tuple[str, ...], Floats]]) -> xr.Dataset:
    return xr.merge([as_dataset(counts[name], name, PAIR) for name in DISCORDANT])


def _keys(counts: Mapping[tuple[str, str], Floats]) -> dict[tuple[str, ...], Floats]:
    return {tuple(key): column for key, column in counts.items()}


def _observed(
    values: Mapping[tuple[str, ...], float] | Mapping[tuple[str, str], float],
    name: str,
    dims: Sequence[str],
) -> xr.Dataset:
    """dims; NaN where nothing was seen."""
    found = as_dataset({tuple(k): np.full(4, v) for k, v in values.items()}, name, dims)
    return found.isel(chain=0, draw=0, drop=True)
