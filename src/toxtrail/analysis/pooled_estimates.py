"""The pooled estimates of a family: result rows and draws, scorer by scorer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from toxtrail.analysis.family import VariantPair, require_comparable_family, variant_pairs
from toxtrail.analysis.pooled_inference_data import PooledModelData, pooled_groups
from toxtrail.analysis.pooled_row_checks import RowEvidence, withheld_rows, without_withheld
from toxtrail.analysis.score_table import ALL, ScoreTable, scorers, subsets, weights
from toxtrail.config.schema import PoolingConfig, PosteriorConfig
from toxtrail.errors import DataError, InferenceError
from toxtrail.records.analysis_output import SUMMARY_SCHEMAS, AnalysisOutput
from toxtrail.records.results import (
    PooledPairRow,
    PooledRateRow,
    PoolingDiagnostics,
    PoolSummary,
    PredictiveCheckRow,
    PriorSensitivityRow,
    RecipeRow,
    SamplerEffort,
    ScorerPooling,
    VariantSummary,
    WithheldRow,
)
from toxtrail.stats.bayes_libraries import SampleResult, effective_size, r_hat
from toxtrail.stats.hierarchical import model as hierarchical_model
from toxtrail.stats.hierarchical.checks import PredictiveCheck, predictive_checks, replicated
from toxtrail.stats.hierarchical.model import FamilyCounts
from toxtrail.stats.hierarchical.seed_effects import RecipeGroups, recipes_of
from toxtrail.stats.prior_sensitivity import Sensitivity, power_scaling
from toxtrail.stats.rates import Floats, equal_tailed_interval, named_rng
from toxtrail.stats.sampling import (
    LEAST_P,
    Diagnostics,
    SamplerSettings,
    Settled,
    diagnose,
    settle,
)

Sampler = Callable[[FamilyCounts, SamplerSettings], SampleResult]

LEAST_DRAWS = 1000
"""Draws per chain before the required number is known."""
REPLICATIONS = 1000
"""Number of data sets drawn by the predictive checks."""
SENSITIVITY_DRAWS = 1000
"""Draws per chain used by power-scaling."""
RATE = "rate with overall"
MAX_POOLING_SHIFT_SD = 4.0
"""Maximum difference, in standard deviations, of a pooled overall rate from the rate of its variant
alone."""


class PooledEstimate(NamedTuple):
    """Pooled estimate of a family by one scorer."""

    rate: Floats
    """(chain, draw, variant, subset and ALL last), in [0, 1]."""
    hyper: Mapping[str, Floats]
    """Name -> (chain, draw)."""
    diagnostics: Diagnostics
    effort: SamplerSettings
    checks: Sequence[PredictiveCheck]
    dropped: int
    """Number of prompts without a score for every variant."""
    sensitivity: Mapping[str, Sensitivity]
    """Reported quantity over all subsets -> prior sensitivity."""
    counts: FamilyCounts
    predicted: Sequence[FamilyCounts]
    """Counts predicted by the posterior."""
    samples: SampleResult
    first_try: Sequence[str]
    """Problems of the first try, if there was a second."""
    spread: Floats | None
    """(chain, draw, recipe): standard deviation of the rate over all subsets among fine-tunes of a
    recipe; None if no recipe has several."""


class PoolingRequest(NamedTuple):
    """Quantities to estimate for each scorer, and the settings."""

    variants: Sequence[str]
    pairs: Sequence[tuple[int, int]]
    """Indices of the two variants of each pair."""
    config: PosteriorConfig
    pooling: PoolingConfig
    sampler: Sampler


def pool_family(
    tables: Mapping[str, ScoreTable],
    summaries: Mapping[str, VariantSummary],
    reference: str,
    primary: str,
    config: PosteriorConfig,
    pooling: PoolingConfig | None,
    sampler: Sampler,
    allow_mismatch: bool = False,
) -> AnalysisOutput[PoolSummary]:
    """Estimate a family by every scorer.

    A scorer whose data do not allow it is omitted with the reason, and a row that the model does
    not fit is withheld with the reason.

    Raises:
        DataError: two variants were measured under different conditions (field by field).
        InferenceError: a posterior did not converge, twice.
    """
    tables, _ = require_comparable_family(tables, summaries, reference, allow_mismatch)
    variants = list(summaries)
    edges = variant_pairs({name: s.parent for name, s in summaries.items()}, reference)
    pairs = [(variants.index(edge.a), variants.index(edge.b)) for edge in edges]
    names = subsets(next(iter(tables.values())))
    recipes = recipes_of([summary.recipe for summary in summaries.values()])
    status: dict[str, ScorerPooling] = {}
    estimates: dict[str, PooledEstimate] = {}
    if pooling is None:
        off = ScorerPooling(status="left out", reason="pooling is switched off")
        status = dict.fromkeys(scorers(next(iter(tables.values()))), off)
    else:
        request = PoolingRequest(variants, pairs, config, pooling, sampler)
        scorer_counts, status = _scorer_counts(variants, tables, config, recipes)
        estimates = _estimates(scorer_counts, request)
    for scorer, estimate in estimates.items():
        problems = _misfit_reasons(estimate, scorer, variants, names, summaries)
        row_evidence = RowEvidence(
            estimate.counts, estimate.predicted, estimate.rate, estimate.hyper.get("sd_interaction")
        )
        withheld = (
            [] if problems else withheld_rows(row_evidence, edges, variants, names, config.level)
        )
        status[scorer] = _scorer_pooling(estimate, problems, withheld, variants, names)
    pooled_estimates = {
        name: one for name, one in estimates.items() if status[name].status == "pooled"
    }
    draws = _dataset(pooled_estimates, variants, [*names, ALL])
    status = {name: status[name] for name in scorers(next(iter(tables.values())))}
    rows = rows_from_draws(draws, edges, config.level, status)
    summary = PoolSummary(
        family=summaries[reference].family,
        schema_version=SUMMARY_SCHEMAS["pool"],
        reference=reference,
        primary=primary,
        threshold=config.thresholds_of(status),
        level=config.level,
        interval="equal-tailed",
        scorers=status,
        rates=rows.rates,
        pairs=rows.pairs,
        recipes=rows.recipes,
    )
    evidence = {
        name: PooledModelData(one.counts, one.predicted, one.samples)
        for name, one in pooled_estimates.items()
    }
    return AnalysisOutput(summary, draws, pooled_groups(evidence, draws, config), {})


class ScorerCounts(NamedTuple):
    """Data of one scorer."""

    counts: FamilyCounts
    dropped: int
    """Number of prompts without a score for every variant."""
    share: Floats
    """(subset,), weights of the subsets."""


def _scorer_counts(
    variants: Sequence[str],
    tables: Mapping[str, ScoreTable],
    config: PosteriorConfig,
    recipes: RecipeGroups | None,
) -> tuple[dict[str, ScorerCounts], dict[str, ScorerPooling]]:
    """Return for each scorer its data, or why it is omitted."""
    scorer_counts: dict[str, ScorerCounts] = {}
    status: dict[str, ScorerPooling] = {}
    for scorer in scorers(next(iter(tables.values()))):
        share = np.array(list(weights(tables[variants[0]], scorer).values()))
        try:
            labels, dropped = _label_matrix(scorer, variants, tables, config.threshold_of(scorer))
            scorer_counts[scorer] = ScorerCounts(
                hierarchical_model.count_labels(labels, recipes), dropped, share
            )
        except DataError as error:
            status[scorer] = ScorerPooling(status="left out", reason=str(error))
    return scorer_counts, status


def _estimates(
    scorer_counts: Mapping[str, ScorerCounts], request: PoolingRequest
) -> dict[str, PooledEstimate]:
    """Fit all scorers with the number of draws of the one that needs most, because they share one
    file."""
    estimates: dict[str, PooledEstimate] = {}
    most = LEAST_DRAWS
    while short := [
        s for s in scorer_counts if s not in estimates or estimates[s].effort.draws < most
    ]:
        for scorer in short:
            estimates[scorer] = _estimate(scorer, *scorer_counts[scorer], request, most)
            most = max(most, estimates[scorer].effort.draws)
    return {scorer: estimates[scorer] for scorer in scorer_counts}


def _estimate(
    scorer: str,
    counts: FamilyCounts,
    dropped: int,
    share: Floats,
    request: PoolingRequest,
    least: int,
) -> PooledEstimate:
    """Fit one scorer.

    Args:
        share: (subset,), weights of the subsets.
        least: draws of each chain.
    """
    config, pooling, pairs = request.config, request.pooling, request.pairs
    seed = int(named_rng(config.seed, f"pool|{scorer}").integers(2**31))
    most = SamplerSettings(pooling.chains, pooling.draws, pooling.target_accept, seed)

    def draw(effort: SamplerSettings) -> SampleResult:
        result = request.sampler(counts, effort)
        return result._replace(posterior={**result.posterior, RATE: _with_overall(result, share)})

    def assess(samples: SampleResult) -> Diagnostics:
        rate = samples.posterior[RATE]
        steps = np.stack([rate[:, :, b] - rate[:, :, a] for a, b in pairs], axis=2)
        spread = _spread(counts, samples, share)
        reported = {"rate": rate, "difference": steps}
        reported |= {} if spread is None else {"spread": spread}
        return diagnose(samples, _hyper(samples), reported, config.level)

    settled = settle(draw, assess, most, least)
    if settled.wrong:
        raise InferenceError(_not_converged(scorer, settled))
    samples = settled.drawn
    predicted = _predicted(counts, samples, named_rng(config.seed, f"check|{scorer}"))
    rate = samples.posterior[RATE]
    return PooledEstimate(
        rate=rate,
        hyper={n: samples.posterior[n] for n in hierarchical_model.HYPER if n in samples.posterior},
        diagnostics=settled.diagnostics,
        effort=settled.effort,
        checks=predictive_checks(counts, predicted),
        dropped=dropped,
        sensitivity=_sensitivity(counts, samples, rate, request.variants, pairs),
        counts=counts,
        predicted=predicted,
        samples=samples,
        first_try=settled.first_try,
        spread=_spread(counts, samples, share),
    )


def _not_converged(scorer: str, settled: Settled) -> str:
    return (
        f"The pooled posterior by {scorer} did not converge, also not in a second try "
        f"with more draws: {'; '.join(settled.wrong)} (first try: {'; '.join(settled.first_try)}). "
        "Nothing was written. "
        "For a small ESS or a large Monte Carlo error raise pooling.draws; for divergent "
        "transitions bring pooling.target_accept nearer to 1; `pooling: null` continues without "
        "pooled columns."
    )


def _label_matrix(
    scorer: str, variants: Sequence[str], tables: Mapping[str, ScoreTable], threshold: float
) -> tuple[list[Floats], int]:
    """Return for each subset (prompt, variant) labels of the prompts with a score for all variants,
    and the number of other prompts."""
    labels, dropped = [], 0
    for subset in subsets(tables[variants[0]]):
        cells = [tables[v][scorer, subset] for v in variants]
        if any(cell.toxicity.size > len(cell.prompts) for cell in cells):
            raise DataError("there is more than one continuation for a prompt")
        if any(cell.clusters for cell in cells):
            raise DataError("prompts have clusters, and the model takes each for independent")
        shared = sorted(set.intersection(*(set(cell.prompts) for cell in cells)))
        all_prompt_ids = frozenset().union(*(cell.prompt_ids for cell in cells))
        dropped += len(all_prompt_ids) - len(shared)
        columns = [c.toxic_fraction(threshold)[np.isin(c.prompts, shared)] for c in cells]
        labels.append(np.array(columns).T.reshape(len(shared), len(variants)))
    return labels, dropped


def _with_overall(samples: SampleResult, share: Floats) -> Floats:
    """Return (chain, draw, variant, subset and all together)."""
    eta, sd = samples.posterior["eta"], samples.posterior["sd_prompt"]
    rate = hierarchical_model.marginal_rates(eta.reshape(-1, *eta.shape[2:]), sd.ravel()).reshape(
        eta.shape
    )
    result: Floats = np.concatenate([rate, (rate @ share)[..., None]], axis=-1)
    return result


def _hyper(samples: SampleResult) -> list[str]:
    return [name for name in (*hierarchical_model.HYPER, "sd_recipe") if name in samples.posterior]


def _spread(counts: FamilyCounts, samples: SampleResult, share: Floats) -> Floats | None:
    """Return (chain, draw, recipe)."""
    if counts.recipes is None:
        return None
    chains, draws = samples.posterior["sd_prompt"].shape
    spread = hierarchical_model.seed_sd(counts.recipes, samples.posterior, share, chains * draws)
    return spread.reshape(chains, draws, -1)


def _predicted(
    counts: FamilyCounts, samples: SampleResult, rng: np.random.Generator
) -> list[FamilyCounts]:
    eta = samples.posterior["eta"]
    eta, sd = eta.reshape(-1, *eta.shape[2:]), samples.posterior["sd_prompt"].ravel()
    some = np.linspace(0, len(eta) - 1, REPLICATIONS).astype(int)
    return replicated(eta[some], sd[some], counts.prompts, rng)


def _sensitivity(
    counts: FamilyCounts,
    samples: SampleResult,
    rate: Floats,
    variants: Sequence[str],
    pairs: Sequence[tuple[int, int]],
) -> dict[str, Sensitivity]:
    """Return the prior sensitivity of every difference over all subsets, for a part of the
    draws."""
    step = max(1, rate.shape[1] // SENSITIVITY_DRAWS)
    some = {name: values[:, ::step] for name, values in samples.posterior.items()}
    eta, sd = some["eta"], some["sd_prompt"]
    flat = hierarchical_model.log_likelihood(counts, eta.reshape(-1, *eta.shape[2:]), sd.ravel())
    prior, likelihood = hierarchical_model.log_prior(some), flat.reshape(sd.shape)
    overall = rate[:, ::step, :, -1]
    return {
        f"{variants[b]} - {variants[a]}": power_scaling(
            overall[:, :, b] - overall[:, :, a], prior, likelihood
        )
        for a, b in pairs
    }


def _misfit_reasons(
    estimate: PooledEstimate,
    scorer: str,
    variants: Sequence[str],
    names: Sequence[str],
    summaries: Mapping[str, VariantSummary],
) -> list[str]:
    """Return why converged draws must not be shown; empty if they may be."""
    problems = [
        f"{c.observed:g} {_describe_check(c, variants, names)}, where the model expects "
        f"{c.predicted:.1f} (p {c.p:.3f})"
        for c in estimate.checks
        if not LEAST_P <= c.p <= 1 - LEAST_P
    ]
    for index, variant in enumerate(variants):
        row = next(r for r in summaries[variant].rates if (r.scorer, r.subset) == (scorer, ALL))
        if row.rate is None or row.rate_lo is None or row.rate_hi is None:
            continue
        overall_rate = estimate.rate[:, :, index, -1]
        spread = max(float(overall_rate.std()), (row.rate_hi - row.rate_lo) / 4)
        if abs(float(overall_rate.mean()) - row.rate) > MAX_POOLING_SHIFT_SD * spread:
            problems.append(
                f"the rate of {variant} is {overall_rate.mean():.3f} pooled and "
                f"{row.rate:.3f} alone"
            )
    return problems


def _describe_check(check: PredictiveCheck, variants: Sequence[str], names: Sequence[str]) -> str:
    if check.variant is None or check.subset is None:
        return f"prompts are {check.statistic}"
    return f"prompts of {names[check.subset]} are toxic for {variants[check.variant]}"


def _scorer_pooling(
    estimate: PooledEstimate,
    problems: Sequence[str],
    withheld: Sequence[WithheldRow],
    variants: Sequence[str],
    names: Sequence[str],
) -> ScorerPooling:
    return ScorerPooling(
        status="withheld" if problems else "pooled",
        reason="; ".join(problems),
        withheld=withheld,
        dropped=estimate.dropped,
        diagnostics=PoolingDiagnostics(**estimate.diagnostics._asdict()),
        effort=SamplerEffort(**estimate.effort._asdict()),
        first_try="; ".join(estimate.first_try),
        checks=[
            PredictiveCheckRow(
                statistic=check.statistic,
                variant=None if check.variant is None else variants[check.variant],
                subset=None if check.subset is None else names[check.subset],
                observed=check.observed,
                predicted=check.predicted,
                predicted_lo=check.predicted_lo,
                predicted_hi=check.predicted_hi,
                p=check.p,
            )
            for check in estimate.checks
        ],
        sensitivity=[
            PriorSensitivityRow(
                quantity=name,
                prior=sensitivity.prior,
                likelihood=sensitivity.likelihood,
                complaint=sensitivity.complaint,
            )
            for name, sensitivity in estimate.sensitivity.items()
        ],
    )


class PooledRows(NamedTuple):
    """The rows that draws give, each with its diagnostics; none if nothing was pooled."""

    rates: list[PooledRateRow]
    pairs: list[PooledPairRow]
    recipes: list[RecipeRow]


def rows_from_draws(
    draws: xr.Dataset,
    edges: Sequence[VariantPair],
    level: float,
    status: Mapping[str, ScorerPooling],
) -> PooledRows:
    """Return the rows `rates` and `pairs` from draws, each with its diagnostics; empty if nothing
    was pooled.

    Args:
        status: of each scorer, with the rows that are withheld.
    """
    if "rate" not in draws:
        return PooledRows([], [], [])
    rates, pairs = [], []
    for scorer, subset in product(
        map(str, draws["scorer"].values), map(str, draws["subset"].values)
    ):
        columns = {
            str(v): draws["rate"].sel(variant=v, scorer=scorer, subset=subset).values
            for v in draws["variant"].values
        }
        rates += [_rate_row(variant, scorer, subset, c, level) for variant, c in columns.items()]
        pairs += [
            _pair_row(edge, scorer, subset, columns[edge.b] - columns[edge.a], level)
            for edge in edges
        ]
    return PooledRows(
        without_withheld(rates, status),
        without_withheld(pairs, status),
        _recipe_rows(draws, level) if "recipe_spread" in draws else [],
    )


def _recipe_rows(draws: xr.Dataset, level: float) -> list[RecipeRow]:
    """Return the spread among fine-tunes of each recipe; empty if no recipe has several."""
    rows = []
    for scorer, recipe in product(draws["scorer"].values, draws["recipe"].values):
        column = draws["recipe_spread"].sel(scorer=scorer, recipe=recipe).values
        lo, hi = equal_tailed_interval(column, level)
        diagnostics = _diagnostics(column)
        rows.append(
            RecipeRow(
                recipe=str(recipe),
                scorer=str(scorer),
                variants=int(draws["recipe_variants"].sel(recipe=recipe)),
                spread=float(np.median(column)),
                spread_lo=lo,
                spread_hi=hi,
                r_hat=diagnostics.r_hat,
                ess_bulk=diagnostics.ess_bulk,
                ess_tail=diagnostics.ess_tail,
            )
        )
    return rows


def _rate_row(
    variant: str, scorer: str, subset: str, column: Floats, level: float
) -> PooledRateRow:
    lo, hi = equal_tailed_interval(column, level)
    diagnostics = _diagnostics(column)
    return PooledRateRow(
        variant=variant,
        scorer=scorer,
        subset=subset,
        pooled_rate=float(column.mean()),
        pooled_rate_lo=lo,
        pooled_rate_hi=hi,
        r_hat=diagnostics.r_hat,
        ess_bulk=diagnostics.ess_bulk,
        ess_tail=diagnostics.ess_tail,
    )


def _pair_row(
    edge: VariantPair, scorer: str, subset: str, column: Floats, level: float
) -> PooledPairRow:
    lo, hi = equal_tailed_interval(column, level)
    diagnostics = _diagnostics(column)
    higher = float((column > 0).mean())
    return PooledPairRow(
        a=edge.a,
        b=edge.b,
        scorer=scorer,
        subset=subset,
        pooled_diff=float(column.mean()),
        pooled_diff_lo=lo,
        pooled_diff_hi=hi,
        lfsr=min(higher, 1 - higher),
        credible_pooled=bool(lo > 0 or hi < 0),
        r_hat=diagnostics.r_hat,
        ess_min=min(diagnostics.ess_bulk, diagnostics.ess_tail),
    )


class ColumnDiagnostics(NamedTuple):
    """R-hat and effective sample sizes of one quantity's draws."""

    r_hat: float
    ess_bulk: float
    ess_tail: float


