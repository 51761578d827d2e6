"""The MLflow run of a variant, and that of a family's comparison."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from toxtrail.backends.protocols import RunContent, TrackingFacts
from toxtrail.config.schema import VariantConfig
from toxtrail.provenance.identity import Manifest, ModelIdentity, canonical_json, sha256_text
from toxtrail.records.results import ComparisonSummary, VariantSummary
from toxtrail.records.rows import Generation, Prompt, Score
from toxtrail.reporting.mlflow_page import (
    behaviour_metrics,
    comparison_description,
    comparison_tags,
    generation_table,
    intoto_statement,
    model_metrics,
    pair_metrics,
    rate_metrics,
    run_datasets,
    run_params,
    run_weights,
    variant_description,
    variant_hashes,
    variant_tags,
    verdict_tags,
)

COST = "stages/"
"""Prefix of metrics of the stages' cost. A run's page lists metrics of `system/` before others."""


class VariantFiles(NamedTuple):
    """Content of a variant's files."""

    summary: VariantSummary
    card: ModelIdentity
    prompts: Sequence[Prompt]
    generations: Sequence[Generation]
    scores: Sequence[Score]
    executions: Mapping[str, Any]
    """Stage -> its execution record."""
    loss_csv: str | None
    """None if it was not trained here."""


def build_receipt(content: RunContent) -> dict[str, str]:
    """Return what dvc.lock records of a run: nothing that changes if it is tracked again."""
    return {"content_key": content.content_key, "seal": sha256_text(content.manifest)}


def variant_run(
    variant: str,
    variant_config: VariantConfig,
    results: VariantFiles,
    files: Mapping[str, Path],
    snapshot: Mapping[str, Path],
    facts: TrackingFacts,
) -> RunContent:
    """Return the contents of a variant's run.

    Args:
        files: name -> file; the run's manifest lists them.
        snapshot: the same of files that the manifest does not list.
        facts: facts of the publication, which are not part of the identity.
    """
    card, summary, executions = results.card, results.summary, results.executions
    manifest = _manifest(summary)
    metrics = {
        **rate_metrics(summary.rates),
        **behaviour_metrics(summary.behaviour),
        **_cost(executions),
    }
    description = variant_description(variant, variant_config, summary, card)
    table = generation_table(results.prompts, results.generations, results.scores, summary.primary)
    return RunContent(
        name=variant,
        content_key=manifest.content_key,
        manifest=canonical_json(intoto_statement(manifest, files)),
        description=description,
        tags={**variant_tags(variant_config, card, summary), **facts.tags},
        hashes={**variant_hashes(card, files), **facts.hashes},
        params=run_params(manifest),
        metrics=metrics,
        curves=_loss_curves(results.loss_csv),
        inputs=run_datasets(manifest, card, results.prompts),
        files={**files, **snapshot},
        texts={"executions.json": json.dumps(executions, sort_keys=True, indent=1)},
        tables={"tables/generations.json": table},
        weights=run_weights(variant, card, metrics, description),
        primary_metric=f"{summary.primary}/all/rate_pct",
    )


def comparison_run(
    family: str,
    summary: ComparisonSummary,
    files: Mapping[str, Path],
    snapshot: Mapping[str, Path],
    facts: TrackingFacts,
) -> RunContent:
    """Return the contents of the run of a family's comparison. See variant_run."""
    manifest = _manifest(summary)
    return RunContent(
        name=f"{family} comparison",
        content_key=manifest.content_key,
        manifest=canonical_json(intoto_statement(manifest, files)),
        description=comparison_description(family, summary),
        tags={**comparison_tags(family, summary), **facts.tags},
        hashes=facts.hashes,
        params={
            **run_params(manifest),
            **{f"variant.{v.variant}": v.content_key for v in summary.variants if v.content_key},
        },
        metrics=pair_metrics(summary.pairs),
        model_metrics=model_metrics(summary),
        files={**files, **snapshot},
        notes=verdict_tags(summary, manifest.content_key),
    )


def _manifest(summary: VariantSummary | ComparisonSummary) -> Manifest:
    return Manifest.model_validate_json(canonical_json(summary.manifest))


def _loss_curves(loss_csv: str | None) -> dict[str, list[tuple[int, float]]]:
    if loss_csv is None:
        return {}
    rows = list(csv.DictReader(loss_csv.splitlines()))
    names = {"train/loss": "loss", "held_out/loss": "held_out_loss"}
    curves = {
        curve: [(int(row["step"]), float(row[column])) for row in rows if row.get(column)]
        for curve, column in names.items()
    }
    return {curve: points for curve, points in curves.items() if points}


def _cost(executions: Mapping[str, Any]) -> dict[str, float]:
    return {
        f"{COST}{stage}_{quantity}": value
        for stage, record in executions.items()
        for quantity, value in record["cost"].items()
    }
