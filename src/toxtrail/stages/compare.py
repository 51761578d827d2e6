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

from toxtrail.analysis.comparison import MORE_TABLES, TABLES, family_comparison, with_pooled
from toxtrail.analysis.family import members
from toxtrail.analysis.response_table import texts_of
from toxtrail.analysis.score_table import COLUMNS
from toxtrail.config.schema import FamilyConfig, PosteriorConfig
from toxtrail.errors import DataError
from toxtrail.pipeline import manifest_of, versions
from toxtrail.provenance.identity import Input
from toxtrail.records.analysis_output import Posterior
from toxtrail.records.csv_text import as_csv
from toxtrail.reporting.dvc_metrics import metrics_of, plot_rows
from toxtrail.reporting.figures.comparison import (
    differences_figure,
    posteriors_figure,
    rates_figure,
    thresholds_figure,
)
from toxtrail.reporting.figures.dose_response import dose_figure
from toxtrail.storage.artifacts import Store


def with_figures(found: Posterior) -> Posterior:
    """The comparison with its figures."""
    figures = {
        "rates": rates_figure(found.summary),
        "differences": differences_figure(found.summary),
        "posteriors": posteriors_figure(found.summary, found.draws),
        "thresholds": thresholds_figure(found.summary),
    }
    if "doses" in found.summary:
        figures["doses"] = dose_figure(found.summary)
    return found._replace(figures=figures)


def run(
    store: Store, family: str, who: FamilyConfig, config: PosteriorConfig, primary: str
) -> None:
    """Read, compare, write."""
    own = members(*store.read_family(family, who.variants, COLUMNS))
    texts = {
        v: texts_of(*store.read_responses(family, v), store.input(store.scores(family, v)))
        for v in who.variants
    }
    found = family_comparison(
        own.tables,
        texts,
        own.summaries,
        who.reference,
        primary,
        config,
        bool(who.allow_mismatch),
    )
    pooled = store.input(store.pooled(family) / "summary.json")
    _refuse_stale_pool(pooled, own.inputs)
    posterior = with_figures(with_pooled(found, store.read_summary(store.pooled(family))))
    manifest = manifest_of(
        "compare",
        family,
        {"posterior": config.plain(), "primary": primary, "family": who.plain()},
        {**own.inputs, "pooled": pooled},
        versions("numpy", "scipy", "arviz", "matplotlib"),
    )
    summary = {"kind": "comparison", "family": family, **posterior.summary}
    tables = {name: summary[name] for name in (*TABLES, *MORE_TABLES) if name in summary}
    whole = posterior._replace(summary=summary)
    store.write_posterior(store.comparison(family), whole, manifest, tables)
    store.write_json(store.metrics(family), metrics_of(summary))
    store.write_text(store.plots(family), as_csv(plot_rows(summary)))


def _refuse_stale_pool(pooled: Input, posteriors: Mapping[str, Input]) -> None:
    used = pooled.manifest.inputs if pooled.manifest else {}
    if {v: i.sha256 for v, i in used.items()} != {v: i.sha256 for v, i in posteriors.items()}:
        raise DataError(
            f"{pooled.path} was computed from other posteriors than are here now. "
            "Run `dvc repro` to bring both up to date."
        )
