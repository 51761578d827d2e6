"""Compare: what did each step of fine-tuning change, prompt by prompt?

reads   data/generations/<family>/, data/scores/<family>/, results/posteriors/<family>/,
        results/pooled/<family>/
writes  results/comparisons/<family>/summary.json, posterior.nc, the figures rates, differences,
        posteriors and thresholds as .svg and .png, and the tables rates, pairs, error_control,
        behaviour, behaviour_pairs and thresholds (agreement, agreement_pairs, recipes, doses,
        slopes and the figure doses of a family that has them) as .parquet and .csv; for `dvc
        metrics` and `dvc plots` results/metrics/<family>.json and results/plots/<family>.csv
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toxtrail.analysis.comparison import (
    compare_family,
    comparison_tables,
    with_pooled,
)
from toxtrail.analysis.family import build_family
from toxtrail.analysis.response_table import REFUSAL_COLUMNS, SubsetResponses, read_response_table
from toxtrail.analysis.score_table import COLUMNS
from toxtrail.config.schema import FamilyConfig, PosteriorConfig
from toxtrail.errors import DataError
from toxtrail.pipeline import installed_versions, manifest_of
from toxtrail.provenance.identity import InputFile
from toxtrail.records.analysis_output import AnalysisOutput
from toxtrail.records.csv_text import rows_to_csv
from toxtrail.records.results import ComparisonSummary, PoolSummary
from toxtrail.reporting.dvc_metrics import dvc_metrics, dvc_plot_rows
from toxtrail.reporting.figures.comparison import (
    differences_figure,
    posteriors_figure,
    rates_figure,
    thresholds_figure,
)
from toxtrail.reporting.figures.dose_response import dose_figure
from toxtrail.stats.bayes_libraries import diagnostics_packages
from toxtrail.storage.artifacts import ArtifactStore


def run(
    store: ArtifactStore,
    family: str,
    family_config: FamilyConfig,
    config: PosteriorConfig,
    primary: str,
) -> None:
    """Read, compare, write."""
    inputs = build_family(*store.read_family(family, family_config.variants, COLUMNS))
    texts = {v: _read_texts(store, family, v) for v in family_config.variants}
    reference, allow = family_config.reference, bool(family_config.allow_mismatch)
    output = compare_family(
        inputs.tables, texts, inputs.summaries, reference, primary, config, allow
    )
    pooled, pool_summary = _read_pooled(store, family, inputs.inputs)
    output = with_figures(with_pooled(output, pool_summary))
    params = {"posterior": config.plain(), "primary": primary, "family": family_config.plain()}
    _write(store, family, output, params, {**inputs.inputs, "pooled": pooled})


def with_figures(
    output: AnalysisOutput[ComparisonSummary],
) -> AnalysisOutput[ComparisonSummary]:
    """Return the comparison with its figures."""
    figures = {
        "rates": rates_figure(output.summary),
        "differences": differences_figure(output.summary),
        "posteriors": posteriors_figure(output.summary, output.draws),
        "thresholds": thresholds_figure(output.summary),
    }
    if output.summary.doses:
        figures["doses"] = dose_figure(output.summary)
    return output._replace(figures=figures)


def _read_texts(store: ArtifactStore, family: str, variant: str) -> dict[str, SubsetResponses]:
    scores = store.describe_input(store.scores_path(family, variant))
    return read_response_table(*store.read_responses(family, variant, REFUSAL_COLUMNS), scores)


def _read_pooled(
    store: ArtifactStore, family: str, posteriors: Mapping[str, InputFile]
) -> tuple[InputFile, PoolSummary]:
    """Read the pooled estimates.

    Raises:
        DataError: they were computed from other posteriors.
    """
    pooled = store.describe_input(store.pooled_dir(family) / "summary.json")
    used = pooled.manifest.inputs if pooled.manifest else {}
    if {v: i.sha256 for v, i in used.items()} != {v: i.sha256 for v, i in posteriors.items()}:
        raise DataError(
            f"{pooled.path} was computed from other posteriors than are here now. "
            "Run `dvc repro` to bring both up to date."
        )
    return pooled, store.read_results(PoolSummary, store.pooled_dir(family))


def _write(
    store: ArtifactStore,
    family: str,
    output: AnalysisOutput[ComparisonSummary],
    params: Mapping[str, Any],
    inputs: Mapping[str, InputFile],
) -> None:
    packages = ("numpy", "scipy", "py3langid", *diagnostics_packages(), "matplotlib")
    versions = installed_versions(*packages)
    manifest = manifest_of("compare", family, params, inputs, versions)
    summary = output.summary
    folder = store.comparison_dir(family)
    store.write_analysis(folder, output, manifest, comparison_tables(summary))
    store.write_json(store.metrics_path(family), dvc_metrics(summary))
    store.write_text(store.plots_path(family), rows_to_csv(dvc_plot_rows(summary)))
