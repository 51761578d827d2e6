"""Comparisons of a family, and of runs: result rows and draws."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from toxtrail.analysis.dose_response import dose_tables
from toxtrail.analysis.family import mismatch, require_comparable_family, variant_pairs
from toxtrail.analysis.guard_refusals import refusal_pairs
from toxtrail.analysis.inference_data import pair_groups
from toxtrail.analysis.paired_rows import pair_rows, refuse_unlike, rope_half_width
from toxtrail.analysis.response_behaviour import (
    behaviour_pairs,
    in_other_language,
    reduced_output,
)
from toxtrail.analysis.response_flags.registry import flag_meanings
from toxtrail.analysis.response_table import (
    SubsetResponses,
    build_response_table,
    limited_to,
    refusal_columns,
)
from toxtrail.analysis.score_table import (
    ALL,
    ScoreTable,
    build_score_table,
    draws_to_dataset,
    scorers,
)
from toxtrail.analysis.scorer_agreement import agreement_pairs
from toxtrail.analysis.scorer_correction import corrected_scorers, with_corrected_differences
from toxtrail.config.schema import PosteriorConfig
from toxtrail.errors import DataError
from toxtrail.provenance.comparability import SCORER, THRESHOLD, require_comparable
from toxtrail.provenance.identity import content_key
from toxtrail.records.analysis_output import SUMMARY_SCHEMAS, AnalysisOutput
from toxtrail.records.columns import ResultTable, result_table, with_columns
from toxtrail.records.results import (
    OPTIONAL_TABLES,
    TABLES,
    AnnotatorAgreement,
    ComparedVariant,
    ComparisonSummary,
    ConditionMismatchRow,
    ErrorControlRow,
    PairRow,
    PoolSummary,
    ScorerPooling,
    VariantSummary,
)
from toxtrail.records.rows import Generation, Score
from toxtrail.stats.rates import Floats


def compare_family(
    tables: Mapping[str, ScoreTable],
    texts: Mapping[str, Mapping[str, SubsetResponses]],
    summaries: Mapping[str, VariantSummary],
    reference: str,
    primary: str,
    config: PosteriorConfig,
    allow_mismatch: bool = False,
    rope_reference: float | None = None,
    title: str | None = None,
) -> AnalysisOutput[ComparisonSummary]:
    """Compare all variant pairs of a family, for every scorer and subset.

    Args:
        tables: variant -> its cells.
        texts: variant -> subset -> responses.
        summaries: variant -> its posterior summary, in the family's order.
        allow_mismatch: compare what variants under different conditions have in common, and mark
            the summary.
        rope_reference: instead of the reference's own rate (see `reference_rate`).

    Raises:
        DataError: two variants were measured under different conditions (field by field).
    """
    tables, unlike = require_comparable_family(tables, summaries, reference, allow_mismatch)
    if unlike:
        texts = _in_common(texts, tables)
    edges = variant_pairs({name: s.parent for name, s in summaries.items()}, reference)
    refuse_unlike(tables, edges)
    rate = rope_reference
    if rate is None:
        rate = reference_rate(summaries[reference], primary, config)
    region = rope_half_width(rate, config)
    behaviour = behaviour_pairs(edges, texts, config)
    changes = {(row.a, row.b, row.subset): row for row in behaviour}
    rows: list[PairRow] = []
    draws: dict[tuple[str, str, str], Any] = {}
    for edge in edges:
        for row, pair_draws in pair_rows(
            edge, tables[edge.a], tables[edge.b], region, config, len(edges)
        ):
            change = changes[edge.a, edge.b, row.subset]
            reduced, switched = reduced_output(change), in_other_language(change)
            rows.append(replace(row, reduced_output=reduced, other_language=switched))
            draws[row.scorer, f"{edge.b} - {edge.a}", row.subset] = pair_draws
    doses = dose_tables(tables, summaries, config)
    summary = ComparisonSummary(
        family=summaries[reference].family if title is None else title,
        schema_version=SUMMARY_SCHEMAS["comparison"],
        reference=reference,
        primary=primary,
        threshold=_thresholds(summaries.values(), tables[reference], config),
        level=config.level,
        interval="equal-tailed",
        rope_pp=config.rope_pp,
        rope_relative=config.rope_relative or 0.0,
        rope_reference=rate,
        rope=region,
        corrected_scorers=corrected_scorers(tables, config),
        annotators=_common_agreement(summaries),
        comparability=summaries[reference].comparability,
        mismatch=[ConditionMismatchRow(**condition._asdict()) for condition in unlike],
        variants=[_identity(s) for s in summaries.values()],
        rates=[row for s in summaries.values() for row in s.rates],
        behaviour=[row for s in summaries.values() for row in s.behaviour],
        thresholds=[row for s in summaries.values() for row in s.thresholds],
        pairs=with_agreement(with_corrected_differences(rows, tables, summaries, config)),
        behaviour_pairs=behaviour,
        agreement=[row for s in summaries.values() for row in s.agreement],
        agreement_pairs=agreement_pairs(edges, tables, config),
        refusals=[row for s in summaries.values() for row in s.refusals] or (),
        refusal_pairs=refusal_pairs(edges, texts, config) or (),
        doses=doses.doses,
        slopes=doses.slopes,
    )
    differences = {key: None if d is None else d.difference for key, d in draws.items()}
    dataset = _difference_draws(differences, config)
    return AnalysisOutput(summary, dataset, pair_groups(draws, rows, config), {})


def _common_agreement(summaries: Mapping[str, VariantSummary]) -> AnnotatorAgreement | None:
    """Return the annotators' agreement if it is one for all variants."""
    first, *others = (summary.annotators for summary in summaries.values())
    return first if all(other == first for other in others) else None


