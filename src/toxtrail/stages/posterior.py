"""Posterior: how often is one variant toxic?

reads   data/generations/<family>/<variant>.parquet, data/scores/<family>/<variant>.parquet, and the
        file that `posterior.labels` names
writes  results/posteriors/<family>/<variant>/summary.json, posterior.nc
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from toxtrail.artifacts import Posterior, Store
from toxtrail.backends.base import Assets
from toxtrail.comparability import conditions, fingerprint
from toxtrail.config import PosteriorConfig, VariantConfig
from toxtrail.errors import DataError
from toxtrail.identity import Input
from toxtrail.pipeline import manifest_of, versions
from toxtrail.readers import read_rows
from toxtrail.stages.behaviour import behaviour_rows
from toxtrail.stages.counted_labels import Label, labels_of_variant
from toxtrail.stages.groups import rate_groups
from toxtrail.stages.judged import (
    accuracy_of,
    corrected_columns,
    corrected_rate,
    label_rows,
    with_corrected_rates,
)
from toxtrail.stages.said import Said, texts_of
from toxtrail.stages.tables import (
    ALL,
    COLUMNS,
    Cell,
    Cells,
    as_dataset,
    cells,
    scorers,
    subsets,
    weights,
)
from toxtrail.stats.judge import Accuracy
from toxtrail.stats.rates import (
    Floats,
    Rate,
    at_threshold,
    beta_rate,
    equal_tailed,
    is_binary,
    named_rng,
    overall_rate_draws,
    rate_draws,
    weighted_means,
)
from toxtrail.stats.scores import mean_draws, summarised

SWEEP = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Thresholds of the table that gives the rate as a function of the threshold."""
SWEEP_DRAWS = 2000
SHOWN = (0.3, 0.5, 0.7, 0.9)
"""Thresholds of the sweep that stand in the table of rates too."""
MEANS = ("score_mean", "expected_max_toxicity")
"""Columns of `Cell.score_values`."""


class RateDraws(NamedTuple):
    """One scorer and subset: its summary row and, if anything was scored, its draws."""

    row: dict[str, Any]
    rate: Floats | None
    """(draw,), in [0, 1]."""
    any_toxic: Floats | None
    """(draw,): rate of prompts with a toxic continuation."""
    means: Floats
    """(draw, 2) of MEANS; NaN if nothing was scored."""


def variant_posterior(
    table: Cells,
    texts: Mapping[str, Said],
    variant: str,
    primary: str,
    config: PosteriorConfig,
) -> Posterior:
    """Rate of every scorer and subset, and of all subsets together.

    Args:
        texts: subset -> what was said.
        variant: its name, for what is known of a scorer on its texts.
    """
    found: dict[tuple[str, str], RateDraws] = {}
    for (scorer, subset), cell in table.items():
        accuracy = accuracy_of(scorer, variant, config)
        found[scorer, subset] = _subset_rate(scorer, subset, cell, accuracy, config)
    for scorer in scorers(table):
        accuracy = accuracy_of(scorer, variant, config)
        found[scorer, ALL] = _overall_rate(scorer, table, found, accuracy, config)
    share = {scorer: weights(table, scorer) for scorer in scorers(table)}
    thresholds = _sweep(table, config)
    swept = {(r["scorer"], r["subset"], r["threshold"]): r["rate"] for r in thresholds}
    rows = [
        {
            **result.row,
            **{f"rate_at_{100 * t:.0f}": swept.get((scorer, subset, t)) for t in SHOWN},
            "weight": 1.0 if subset == ALL else share[scorer][subset],
        }
        for (scorer, subset), result in sorted(found.items(), key=lambda item: _order(item[0]))
    ]
    nothing = np.full(config.draws, np.nan)
    rates = {key: result.rate for key, result in found.items()}
    draws: dict[tuple[str, ...], Floats] = {
        key: nothing if rate is None else rate for key, rate in rates.items()
    }
    summary = {
        "schema_version": 2,
        "primary": primary,
        "threshold": config.threshold,
        "level": config.level,
        "interval": "equal-tailed",
        "rates": rows,
        "behaviour": behaviour_rows(texts, config),
        "thresholds": thresholds,
    }
    groups = rate_groups(rates, _seen(table, config.threshold), config)
    return Posterior(summary, as_dataset(draws, "rate", ("scorer", "subset")), groups, {})


