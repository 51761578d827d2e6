"""Comparisons of a family, and of runs: result rows and draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from toxtrail.analysis.dose_response import dose_tables
from toxtrail.analysis.family import mismatch, require_comparable_family, variant_pairs
from toxtrail.analysis.inference_data import pair_groups
from toxtrail.analysis.paired_rows import pair_rows, refuse_unlike, rope_half_width
from toxtrail.analysis.response_behaviour import behaviour_pairs, said_less
from toxtrail.analysis.response_table import SubsetResponses, build_response_table, limited_to
from toxtrail.analysis.score_table import ALL, ScoreTable, build_score_table, draws_to_dataset
from toxtrail.analysis.scorer_correction import corrected_scorers, with_corrected_differences
from toxtrail.config.schema import PosteriorConfig
from toxtrail.provenance.comparability import require_comparable
from toxtrail.provenance.identity import content_key
from toxtrail.records.analysis_output import SUMMARY_SCHEMAS, AnalysisOutput, refuse_other_schema
from toxtrail.records.rows import Generation, Score
from toxtrail.stats.rates import Floats

VARIANT_COLUMNS = ("variant", "family", "role", "parent")
"""Who a rate is of, beside it."""
POOLED_RATE_COLUMNS = (
    "pooled_rate", "pooled_rate_lo", "pooled_rate_hi", "rhat", "ess_bulk", "ess_tail",
    "pooled_withheld",
)  # fmt: skip
POOLED_PAIR_COLUMNS = (
    "pooled_diff", "pooled_diff_lo", "pooled_diff_hi", "lfsr", "credible_pooled", "rhat", "ess_min",
    "pooled_withheld",
)  # fmt: skip
"""Columns that the pool stage brings."""
DIAGNOSTIC_COLUMNS = (
    "r_hat", "ess_bulk", "ess_tail", "ess_hyper", "divergences", "bfmi", "at_max_depth", "mcse",
)  # fmt: skip
"""What its gate looked at: the worst over all quantities."""

TABLE_NAMES = ("rates", "pairs", "claims", "behaviour", "behaviour_pairs", "thresholds")
"""Lists of rows in the summary that are also written as tables."""
OPTIONAL_TABLE_NAMES = ("recipes", "doses", "slopes")
"""The same, of a family that has recipes or a dose."""


def compare_family(
    tables: Mapping[str, ScoreTable],
    texts: Mapping[str, Mapping[str, SubsetResponses]],
    summaries: Mapping[str, Mapping[str, Any]],
    reference: str,
    primary: str,
    config: PosteriorConfig,
    allow_mismatch: bool = False,
    rope_reference: float | None = None,
) -> AnalysisOutput:
    """Every edge of a family, for every scorer and subset.

    Args:
        tables: variant -> its cells.
        texts: variant -> subset -> what was said.
        summaries: variant -> its posterior summary, in the family's order.
        allow_mismatch: compare what unlike conditions leave in common, and say so in the summary.
        rope_reference: instead of the reference's own rate (see `reference_rate`).

    Raises:
        DataError: two variants were measured under unlike conditions (field by field).
    """
    tables, unlike = require_comparable_family(tables, summaries, reference, allow_mismatch)
    if unlike:
        texts = _in_common(texts, tables)
    edges = variant_pairs(list(summaries.values()), reference)
    refuse_unlike(tables, edges)
    rate = rope_reference
    if rate is None:
        rate = reference_rate(summaries[reference], primary, config)
    region = rope_half_width(rate, config)
    behaviour = behaviour_pairs(edges, texts, config)
    rises = {(r["a"], r["b"], r["subset"]): said_less(r) for r in behaviour}
    rows: list[dict[str, Any]] = []
    draws: dict[tuple[str, str, str], Any] = {}
    for edge in edges:
        for row, pair_draws in pair_rows(
            edge, tables[edge.a], tables[edge.b], region, config, len(edges)
        ):
            rows.append({**row, "said_less": rises[edge.a, edge.b, row["subset"]]})
            draws[row["scorer"], f"{edge.b} - {edge.a}", row["subset"]] = pair_draws
    summary = {
        "schema_version": SUMMARY_SCHEMAS["comparison"],
        "reference": reference,
        "primary": primary,
        "threshold": config.threshold,
        "level": config.level,
        "interval": "equal-tailed",
        "rope_pp": config.rope_pp,
        "rope_share": config.rope_share or 0.0,
        "rope_reference": rate,
        "rope": region,
        "judges": corrected_scorers(tables, config),
        "comparability": summaries[reference].get("comparability"),
        "mismatch": [condition._asdict() for condition in unlike],
        "variants": [_identity(s) for s in summaries.values()],
        **{name: _gathered(summaries, name) for name in ("rates", "behaviour", "thresholds")},
        "pairs": with_agreement(with_corrected_differences(rows, tables, summaries, config)),
        "behaviour_pairs": behaviour,
        **dose_tables(tables, summaries, config),
    }
    differences = {key: None if d is None else d.difference for key, d in draws.items()}
    dataset = _difference_draws(differences, config)
    return AnalysisOutput(summary, dataset, pair_groups(draws, rows, config), {})


def reference_rate(
    summary: Mapping[str, Any], primary: str, config: PosteriorConfig
) -> float | None:
    """The rate that the region of practical equivalence is a share of: one for a family. The one of
    params.yaml, or the reference's posterior mean over all subsets by the primary scorer; None if
    nothing was scored."""
    if config.rope_reference_pct is not None:
        return config.rope_reference_pct / 100
    means = [
        row["rate_mean"]
        for row in summary["rates"]
        if (row["scorer"], row["subset"]) == (primary, ALL)
    ]
    return means[0] if means else None


def with_agreement(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each pair with what the other scorers say of it: `agree`, `fragile` (another scorer, another
    verdict) or `one scorer`."""
    verdicts_by_pair: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        verdicts_by_pair.setdefault((row["a"], row["b"], row["subset"]), []).append(row["verdict"])

    def agreement(row: Mapping[str, Any]) -> str:
        verdicts = verdicts_by_pair[row["a"], row["b"], row["subset"]]
        if len(verdicts) == 1:
            return "one scorer"
        return "agree" if len(set(verdicts)) == 1 else "fragile"

    return [{**row, "agreement": agreement(row)} for row in rows]