def _thresholds(
    summaries: Iterable[VariantSummary], table: ScoreTable, config: PosteriorConfig
) -> dict[str, float]:
    """Return scorer -> threshold: that of the differences, or of the rates of other scorers."""
    of_rates = {name: value for s in summaries for name, value in s.threshold.items()}
    return of_rates | config.thresholds_of(scorers(table))


def reference_rate(summary: VariantSummary, primary: str, config: PosteriorConfig) -> float | None:
    """Return the rate for the region of practical equivalence, one for a family.

    It is the one of params.yaml, or the reference's posterior mean over all subsets by the primary
    scorer; None if nothing was scored.
    """
    if config.rope_reference_pct is not None:
        return config.rope_reference_pct / 100
    means = [row.rate_mean for row in summary.rates if (row.scorer, row.subset) == (primary, ALL)]
    return means[0] if means else None


def with_agreement(rows: Sequence[PairRow]) -> list[PairRow]:
    """Add the other scorers' agreement to each pair: `agree`, `fragile` (another scorer has another
    verdict) or `one scorer`."""
    verdicts_by_pair: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        verdicts_by_pair.setdefault((row.a, row.b, row.subset), []).append(row.verdict)

    def agreement(row: PairRow) -> str:
        verdicts = verdicts_by_pair[row.a, row.b, row.subset]
        if len(verdicts) == 1:
            return "one scorer"
        return "agree" if len(set(verdicts)) == 1 else "fragile"

    return [replace(row, agreement=agreement(row)) for row in rows]


def with_pooled(
    comparison: AnalysisOutput[ComparisonSummary], pooled: PoolSummary | None
) -> AnalysisOutput[ComparisonSummary]:
    """Add the pooled estimates to the comparison row by row; None if there are none."""
    summary = comparison.summary
    if pooled is not None:
        rates = {(row.variant, row.scorer, row.subset): row for row in pooled.rates}
        pairs = {(row.a, row.b, row.scorer, row.subset): row for row in pooled.pairs}
        summary = replace(
            summary,
            pooled=pooled.scorers,
            recipes=pooled.recipes,
            rates=[
                with_columns(row, rates.get((row.variant, row.scorer, row.subset)))
                for row in summary.rates
            ],
            pairs=[
                with_columns(row, pairs.get((row.a, row.b, row.scorer, row.subset)))
                for row in summary.pairs
            ],
        )
    return comparison._replace(summary=replace(summary, error_control=error_control(summary)))


