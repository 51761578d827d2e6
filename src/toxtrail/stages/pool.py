"""Pool: a family's rates and differences, all estimated together.

reads   data/scores/<family>/, results/posteriors/<family>/
writes  results/pooled/<family>/summary.json, posterior.nc, the figures predictive and ranks
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from toxtrail.artifacts import Posterior, Store
from toxtrail.backends.base import Progress
from toxtrail.config import FamilyConfig, PoolingConfig, PosteriorConfig
from toxtrail.errors import DataError, InferenceError
from toxtrail.pipeline import manifest_of, versions
from toxtrail.stages.check_figures import LEAST_P, predictive_figure, ranks_figure
from toxtrail.stages.family import Edge, comparable, edges, members
from toxtrail.stages.pooled_groups import PoolEvidence, pooled_groups
from toxtrail.stages.tables import ALL, Cells, scorers, subsets, weights
from toxtrail.stats import pooled
from toxtrail.stats.pooled import Check, Counts
from toxtrail.stats.rates import Floats, equal_tailed, named_rng
from toxtrail.stats.recipes import Recipes, recipes_of
from toxtrail.stats.sampling import Diagnostics, Effort, Sampled, complaints, judge, sample
from toxtrail.stats.sensitivity import Sensitivity, power_scaling

Sampler = Callable[[Counts, Effort], Sampled]

REPLICATIONS = 1000
"""Data sets that the predictive checks draw."""
SENSITIVITY_DRAWS = 1000
"""Of each chain, that power-scaling looks at."""
FAR = 4.0
"""Standard deviations by which a pooled overall rate may differ from the one of its variant
alone."""


class Estimate(NamedTuple):
    """One scorer's family, estimated together."""

    rate: Floats
    """(chain, draw, variant, subset and ALL last), in [0, 1]."""
    hyper: Mapping[str, Floats]
    """Name -> (chain, draw)."""
    diagnostics: Diagnostics
    effort: Effort
    checks: Sequence[Check]
    dropped: int
    """Prompts that not every variant has a score for."""
    sensitivity: Mapping[str, Sensitivity]
    """What is reported of all subsets together -> how much its prior matters."""
    counts: Counts
    predicted: Sequence[Counts]
    """As the posterior predicts them."""
    drawn: Sampled
    first_try: Sequence[str]
    """What was wrong with a first try, if there was a second."""
    spread: Floats | None
    """(chain, draw, recipe): of the rate over all subsets among fine-tunes of a recipe; None where
    no recipe has several."""


def pooled_family(
    tables: Mapping[str, Cells],
    summaries: Mapping[str, Mapping[str, Any]],
    reference: str,
    primary: str,
    config: PosteriorConfig,
    pooling: PoolingConfig | None,
    sampler: Sampler,
) -> Posterior:
    """Every scorer's family; a scorer whose data do not allow it is left out with the reason.

    Raises:
        InferenceError: a posterior did not converge, twice.
    """
    variants, who = list(summaries), edges(list(summaries.values()), reference)
    places = [(variants.index(edge.a), variants.index(edge.b)) for edge in who]
    recipes = recipes_of([summary.get("recipe") for summary in summaries.values()])
    found: dict[str, Estimate] = {}
    status: dict[str, dict[str, Any]] = {}
    for scorer in scorers(next(iter(tables.values()))):
        if pooling is None:
            status[scorer] = {"status": "left out", "reason": "pooling is switched off"}
            continue
        try:
            estimate = _estimate(
                scorer, variants, tables, config, pooling, sampler, places, recipes
            )
        except DataError as error:
            status[scorer] = {"status": "left out", "reason": str(error)}
            continue
        names = subsets(next(iter(tables.values())))
        problems = _misfits(estimate, scorer, variants, names, summaries)
        status[scorer] = _status(estimate, problems, variants, names)
        if not problems:
            found[scorer] = estimate
    names = [*subsets(next(iter(tables.values()))), ALL]
    draws = _dataset(found, variants, names)
    summary = {
        "schema_version": 2,
        "reference": reference,
        "primary": primary,
        "threshold": config.threshold,
        "level": config.level,
        "interval": "equal-tailed",
        "scorers": status,
        **tables_of(draws, who, config.level),
    }
    evidence = {
        name: PoolEvidence(one.counts, one.predicted, one.drawn) for name, one in found.items()
    }
    figures = {
        "predictive": predictive_figure(summary),
        "ranks": ranks_figure(draws, primary),
    }
    return Posterior(summary, draws, pooled_groups(evidence, draws, config), figures)