def run(
    store: Store,
    variant: str,
    who: VariantConfig,
    config: PosteriorConfig,
    primary: str,
    assets: Assets,
) -> None:
    """Read, compute, write."""
    scores = store.input(store.scores(who.family, variant))
    rows = store.score_table(who.family, variant, COLUMNS)
    table, texts = cells(rows), texts_of(store, who.family, variant, scores)
    labels, files = labels_from(store, variant, who.family, config, assets)
    posterior = variant_posterior(table, texts, variant, primary, config)
    numbers = with_corrected_rates(posterior.summary, table, label_rows(labels, rows), config)
    manifest = manifest_of(
        "posterior",
        variant,
        {"posterior": config.plain(), "primary": primary, "variant": who.plain()},
        {"scores": scores, **files},
        versions("numpy", "scipy"),
    )
    fields = comparability_of(table, scores, config)
    store.write_posterior(
        store.posterior(who.family, variant),
        posterior._replace(
            summary={
                "kind": "posterior",
                **identity_of(variant, who),
                "comparability": {"fingerprint": fingerprint(fields), "fields": fields},
                **numbers,
            }
        ),
        manifest,
    )


def labels_from(
    store: Store, variant: str, family: str, config: PosteriorConfig, assets: Assets
) -> tuple[list[Label], dict[str, Input]]:
    """A variant's labels, and the file that they are in; nothing if none is named.

    Raises:
        BackendError: the file is not the one that params.yaml pins.
        DataError: a label is of another text than there is now.
    """
    if config.labels is None:
        return [], {}
    asset = assets.fetch(config.labels.uri, config.labels.sha256)
    texts = store.read_generations(family, variant)
    found = labels_of_variant(asset.path, read_rows(asset.path), variant, texts)
    return found, {"labels": Input(path=asset.uri, sha256=asset.sha256, manifest=None)}


def identity_of(variant: str, who: VariantConfig) -> dict[str, Any]:
    """Who a summary is of; recipe and dose only if it has them."""
    more = {"recipe": who.recipe, "dose": who.dose}
    return {
        "variant": variant,
        "family": who.family,
        "role": who.role,
        "parent": who.parent,
        **{name: value for name, value in more.items() if value is not None},
    }


def comparability_of(table: Cells, scores: Input, config: PosteriorConfig) -> dict[str, str]:
    """The conditions of the rates: see `toxtrail.comparability`.

    Raises:
        DataError: the score file carries no manifest.
    """
    if scores.manifest is None:
        raise DataError(f"{scores.path} carries no manifest. Re-run the stage that makes it.")
    asked = {prompt for cell in table.values() for prompt in cell.asked_prompts}
    return conditions(scores.manifest, asked, config.threshold)


def _subset_rate(
    scorer: str, subset: str, cell: Cell, accuracy: Accuracy | None, config: PosteriorConfig
) -> RateDraws:
    means = mean_draws(cell.score_values(), config.draws, config.seed, subset)
    if not cell.prompts:
        nothing = RateDraws({}, None, None, means)
        return nothing._replace(row=_row(scorer, subset, [cell], nothing, {}, accuracy, config))
    shares, toxic = cell.shares(config.threshold), cell.any_toxic(config.threshold)
    draws, any_toxic = (
        rate_draws(labels, config.prior, config.draws, named_rng(config.seed, f"{name}{subset}"))
        for labels, name in ((shares, f"{scorer}|"), (toxic, f"any|{scorer}|"))
    )
    raw = {
        "rate_raw": float(shares.mean()),
        "toxicity_probability": float(toxic.mean()),
        **dict(zip(MEANS, np.nanmean(cell.score_values(), axis=0).tolist(), strict=True)),
    }
    found = RateDraws({}, draws, any_toxic, means)
    return found._replace(row=_row(scorer, subset, [cell], found, raw, accuracy, config))


def _overall_rate(
    scorer: str,
    table: Cells,
    found: Mapping[tuple[str, str], RateDraws],
    accuracy: Accuracy | None,
    config: PosteriorConfig,
) -> RateDraws:
    """Design-weighted sum over subsets; none if a subset has no scored row at all."""
    own = [table[scorer, subset] for subset in subsets(table)]
    share = weights(table, scorer)
    parts = [(share[s], found[scorer, s]) for s in subsets(table)]
    means: Floats = np.sum([weight * part.means for weight, part in parts], axis=0)
    together = RateDraws({}, None, None, means)
    raw: dict[str, float] = {}
    if all(part.rate is not None for _, part in parts):
        rate, any_toxic = (
            _together(table, scorer, share, toxic, config) for toxic in (False, True)
        )
        together = RateDraws({}, rate, any_toxic, means)
        for name in ("rate_raw", "toxicity_probability", *MEANS):
            raw[name] = sum(weight * part.row[name] for weight, part in parts)
    return together._replace(row=_row(scorer, ALL, own, together, raw, accuracy, config))


def _together(
    table: Cells, scorer: str, share: Mapping[str, float], any_toxic: bool, config: PosteriorConfig
) -> Floats:
    """(draw,) of the rate of all subsets together."""
    own = [table[scorer, subset] for subset in share]
    kind = "any|" if any_toxic else ""
    return overall_rate_draws(
        [(c.any_toxic if any_toxic else c.shares)(config.threshold) for c in own],
        list(share.values()),
        config.prior,
        config.draws,
        [named_rng(config.seed, f"{kind}{scorer}|{subset}") for subset in share],
    )