def error_control(summary: ComparisonSummary) -> list[ErrorControlRow]:
    """Return for each scorer the number of claimed differences, and the expected number with the
    wrong sign: the sum of their local false sign rates (Stephens 2017,
    doi:10.1093/biostatistics/kxw041)."""
    left_out = ScorerPooling(status="left out", reason="nothing was pooled")
    result = []
    for scorer in sorted({row.scorer for row in summary.pairs}):
        rows = [row for row in summary.pairs if row.scorer == scorer]
        called = [row for row in rows if row.credible_pooled]
        pooled = any(row.lfsr is not None for row in rows)
        gate = summary.pooled.get(scorer, left_out)
        claims = ErrorControlRow(
            scorer=scorer,
            n_pairs=len(rows),
            n_credible_paired=sum(row.verdict in ("higher", "lower") for row in rows),
            n_credible_pooled=len(called) if pooled else None,
            expected_false_signs=sum(row.lfsr or 0.0 for row in called) if pooled else None,
            gate=gate.status,
            gate_reason=gate.reason,
            first_try=gate.first_try or "",
        )
        result.append(with_columns(claims, gate.diagnostics))
    return result


def comparison_tables(summary: ComparisonSummary) -> dict[str, ResultTable]:
    """Return the tables that are written beside the summary."""
    return {
        name: result_table(row_class, getattr(summary, name), flag_meanings())
        for name, row_class in TABLES.items()
        if name not in OPTIONAL_TABLES or getattr(summary, name)
    }


class MeasuredRun(NamedTuple):
    """Tracked variant with the rows behind its rates."""

    label: str
    """Name in a table; unique within a comparison."""
    summary: VariantSummary
    """Summary of its posterior."""
    scores: Sequence[Score]
    generations: Sequence[Generation]


def compare_runs(
    runs: Sequence[MeasuredRun], title: str, allow_mismatch: bool
) -> ComparisonSummary:
    """Return the comparison of tracked variants from any experiment.

    Draws are named by variants, so two runs of a family have the same numbers as the family's own
    comparison; labels are inserted afterwards.

    Args:
        runs: the others are compared with the first, and with their parents among them; its
            settings are used.

    Raises:
        DataError: they were measured under different conditions (field by field).
    """
    first, names = runs[0], _unique_names(runs)
    reference, primary = next(iter(names)), first.summary.primary
    summaries = {key: _renamed(run.summary, key, _parent(run, names)) for key, run in names.items()}
    config = PosteriorConfig.model_validate(_manifest(first)["params"]["posterior"])
    common = _common_rate(summaries, primary, config)
    summaries[reference] = _renamed(summaries[reference], reference, None)
    if not allow_mismatch:
        labelled = {names[key].label: summary for key, summary in summaries.items()}
        unlike = mismatch(labelled, first.label)
        require_comparable(
            unlike, first.label, "--allow-mismatch compares them and marks the output."
        )
    comparison = compare_family(
        {key: build_score_table(one.scores) for key, one in names.items()},
        {
            key: build_response_table(
                one.generations,
                one.summary.behaviour[0].length_unit,
                guards=list(dict.fromkeys(row.scorer for row in one.summary.refusals)),
                refusals=refusal_columns(one.scores),
            )
            for key, one in names.items()
        },
        summaries,
        reference,
        primary,
        _with_judges(config, names, {row.field for row in mismatch(summaries, reference)}),
        allow_mismatch=True,
        rope_reference=common,
        title=title,
    )
    labels = {key: run.label for key, run in names.items()}
    summary: ComparisonSummary = _relabelled(with_pooled(comparison, None).summary, labels)
    return replace(summary, reference=first.label, prior=config.prior)


def _manifest(run: MeasuredRun) -> Mapping[str, Any]:
    if run.summary.manifest is None:
        raise DataError(
            f"{run.label} contains no manifest, so its measurement conditions are unknown."
        )
    return run.summary.manifest


def _renamed(summary: VariantSummary, variant: str, parent: str | None) -> VariantSummary:
    return replace(
        summary,
        variant=variant,
        parent=parent,
        rates=[replace(row, variant=variant, parent=parent) for row in summary.rates],
        behaviour=[replace(row, variant=variant, parent=parent) for row in summary.behaviour],
        refusals=[replace(row, variant=variant, parent=parent) for row in summary.refusals],
        thresholds=[replace(row, variant=variant, parent=parent) for row in summary.thresholds],
        agreement=[replace(row, variant=variant, parent=parent) for row in summary.agreement],
    )


