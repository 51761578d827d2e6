"""Compare: what did each step of fine-tuning change, prompt by prompt?

reads   data/generations/<family>/, data/scores/<family>/, results/posteriors/<family>/,
        results/pooled/<family>/
writes  results/comparisons/<family>/summary.json, posterior.nc, the figures rates, differences,
        posteriors and thresholds as .svg and .png, and the tables rates, pairs, claims, behaviour,
        behaviour_pairs and thresholds (recipes, doses, slopes and the figure doses of a family that
        has them) as .parquet and .csv; for `dvc metrics` and `dvc plots`
        results/metrics/<family>.json and results/plots/<family>.csv
"""

from __future__ import annotations

from collections.abc import Mapping

from toxtrail.analysis.comparison import (
    OPTIONAL_TABLE_NAMES,
    TABLE_NAMES,
    compare_family,
    with_pooled,
)
from toxtrail.analysis.family import build_family
from toxtrail.analysis.response_table import read_response_table
from toxtrail.analysis.score_table import COLUMNS
from toxtrail.config.schema import FamilyConfig, PosteriorConfig
from toxtrail.errors import DataError
from toxtrail.pipeline import installed_versions, manifest_of
from toxtrail.provenance.identity import InputFile
from toxtrail.records.analysis_output import AnalysisOutput
from toxtrail.records.csv_text import rows_to_csv
from toxtrail.reporting.dvc_metrics import dvc_metrics, dvc_plot_rows
from toxtrail.reporting.figures.comparison import (
    differences_figure,
    posteriors_figure,
    rates_figure,
    thresholds_figure,
)
from toxtrail.reporting.figures.dose_response import dose_figure
from toxtrail.storage.artifacts import ArtifactStore


def with_figures(output: AnalysisOutput) -> AnalysisOutput:
    """The comparison with its figures."""
    figures = {
        "rates": rates_figure(output.summary),
        "differences": differences_figure(output.summary),
        "posteriors": posteriors_figure(output.summary, output.draws),
        "thresholds": thresholds_figure(output.summary),
    }
    if "doses" in output.summary:
        figures["doses"] = dose_figure(output.summary)
    return output._replace(figures=figures)


def run(
    store: ArtifactStore,
    family: str,
    family_config: FamilyConfig,
    config: PosteriorConfig,
    primary: str,
) -> None:
    """Read, compare, write."""
    family_inputs = build_family(*store.read_family(family, family_config.variants, COLUMNS))
    texts = {
        v: read_response_table(
            *store.read_responses(family, v), store.describe_input(store.scores_path(family, v))
        )
        for v in family_config.variants
    }
    output = compare_family(
        family_inputs.tables,
        texts,
        family_inputs.summaries,
        family_config.reference,
        primary,
        config,
        bool(family_config.allow_mismatch),
    )
    pooled = store.describe_input(store.pooled_dir(family) / "summary.json")
    _refuse_stale_pool(pooled, family_inputs.inputs)
    posterior = with_figures(with_pooled(output, store.read_summary(store.pooled_dir(family))))
    manifest = manifest_of(
        "compare",
        family,
        {"posterior": config.plain(), "primary": primary, "family": family_config.plain()},
        {**family_inputs.inputs, "pooled": pooled},
        installed_versions("numpy", "scipy", "arviz", "matplotlib"),
    )
    summary = {"kind": "comparison", "family": family, **posterior.summary}
    tables = {
        name: summary[name] for name in (*TABLE_NAMES, *OPTIONAL_TABLE_NAMES) if name in summary
    }
    whole = posterior._replace(summary=summary)
    store.write_analysis(store.comparison_dir(family), whole, manifest, tables)
    store.write_json(store.metrics_path(family), dvc_metrics(summary))
    store.write_text(store.plots_path(family), rows_to_csv(dvc_plot_rows(summary)))


def _refuse_stale_pool(pooled: InputFile, posteriors: Mapping[str, InputFile]) -> None:
    used = pooled.manifest.inputs if pooled.manifest else {}
    if {v: i.sha256 for v, i in used.items()} != {v: i.sha256 for v, i in posteriors.items()}:
        raise DataError(
            f"{pooled.path} was computed from other posteriors than are here now. "
            "Run `dvc repro` to bring both up to date."
        )