def run(
    store: Store,
    family: str,
    who: FamilyConfig,
    config: PosteriorConfig,
    pooling: PoolingConfig | None,
    primary: str,
    progress: Progress,
) -> None:
    """Read, estimate, write."""

    def sampler(counts: Counts, effort: Effort) -> Sampled:
        variants, groups = counts.toxic.shape
        total = effort.chains * effort.draws
        with progress.bar(
            f"pool {variants} variants x {groups} subsets", total, "draws"
        ) as advance:
            drawn = sample(pooled.build(counts), effort)
            advance(total)
        return drawn

    own = members(store, family, who.variants)
    tables, _ = comparable(own.tables, own.summaries, who.reference, bool(who.allow_mismatch))
    found = pooled_family(tables, own.summaries, who.reference, primary, config, pooling, sampler)
    manifest = manifest_of(
        "pool",
        family,
        {
            "posterior": config.plain(),
            "pooling": pooling.plain() if pooling else None,
            "family": who.plain(),
            "primary": primary,
        },
        own.inputs,
        versions("numpy", "scipy", "matplotlib", "pymc", "pytensor", "numba", "nutpie", "arviz"),
    )
    summary = {"kind": "pool", "family": family, **found.summary}
    store.write_posterior(store.pooled(family), found._replace(summary=summary), manifest)


def _estimate(
    scorer: str,
    variants: Sequence[str],
    tables: Mapping[str, Cells],
    config: PosteriorConfig,
    pooling: PoolingConfig,
    sampler: Sampler,
    pairs: Sequence[tuple[int, int]],
    recipes: Recipes | None,
) -> Estimate:
    labels, dropped = _labels(scorer, variants, tables, config.threshold)
    counts = pooled.counts_of(labels, recipes)
    seed = int(named_rng(config.seed, f"pool|{scorer}").integers(2**31))
    effort = Effort(pooling.chains, pooling.draws, pooling.target_accept, seed)
    share = np.array(list(weights(tables[variants[0]], scorer).values()))
    first: list[str] = []
    for attempt in (effort, effort.harder()):
        drawn = sampler(counts, attempt)
        rate = _with_overall(drawn, share)
        steps = np.stack([rate[:, :, b] - rate[:, :, a] for a, b in pairs], axis=2)
        spread = _spread(counts, drawn, share)
        tables_of = {"rate": rate, "difference": steps}
        tables_of |= {} if spread is None else {"spread": spread}
        found = judge(drawn, _hyper(drawn), tables_of, config.level)
        wrong = complaints(found)
        if not wrong:
            predicted = _predicted(counts, drawn, named_rng(config.seed, f"check|{scorer}"))
            return Estimate(
                rate=rate,
                hyper={n: drawn.posterior[n] for n in pooled.HYPER if n in drawn.posterior},
                diagnostics=found,
                effort=attempt,
                checks=pooled.predictive_checks(counts, predicted),
                dropped=dropped,
                sensitivity=_sensitivity(counts, drawn, rate, variants, pairs),
                counts=counts,
                predicted=predicted,
                drawn=drawn,
                first_try=first,
                spread=spread,
            )
        first = first or wrong
    raise InferenceError(
        f"The pooled posterior by {scorer} did not converge, nor did a second, harder try: "
        f"{'; '.join(wrong)} (first try: {'; '.join(first)}). Nothing was written. For a small ESS "
        "or a large Monte Carlo error raise pooling.draws; for divergent transitions bring "
        "pooling.target_accept nearer to 1; `pooling: null` goes on without pooled columns."
    )


def _labels(
    scorer: str, variants: Sequence[str], tables: Mapping[str, Cells], threshold: float
) -> tuple[list[Floats], int]:
    """Of each subset, (prompt, variant) on the prompts that all variants have a score for; and how
    many prompts that leaves out."""
    labels, dropped = [], 0
    for subset in subsets(tables[variants[0]]):
        own = [tables[v][scorer, subset] for v in variants]
        if any(cell.toxicity.size > len(cell.prompts) for cell in own):
            raise DataError("there is more than one continuation for a prompt")
        shared = sorted(set.intersection(*(set(cell.prompts) for cell in own)))
        asked = frozenset().union(*(cell.asked_prompts for cell in own))
        dropped += len(asked) - len(shared)
        columns = [c.shares(threshold)[np.isin(c.prompts, shared)] for c in own]
        labels.append(np.array(columns).T.reshape(len(shared), len(variants)))
    return labels, dropped


def _with_overall(drawn: Sampled, share: Floats) -> Floats:
    """(chain, draw, variant, subset and all together)."""
    eta, sd = drawn.posterior["eta"], drawn.posterior["sd_prompt"]
    rate = pooled.rates(eta.reshape(-1, *eta.shape[2:]), sd.ravel()).reshape(eta.shape)
    result: Floats = np.concatenate([rate, (rate @ share)[..., None]], axis=-1)
    return result