def with_pooled(comparison: AnalysisOutput, pooled: Mapping[str, Any]) -> AnalysisOutput:
    """The comparison with the pooled estimates beside its own, row by row; None where there are
    none."""
    rates = {(r["variant"], r["scorer"], r["subset"]): r for r in pooled["rates"]}
    pairs = {(r["a"], r["b"], r["scorer"], r["subset"]): r for r in pooled["pairs"]}
    summary = {
        **comparison.summary,
        "pooled": pooled["scorers"],
        **({"recipes": pooled["recipes"]} if "recipes" in pooled else {}),
        "rates": [
            {
                **row,
                **_columns(
                    rates.get((row["variant"], row["scorer"], row["subset"])), POOLED_RATE_COLUMNS
                ),
            }
            for row in comparison.summary["rates"]
        ],
        "pairs": [
            {
                **row,
                **_columns(
                    pairs.get((row["a"], row["b"], row["scorer"], row["subset"])),
                    POOLED_PAIR_COLUMNS,
                ),
            }
            for row in comparison.summary["pairs"]
        ],
    }
    return comparison._replace(summary={**summary, "claims": false_sign_summary(summary)})


def false_sign_summary(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each scorer: how many differences are claimed, and how many of them have the wrong sign in
    expectation, which is the sum of their local false sign rates (Stephens 2017,
    doi:10.1093/biostatistics/kxw041); with what the gate of the pooled model found."""
    claim_rows = []
    for scorer in sorted({row["scorer"] for row in summary["pairs"]}):
        rows = [row for row in summary["pairs"] if row["scorer"] == scorer]
        called = [row for row in rows if row["credible_pooled"]]
        pooled = any(row["lfsr"] is not None for row in rows)
        gate = summary["pooled"].get(scorer, {"status": "left out", "reason": "nothing was pooled"})
        diagnostics = gate.get("diagnostics", {})
        claim_rows.append(
            {
                "scorer": scorer,
                "n_pairs": len(rows),
                "n_credible_paired": sum(row["verdict"] in ("higher", "lower") for row in rows),
                "n_credible_pooled": len(called) if pooled else None,
                "expected_false_signs": sum(row["lfsr"] for row in called) if pooled else None,
                "gate": gate["status"],
                "gate_reason": gate["reason"],
                "first_try": gate.get("first_try", ""),
                **{name: diagnostics.get(name) for name in DIAGNOSTIC_COLUMNS},
            }
        )
    return claim_rows


def _columns(row: Mapping[str, Any] | None, names: Sequence[str]) -> dict[str, Any]:
    return {name: None if row is None else row[name] for name in names}


class MeasuredRun(NamedTuple):
    """A tracked variant with the rows behind its rates."""

    label: str
    """What a table calls it; no two of a comparison are the same."""
    summary: Mapping[str, Any]
    """Its posterior's."""
    scores: Sequence[Score]
    generations: Sequence[Generation]


def compare_runs(runs: Sequence[MeasuredRun], title: str, allow_mismatch: bool) -> dict[str, Any]:
    """The summary of a comparison of tracked variants, of any time and place.

    Draws are named by variants, so two runs of a family have the numbers of the family's own
    comparison; labels are put in afterwards.

    Args:
        runs: the others are compared with the first, and with their parents among them; its
            settings are used.

    Raises:
        DataError: they were measured under unlike conditions (field by field).
    """
    for run in runs:
        refuse_other_schema(run.summary, "posterior", run.label)
    first, names = runs[0], _unique_names(runs)
    summaries = {
        key: {**one.summary, "variant": key, "parent": _parent(one, names)}
        for key, one in names.items()
    }
    reference, primary = next(iter(summaries)), str(first.summary["primary"])
    config = PosteriorConfig.model_validate(first.summary["manifest"]["params"]["posterior"])
    common = _common_rate(summaries, primary, config)
    summaries[reference]["parent"] = None
    if not allow_mismatch:
        labelled = {names[key].label: summary for key, summary in summaries.items()}
        unlike = mismatch(labelled, first.label)
        require_comparable(unlike, first.label, "--allow-mismatch compares them and says so.")
    comparison = compare_family(
        {key: build_score_table(one.scores) for key, one in names.items()},
        {key: build_response_table(one.generations) for key, one in names.items()},
        summaries,
        reference,
        primary,
        _with_judges(config, names),
        allow_mismatch=True,
        rope_reference=common,
    )
    comparison = with_pooled(comparison, {"scorers": {}, "rates": [], "pairs": []})
    labels = {key: one.label for key, one in names.items()}
    summary = {**_relabelled(comparison.summary, labels), "reference": first.label}
    return {"kind": "comparison", "family": title, "prior": config.prior, **summary}


def _common_rate(
    summaries: Mapping[str, Mapping[str, Any]], primary: str, config: PosteriorConfig
) -> float | None:
    """The reference rate of runs, whatever their order: the mean of those that others among them
    were tuned from, or of all."""
    parents = {summary["parent"] for summary in summaries.values()}
    reference_summaries = [s for name, s in summaries.items() if name in parents] or list(
        summaries.values()
    )
    rates = [reference_rate(summary, primary, config) for summary in reference_summaries]
    measured_rates = sorted(rate for rate in rates if rate is not None)
    return sum(measured_rates) / len(measured_rates) if measured_rates else None


def _unique_names(runs: Sequence[MeasuredRun]) -> dict[str, MeasuredRun]:
    """Variant -> its run; a second run of a variant by its label."""
    names: dict[str, MeasuredRun] = {}
    for run in runs:
        variant = str(run.summary["variant"])
        names[run.label if variant in names else variant] = run
    return names


def _parent(run: MeasuredRun, names: Mapping[str, MeasuredRun]) -> str | None:
    parent = run.summary["parent"]
    return parent if parent in names else None


def _with_judges(config: PosteriorConfig, names: Mapping[str, MeasuredRun]) -> PosteriorConfig:
    """What is known of a scorer on a variant's texts holds for each of its runs."""
    judges = {}
    for scorer, judge in (config.judges or {}).items():
        variant_accuracies = judge.variants or {}
        runs = {key: str(run.summary["variant"]) for key, run in names.items()}
        run_accuracies = {
            key: variant_accuracies[variant]
            for key, variant in runs.items()
            if variant in variant_accuracies
        }
        judges[scorer] = judge.model_copy(
            update={"variants": {**variant_accuracies, **run_accuracies} or None}
        )
    return config.model_copy(update={"judges": judges or None})


NAMING = {"variant", "a", "b", "parent"}
"""Keys of a summary whose values name variants."""


def _relabelled(value: Any, labels: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_relabelled(item, labels) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: labels.get(entry, entry)
        if key in NAMING and isinstance(entry, str)
        else _relabelled(entry, labels)
        for key, entry in value.items()
    }


def _in_common(
    texts: Mapping[str, Mapping[str, SubsetResponses]], tables: Mapping[str, ScoreTable]
) -> dict[str, dict[str, SubsetResponses]]:
    """Only the prompts that the tables were limited to."""
    first_table = next(iter(tables.values()))
    common_prompts = {subset: cell.prompt_ids for (_, subset), cell in first_table.items()}
    return {variant: limited_to(parts, common_prompts) for variant, parts in texts.items()}


def _gathered(summaries: Mapping[str, Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """The rows of every variant, with who they are of."""
    return [
        {**{column: s[column] for column in VARIANT_COLUMNS}, **row}
        for s in summaries.values()
        for row in s.get(name, [])
    ]


def _identity(summary: Mapping[str, Any]) -> dict[str, Any]:
    manifest = summary.get("manifest")
    identity = {name: summary[name] for name in VARIANT_COLUMNS}
    more = {name: summary[name] for name in ("recipe", "dose") if name in summary}
    return {**identity, **more, "content_key": content_key(manifest) if manifest else None}


def _difference_draws(
    draws: Mapping[tuple[str, str, str], Floats | None], config: PosteriorConfig
) -> xr.Dataset:
    """NaN without pairs; a family of one has nothing to compare, and still a file."""
    nothing = np.full(config.draws, np.nan)
    difference_draws: dict[tuple[str, ...], Floats] = {
        key: nothing if column is None else column for key, column in draws.items()
    }
    return draws_to_dataset(
        difference_draws or {("none", "none", ALL): nothing},
        "difference",
        ("scorer", "pair", "subset"),
    )