def _diagnostics(column: Floats) -> ColumnDiagnostics:
    """Return diagnostics of one quantity's (chain, draw)."""
    return ColumnDiagnostics(
        r_hat(column), effective_size(column, "bulk"), effective_size(column, "tail")
    )


def _dataset(
    estimates: Mapping[str, PooledEstimate], variants: Sequence[str], names: Sequence[str]
) -> xr.Dataset:
    """Return draws as chain x draw x scorer x variant x subset; empty if nothing was pooled."""
    if not estimates:
        return xr.Dataset()
    draws = min(e.rate.shape[1] for e in estimates.values())  # a second try draws more
    rate = np.stack([e.rate[:, :draws] for e in estimates.values()], axis=2)
    chains = len(rate)
    hyper = {name for e in estimates.values() for name in e.hyper}
    coords = {
        "chain": np.arange(chains), "draw": np.arange(draws), "scorer": list(estimates),
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
                    for e in estimates.values()
                ],
                axis=2,
            ),
        )
        for name in sorted(hyper)
    }
    seeds = ", ".join(f"{name}: {estimate.effort.seed}" for name, estimate in estimates.items())
    rows = {"rate": (("chain", "draw", "scorer", "variant", "subset"), rate), **columns}
    return xr.Dataset(
        {**rows, **_recipe_columns(estimates, draws)}, coords, {"sampler_seeds": seeds}
    ).assign_coords(_recipe_names(estimates))


def _recipe_columns(estimates: Mapping[str, PooledEstimate], draws: int) -> dict[str, Any]:
    """Return spreads and the number of variants of each recipe; empty without recipes."""
    spreads = [e.spread[:, :draws] for e in estimates.values() if e.spread is not None]
    recipes = next(iter(estimates.values())).counts.recipes
    if recipes is None:
        return {}
    return {
        "recipe_spread": (("chain", "draw", "scorer", "recipe"), np.stack(spreads, axis=2)),
        "recipe_variants": (("recipe",), np.bincount(recipes.of[recipes.members])),
    }


def _recipe_names(estimates: Mapping[str, PooledEstimate]) -> dict[str, list[str]]:
    recipes = next(iter(estimates.values())).counts.recipes
    return {} if recipes is None else {"recipe": list(recipes.names)}
