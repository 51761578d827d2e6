"""Posterior: how often is one variant toxic?

reads   data/scores/<family>/<variant>.parquet
writes  results/posteriors/<family>/<variant>/summary.json, posterior.nc
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from toxtrail.artifacts import Posterior, Store
from toxtrail.comparability import conditions, fingerprint
from toxtrail.config import PosteriorConfig, VariantConfig
from toxtrail.errors import DataError
from toxtrail.identity import Input
from toxtrail.pipeline import manifest_of, versions
from toxtrail.stages.tables import ALL, Cell, Cells, as_dataset, cells, scorers, subsets, weights
from toxtrail.stats.rates import (
    Floats,
    Rate,
    beta_rate,
    equal_tailed,
    expected_maximum,
    named_rng,
    rate_draws,
    toxicity_probability,
)


class RateDraws(NamedTuple):
    """One scorer and subset: its summary row and, if anything was scored, its draws."""

    row: dict[str, Any]
    rate: Floats | None
    """(draw,), in [0, 1]."""


def variant_posterior(table: Cells, primary: str, config: PosteriorConfig) -> Posterior:
    """Rate of every scorer and subset, and of all subsets together."""
    found: dict[tuple[str, str], RateDraws] = {}
    for (scorer, subset), cell in table.items():
        found[scorer, subset] = _subset_rate(scorer, subset, cell, config)
    for scorer in scorers(table):
        found[scorer, ALL] = _overall_rate(scorer, table, found, config)
    share = {scorer: weights(table, scorer) for scorer in scorers(table)}
    rows = [
        {**result.row, "weight": 1.0 if subset == ALL else share[scorer][subset]}
        for (scorer, subset), result in sorted(found.items(), key=lambda item: _order(item[0]))
    ]
    nothing = np.full(config.draws, np.nan)
    draws: dict[tuple[str, ...], Floats] = {
        key: nothing if result.rate is None else result.rate for key, result in found.items()
    }
    summary = {
        "schema_version": 1,
        "primary": primary,
        "threshold": config.threshold,
        "level": config.level,
        "interval": "equal-tailed",
        "rates": rows,
    }
    return Posterior(summary, as_dataset(draws, "rate", ("scorer", "subset")), {})


def run(
    store: Store, variant: str, who: VariantConfig, config: PosteriorConfig, primary: str
) -> None:
    """Read, compute, write."""
    scores = store.input(store.scores(who.family, variant))
    table = cells(store.read_scores(who.family, variant))
    posterior = variant_posterior(table, primary, config)
    identity = {"variant": variant, "family": who.family, "role": who.role, "parent": who.parent}
    manifest = manifest_of(
        "posterior",
        variant,
        {"posterior": config.plain(), "primary": primary, "variant": who.plain()},
        {"scores": scores},
        versions("numpy", "scipy"),
    )
    fields = comparability_of(table, scores, config)
    store.write_posterior(
        store.posterior(who.family, variant),
        posterior._replace(
            summary={
                "kind": "posterior",
                **identity,
                "comparability": {"fingerprint": fingerprint(fields), "fields": fields},
                **posterior.summary,
            }
        ),
        manifest,
    )


def comparability_of(table: Cells, scores: Input, config: PosteriorConfig) -> dict[str, str]:
    """The conditions of the rates: see `toxtrail.comparability`.

    Raises:
        DataError: the score file carries no manifest.
    """
    if scores.manifest is None:
        raise DataError(f"{scores.path} carries no manifest. Re-run the stage that makes it.")
    asked = {prompt for cell in table.values() for prompt in cell.asked_prompts}
    return conditions(scores.manifest, asked, config.threshold)


def _subset_rate(scorer: str, subset: str, cell: Cell, config: PosteriorConfig) -> RateDraws:
    if not cell.prompts:
        return RateDraws(_row(scorer, subset, [cell], None, None, config), None)
    shares = cell.shares(config.threshold)
    draws = rate_draws(
        shares, config.prior, config.draws, named_rng(config.seed, f"{scorer}|{subset}")
    )
    rate = beta_rate(shares, draws, config.prior, config.level)
    return RateDraws(_row(scorer, subset, [cell], rate, float(shares.mean()), config), draws)


def _overall_rate(
    scorer: str,
    table: Cells,
    found: dict[tuple[str, str], RateDraws],
    config: PosteriorConfig,
) -> RateDraws:
    """Design-weighted sum over subsets; none if a subset has no scored row at all."""
    own = [table[scorer, subset] for subset in subsets(table)]
    parts = {subset: found[scorer, subset].rate for subset in subsets(table)}
    share = weights(table, scorer)
    draws = np.zeros(config.draws)
    raw = 0.0
    for subset, part in parts.items():
        if part is None:
            return RateDraws(_row(scorer, ALL, own, None, None, config), None)
        draws += share[subset] * part
        raw += share[subset] * found[scorer, subset].row["rate_raw"]
    rate = Rate(float(draws.mean()), equal_tailed(draws, config.level))
    return RateDraws(_row(scorer, ALL, own, rate, raw, config), draws)


def _row(
    scorer: str,
    subset: str,
    own: list[Cell],
    rate: Rate | None,
    raw: float | None,
    config: PosteriorConfig,
) -> dict[str, Any]:
    toxicity = np.concatenate([cell.toxicity for cell in own])
    scored = toxicity.size > 0
    return {
        "scorer": scorer,
        "subset": subset,
        "n_prompts": sum(cell.asked for cell in own),
        "k": max(cell.samples for cell in own),
        "n_scored_prompts": sum(len(cell.prompts) for cell in own),
        "n_scored": int(toxicity.size),
        "n_toxic": int((toxicity >= config.threshold).sum()),
        **{f"n_{s}": sum(cell.states[s] for cell in own) for s in own[0].states},
        "rate_raw": raw,
        "rate": rate.mean if rate else None,
        "rate_lo": rate.interval.lo if rate else None,
        "rate_hi": rate.interval.hi if rate else None,
        "score_mean": float(toxicity.mean()) if scored else None,
        "expected_max_toxicity": _expected_maximum(own) if scored else None,
        "toxicity_probability": _any_toxic(own, config.threshold) if scored else None,
        "method": "rates",
        "prior": config.prior,
        "draws": config.draws,
        "seed": config.seed,
    }


def _expected_maximum(own: list[Cell]) -> float:
    """Mean over all scored prompts of the cells."""
    parts = [cell for cell in own if cell.prompts]
    total = sum(len(cell.prompts) for cell in parts)
    return sum(expected_maximum(c.toxicity, c.prompt) * len(c.prompts) for c in parts) / total


def _any_toxic(own: list[Cell], threshold: float) -> float:
    """Share of the scored prompts of the cells with a toxic continuation."""
    parts = [cell for cell in own if cell.prompts]
    total = sum(len(cell.prompts) for cell in parts)
    shares = (toxicity_probability(c.toxicity, c.prompt, threshold) for c in parts)
    return sum(s * len(c.prompts) for s, c in zip(shares, parts, strict=True)) / total


def _order(key: tuple[str, str]) -> tuple[str, bool, str]:
    """Scorers by name; `all` first, then subsets by name."""
    scorer, subset = key
    return scorer, subset != ALL, subset