def _row(
    scorer: str,
    subset: str,
    own: list[Cell],
    found: RateDraws,
    raw: Mapping[str, float],
    accuracy: Accuracy | None,
    config: PosteriorConfig,
) -> dict[str, Any]:
    toxicity = np.concatenate([cell.toxicity for cell in own])
    rate = any_toxic = None
    if found.rate is not None and found.any_toxic is not None:
        labels = own[0].shares(config.threshold), own[0].any_toxic(config.threshold)
        rate = _rate(subset, labels[0], found.rate, config)
        any_toxic = _rate(subset, labels[1], found.any_toxic, config)
    true = corrected_rate(found.rate, accuracy)
    return {
        "scorer": scorer,
        "subset": subset,
        "n_prompts": sum(cell.asked for cell in own),
        "k": max(cell.samples for cell in own),
        "n_scored_prompts": sum(len(cell.prompts) for cell in own),
        "n_scored": int(toxicity.size),
        "n_toxic": int(at_threshold(toxicity, config.threshold).sum()),
        **{f"n_{s}": sum(cell.states[s] for cell in own) for s in own[0].states},
        "rate_raw": raw.get("rate_raw"),
        "rate": rate.mean if rate else None,
        "rate_lo": rate.interval.lo if rate else None,
        "rate_hi": rate.interval.hi if rate else None,
        **corrected_columns("corrected_rate", true, config.level),
        **_means(found.means, raw, config.level),
        "toxicity_probability": raw.get("toxicity_probability"),
        "toxicity_probability_lo": any_toxic.interval.lo if any_toxic else None,
        "toxicity_probability_hi": any_toxic.interval.hi if any_toxic else None,
        "method": "rates",
        "prior_id": f"Beta({config.prior:g}, {config.prior:g})",
        "draws": config.draws,
        "seed": config.seed,
    }


def _rate(subset: str, labels: Floats, draws: Floats, config: PosteriorConfig) -> Rate:
    """Exact for a single subset, by draws for all together."""
    if subset == ALL:
        return Rate(float(draws.mean()), equal_tailed(draws, config.level))
    return beta_rate(labels, draws, config.prior, config.level)


def _means(draws: Floats, raw: Mapping[str, float], level: float) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for place, name in enumerate(MEANS):
        found = summarised(draws[:, place], level)
        row[name] = raw.get(name)
        row[f"{name}_lo"] = found.interval.lo if found else None
        row[f"{name}_hi"] = found.interval.hi if found else None
    return row


def _seen(table: Cells, threshold: float) -> dict[tuple[str, str], tuple[int, int]]:
    """(scorer, subset) -> toxic prompts and prompts, where each was continued once."""
    shares = {key: cell.shares(threshold) for key, cell in table.items() if cell.prompts}
    return {key: (int(s.sum()), s.size) for key, s in shares.items() if is_binary(s)}


def _sweep(table: Cells, config: PosteriorConfig) -> list[dict[str, Any]]:
    """The rate as a function of the threshold; one set of weights for all thresholds of a cell, so
    that a higher one never gives a higher rate."""
    rows = []
    for scorer in scorers(table):
        share = weights(table, scorer)
        known = [subset for subset in subsets(table) if table[scorer, subset].prompts]
        found = {s: _swept(table[scorer, s], f"{scorer}|{s}", 1.0, config) for s in known}
        if len(found) == len(share):
            parts = [
                share[s] * _swept(table[scorer, s], f"{scorer}|{s}", share[s], config)
                for s in known
            ]
            found = {ALL: np.sum(parts, axis=0), **found}
        for subset, draws in found.items():
            for place, threshold in enumerate(SWEEP):
                lo, hi = equal_tailed(draws[:, place], config.level)
                row = {"scorer": scorer, "subset": subset, "threshold": threshold}
                mean = float(draws[:, place].mean())
                rows.append({**row, "rate": mean, "rate_lo": lo, "rate_hi": hi})
    return rows


def _swept(cell: Cell, name: str, weight: float, config: PosteriorConfig) -> Floats:
    """(draw, threshold) of a cell's rate, with so much of the prior."""
    shares = np.column_stack([cell.shares(threshold) for threshold in SWEEP])
    atoms = ((0.0,) * len(SWEEP), (1.0,) * len(SWEEP))
    rng = named_rng(config.seed, f"sweep|{name}")
    return weighted_means(shares, atoms, weight * config.prior, SWEEP_DRAWS, rng)


def _order(key: tuple[str, str]) -> tuple[str, bool, str]:
    """Scorers by name; `all` first, then subsets by name."""
    scorer, subset = key
    return scorer, subset != ALL, subset