def _hyper(drawn: Sampled) -> list[str]:
    return [name for name in (*pooled.HYPER, "sd_recipe") if name in drawn.posterior]


def _spread(counts: Counts, drawn: Sampled, share: Floats) -> Floats | None:
    """(chain, draw, recipe)."""
    if counts.recipes is None:
        return None
    chains, draws = drawn.posterior["sd_prompt"].shape
    found = pooled.recipe_spread(counts.recipes, drawn.posterior, share, chains * draws)
    return found.reshape(chains, draws, -1)


def _predicted(counts: Counts, drawn: Sampled, rng: np.random.Generator) -> list[Counts]:
    eta = drawn.posterior["eta"]
    eta, sd = eta.reshape(-1, *eta.shape[2:]), drawn.posterior["sd_prompt"].ravel()
    some = np.linspace(0, len(eta) - 1, REPLICATIONS).astype(int)
    return pooled.replicated(eta[some], sd[some], counts.prompts, rng)


def _sensitivity(
    counts: Counts,
    drawn: Sampled,
    rate: Floats,
    variants: Sequence[str],
    pairs: Sequence[tuple[int, int]],
) -> dict[str, Sensitivity]:
    """Of every difference over all subsets, on a part of the draws."""
    step = max(1, rate.shape[1] // SENSITIVITY_DRAWS)
    some = {name: values[:, ::step] for name, values in drawn.posterior.items()}
    eta, sd = some["eta"], some["sd_prompt"]
    flat = pooled.log_likelihood(counts, eta.reshape(-1, *eta.shape[2:]), sd.ravel())
    prior, likelihood = pooled.log_prior(some), flat.reshape(sd.shape)
    overall = rate[:, ::step, :, -1]
    return {
        f"{variants[b]} - {variants[a]}": power_scaling(
            overall[:, :, b] - overall[:, :, a], prior, likelihood
        )
        for a, b in pairs
    }


def _misfits(
    estimate: Estimate,
    scorer: str,
    variants: Sequence[str],
    names: Sequence[str],
    summaries: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Why converged draws must not be shown all the same; empty if they may be."""
    problems = [
        f"{c.observed:g} {_what(c, variants, names)}, where the model expects {c.predicted:.1f} "
        f"(p {c.p:.3f})"
        for c in estimate.checks
        if not LEAST_P <= c.p <= 1 - LEAST_P
    ]
    for place, variant in enumerate(variants):
        row = next(
            r for r in summaries[variant]["rates"] if (r["scorer"], r["subset"]) == (scorer, ALL)
        )
        if row["rate"] is None:
            continue
        own = estimate.rate[:, :, place, -1]
        spread = max(float(own.std()), (row["rate_hi"] - row["rate_lo"]) / 4)
        if abs(float(own.mean()) - row["rate"]) > FAR * spread:
            problems.append(
                f"the rate of {variant} is {own.mean():.3f} pooled and {row['rate']:.3f} alone"
            )
    return problems


def _what(check: Check, variants: Sequence[str], names: Sequence[str]) -> str:
    if check.variant is None or check.subset is None:
        return f"prompts are {check.statistic}"
    return f"prompts of {names[check.subset]} are toxic for {variants[check.variant]}"


def _status(
    estimate: Estimate, problems: Sequence[str], variants: Sequence[str], names: Sequence[str]
) -> dict[str, Any]:
    return {
        "status": "withheld" if problems else "pooled",
        "reason": "; ".join(problems),
        "dropped": estimate.dropped,
        "diagnostics": estimate.diagnostics._asdict(),
        "effort": estimate.effort._asdict(),
        "first_try": "; ".join(estimate.first_try),
        "checks": [
            {
                **check._asdict(),
                "variant": None if check.variant is None else variants[check.variant],
                "subset": None if check.subset is None else names[check.subset],
            }
            for check in estimate.checks
        ],
        "sensitivity": [
            {"quantity": name, **own._asdict(), "complaint": own.complaint}
            for name, own in estimate.sensitivity.items()
        ],
    }


def tables_of(
    draws: xr.Dataset, who: Sequence[Edge], level: float
) -> dict[str, list[dict[str, Any]]]:
    """The rows `rates` and `pairs` that draws give, each with its diagnostics; none if nothing was
    pooled."""
    if "rate" not in draws:
        return {"rates": [], "pairs": []}
    rates, pairs = [], []
    for scorer, subset in product(draws["scorer"].values, draws["subset"].values):
        place = {"scorer": str(scorer), "subset": str(subset)}
        columns = {
            str(v): draws["rate"].sel({"variant": v, **place}).values
            for v in draws["variant"].values
        }
        for variant, column in columns.items():
            lo, hi = equal_tailed(column, level)
            found = {
                "pooled_rate": float(column.mean()),
                "pooled_rate_lo": lo,
                "pooled_rate_hi": hi,
                **_diagnostics(column),
            }
            rates.append({"variant": variant, **place, **found})
        for edge in who:
            column = columns[edge.b] - columns[edge.a]
            pairs.append({"a": edge.a, "b": edge.b, **place, **_difference(column, level)})
    return {"rates": rates, "pairs": pairs, **_recipe_rows(draws, level)}


def _recipe_rows(draws: xr.Dataset, level: float) -> dict[str, list[dict[str, Any]]]:
    """How far fine-tunes of a recipe lie apart; no table where no recipe has several."""
    if "recipe_spread" not in draws:
        return {}
    rows = []
    for scorer, recipe in product(draws["scorer"].values, draws["recipe"].values):
        column = draws["recipe_spread"].sel(scorer=scorer, recipe=recipe).values
        lo, hi = equal_tailed(column, level)
        rows.append(
            {
                "recipe": str(recipe),
                "scorer": str(scorer),
                "variants": int(draws["recipe_variants"].sel(recipe=recipe)),
                "spread": float(np.median(column)),
                "spread_lo": lo,
                "spread_hi": hi,
                **_diagnostics(column),
            }
        )
    return {"recipes": rows}


def _difference(column: Floats, level: float) -> dict[str, Any]:
    lo, hi = equal_tailed(column, level)
    judged = _diagnostics(column)
    higher = float((column > 0).mean())
    return {
        "pooled_diff": float(column.mean()),
        "pooled_diff_lo": lo,
        "pooled_diff_hi": hi,
        "lfsr": min(higher, 1 - higher),
        "credible_pooled": bool(lo > 0 or hi < 0),
        "rhat": judged["rhat"],
        "ess_min": min(judged["ess_bulk"], judged["ess_tail"]),
    }


def _diagnostics(column: Floats) -> dict[str, float]:
    """Of one quantity's (chain, draw)."""
    import arviz as az

    return {
        "rhat": float(az.rhat(column)),
        "ess_bulk": float(az.ess(column, method="bulk")),
        "ess_tail": float(az.ess(column, method="tail")),
    }


def _dataset(
    found: Mapping[str, Estimate], variants: Sequence[str], names: Sequence[str]
) -> xr.Dataset:
    """Draws as chain x draw x scorer x variant x subset; empty if nothing was pooled."""
    if not found:
        return xr.Dataset()
    draws = min(e.rate.shape[1] for e in found.values())  # a second try draws more
    rate = np.stack([e.rate[:, :draws] for e in found.values()], axis=2)
    chains = len(rate)
    hyper = {name for e in found.values() for name in e.hyper}
    coords = {
        "chain": np.arange(chains), "draw": np.arange(draws), "scorer": list(found),
        "variant": list(variants), "subset": list(names),
    }  # fmt: skip
    columns = {
        name: (
            ("chain", "draw", "scorer"),
            np.stack(
                [
                    e.hyper[name][:, :draws]
                    if name in e.hyper
                    else np.full((chains, draws), np.nan)
                    for e in found.values()
                ],
                axis=2,
            ),
        )
        for name in sorted(hyper)
    }
    seeds = ", ".join(f"{name}: {one.effort.seed}" for name, one in found.items())
    rows = {"rate": (("chain", "draw", "scorer", "variant", "subset"), rate), **columns}
    return xr.Dataset(
        {**rows, **_recipe_columns(found, draws)}, coords, {"sampler_seeds": seeds}
    ).assign_coords(_recipe_names(found))


def _recipe_columns(found: Mapping[str, Estimate], draws: int) -> dict[str, Any]:
    """Spreads, and how many variants a recipe has; nothing without recipes."""
    spreads = [e.spread[:, :draws] for e in found.values() if e.spread is not None]
    recipes = next(iter(found.values())).counts.recipes
    if recipes is None:
        return {}
    return {
        "recipe_spread": (("chain", "draw", "scorer", "recipe"), np.stack(spreads, axis=2)),
        "recipe_variants": (("recipe",), np.bincount(recipes.of[recipes.members])),
    }


def _recipe_names(found: Mapping[str, Estimate]) -> dict[str, list[str]]:
    recipes = next(iter(found.values())).counts.recipes
    return {} if recipes is None else {"recipe": list(recipes.names)}