def _common_rate(
    summaries: Mapping[str, VariantSummary], primary: str, config: PosteriorConfig
) -> float | None:
    """Return the reference rate of runs in any order: the mean over those from which others were
    tuned, or over all."""
    parents = {summary.parent for summary in summaries.values()}
    reference_summaries = [s for name, s in summaries.items() if name in parents] or list(
        summaries.values()
    )
    rates = [reference_rate(summary, primary, config) for summary in reference_summaries]
    measured_rates = sorted(rate for rate in rates if rate is not None)
    return sum(measured_rates) / len(measured_rates) if measured_rates else None


def _unique_names(runs: Sequence[MeasuredRun]) -> dict[str, MeasuredRun]:
    """Return variant -> run; a second run of a variant is named by its label."""
    names: dict[str, MeasuredRun] = {}
    for run in runs:
        variant = run.summary.variant
        names[run.label if variant in names else variant] = run
    return names


def _parent(run: MeasuredRun, names: Mapping[str, MeasuredRun]) -> str | None:
    parent = run.summary.parent
    return parent if parent in names else None


def _with_judges(
    config: PosteriorConfig, names: Mapping[str, MeasuredRun], unlike: Collection[str]
) -> PosteriorConfig:
    """Apply the known error rates of a scorer on a variant's texts to each of its runs; none for a
    scorer that differs between the runs.

    Args:
        unlike: conditions that differ between the runs.
    """
    judges = {}
    for scorer, judge in (config.scorer_error or {}).items():
        if {f"{SCORER}{scorer}", f"{THRESHOLD}{scorer}"} & set(unlike):
            continue
        variant_accuracies = judge.variants or {}
        runs = {key: run.summary.variant for key, run in names.items()}
        run_accuracies = {
            key: variant_accuracies[variant]
            for key, variant in runs.items()
            if variant in variant_accuracies
        }
        judges[scorer] = judge.model_copy(
            update={"variants": {**variant_accuracies, **run_accuracies} or None}
        )
    return config.model_copy(update={"scorer_error": judges or None})


NAMING = {"variant", "a", "b", "parent"}
"""Keys of a summary whose values name variants."""


def _relabelled(value: Any, labels: Mapping[str, str]) -> Any:
    """Return the rows or summaries with the labels in place of the names."""
    if isinstance(value, list | tuple):
        return [_relabelled(item, labels) for item in value]
    if not is_dataclass(value) or isinstance(value, type):
        return value
    entries = {field.name: getattr(value, field.name) for field in fields(value)}
    return replace(
        value,
        **{
            name: labels.get(entry, entry)
            if name in NAMING and isinstance(entry, str)
            else _relabelled(entry, labels)
            for name, entry in entries.items()
        },
    )


def _in_common(
    texts: Mapping[str, Mapping[str, SubsetResponses]], tables: Mapping[str, ScoreTable]
) -> dict[str, dict[str, SubsetResponses]]:
    """Restrict to the prompts that all tables have."""
    first_table = next(iter(tables.values()))
    common_prompts = {subset: cell.prompt_ids for (_, subset), cell in first_table.items()}
    return {variant: limited_to(parts, common_prompts) for variant, parts in texts.items()}


def _identity(summary: VariantSummary) -> ComparedVariant:
    return ComparedVariant(
        variant=summary.variant,
        family=summary.family,
        role=summary.role,
        parent=summary.parent,
        recipe=summary.recipe,
        dose=summary.dose,
        content_key=content_key(summary.manifest) if summary.manifest else None,
    )


def _difference_draws(
    draws: Mapping[tuple[str, str, str], Floats | None], config: PosteriorConfig
) -> xr.Dataset:
    """Return draws of differences; NaN without pairs. A family of one variant has no pairs, but a
    file."""
    nothing = np.full(config.draws, np.nan)
    difference_draws: dict[tuple[str, ...], Floats] = {
        key: nothing if column is None else column for key, column in draws.items()
    }
    return draws_to_dataset(
        difference_draws or {("none", "none", ALL): nothing},
        "difference",
        ("scorer", "pair", "subset"),
    )
